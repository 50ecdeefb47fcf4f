"""Paracle's REST API from Python code that does not use asyncio. See `aio` for the same with it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import httpx2
from pydantic import JsonValue

from paracle_client import calls, wire
from paracle_client.calls import Call, Plural
from paracle_domain.audit import AuditPage, UsageReport
from paracle_domain.dead_letters import DeadLetterFilter, DeadLetterPage, DeadLettersSettled, DeadLetterView
from paracle_domain.errors import ParacleError
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Done, Message
from paracle_domain.registry import Applied, Explanation, RevisionList, SpecList, SpecView
from paracle_domain.run.commands import (
    ApprovalPage,
    ApprovalStatus,
    ApprovalView,
    RunAccepted,
    RunFilter,
    RunPage,
    RunsAccepted,
    RunStatus,
    RunView,
    Verdict,
)
from paracle_domain.run.diff import RunsDiff
from paracle_domain.task.effects import EffectFilter, EffectPage, EffectView, Truth
from paracle_domain.task.output import TaskOutput
from paracle_domain.task.sessions import SessionPage, SessionView
from paracle_domain.trigger.commands import TriggerPage, TriggerView

DEFAULT_URL: Final = "http://127.0.0.1:8080"


class Client:
    """Paracle at `url`.

    Every method raises the `ParacleError` that the service raised; `Unavailable` if Paracle is not there and
    `DeadlineExceeded` if it does not answer within `timeout_s`. What failed because Paracle was not there is tried
    again a few times: all calls may be repeated without doing anything twice.

    `principal` and `roles` say on whose behalf it is asked. Paracle believes that only if it was told to trust whoever
    can reach it (`PARACLE_API_TRUST_IDENTITY`), and refuses it otherwise.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 30.0,
        principal: str | None = None,
        roles: Sequence[str] = (),
    ) -> None:
        self.url = url
        self._http = httpx2.Client(**wire.options(url, timeout_s, principal, roles))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    # Manifests

    def apply(self, text: str, source: str = "manifest", *, dry_run: bool = False) -> Applied:
        """Put all manifests of `text` (YAML) in, or none; `source` is what errors call it."""
        return self._ask(calls.apply(text, source, dry_run=dry_run))

    def list(self, plural: Plural, *, limit: int = 500, cursor: str | None = None) -> SpecList:
        """Newest revisions of all `agents`, `tools`, `workflows` or `triggers`, by name."""
        return self._ask(calls.list_specs(plural, limit, cursor))

    def get(self, plural: Plural, name: str, *, revision: int | None = None) -> SpecView:
        """One manifest as it was written: its newest revision, or the one given."""
        return self._ask(calls.get_spec(plural, name, revision))

    def revisions(self, plural: Plural, name: str) -> RevisionList:
        """How a manifest came to be what it is, newest first."""
        return self._ask(calls.revisions(plural, name))

    def delete(self, plural: Plural, name: str, *, dry_run: bool = False) -> Applied:
        """Take one manifest out, unless others use it; its revisions are kept."""
        return self._ask(calls.delete(plural, name, dry_run=dry_run))

    def delete_manifests(self, text: str, source: str = "manifest", *, dry_run: bool = False) -> Applied:
        """Take out all that `text` (YAML) names by kind and name, or nothing of it."""
        return self._ask(calls.delete_manifests(text, source, dry_run=dry_run))

    def explain(self, agent: str) -> Explanation:
        """An agent with its inheritance resolved, and which ancestor set each field."""
        return self._ask(calls.explain(agent))

    # Runs

    def start_run(
        self,
        workflow: str,
        value: JsonValue = None,
        *,
        labels: Mapping[str, str] | None = None,
        revision: int | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> RunAccepted:
        """Start a run of `workflow` on the input `value`; the same key names the same run for ever.

        Where a limit makes runs wait, the highest `priority` (-100 to 100, else 0) goes first.
        """
        given = {} if value is None else value
        return self._ask(calls.start_run(workflow, given, labels or {}, revision, priority, idempotency_key))

    def invoke(
        self,
        agent: str,
        value: JsonValue,
        *,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> RunAccepted:
        """Start a run of one agent."""
        return self._ask(calls.invoke(agent, value, labels or {}, idempotency_key))

    def get_run(self, run_id: str, *, parts: int | None = None) -> RunView:
        """A run with its steps, as it stands, and the first `parts` items or iterations of each (100, if not given)."""
        return self._ask(calls.get_run(run_id, parts))

    def runs(
        self,
        *,
        workflow: str | None = None,
        status: RunStatus | Sequence[RunStatus] | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        parent: str | None = None,
        stuck: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Runs that meet all that is given, newest first: in one of the statuses, with all of the labels.

        `stuck`: only those that wait for a message which could not be handled (see `dead_letters`).

        A page may be short and still have a `next_cursor`, since a long search rests after a while.
        """
        wanted = RunFilter(
            workflow=workflow,
            statuses=calls.statuses(status),
            labels=dict(labels or {}),
            created_after=created_after,
            created_before=created_before,
            parent=parent,
            stuck=stuck,
        )
        return self._ask(calls.list_runs(wanted, limit, cursor))

    def cancel(self, run_id: str, reason: str = "cancelled by request") -> RunAccepted:
        """Stop a run: from the answer on, nothing new of it begins."""
        return self._ask(calls.cancel(run_id, reason))

    def pause(self, run_id: str, reason: str = "") -> RunAccepted:
        """Start nothing new of a run until it is resumed; what runs goes on."""
        return self._ask(calls.pause(run_id, reason))

    def resume(self, run_id: str, reason: str = "") -> RunAccepted:
        """Go on with a paused run."""
        return self._ask(calls.resume(run_id, reason))

    def signal(
        self, run_id: str, name: str, payload: JsonValue = None, *, idempotency_key: str | None = None
    ) -> RunAccepted:
        """Tell a run what a `wait` step of it waits for, or will; the same key is one signal."""
        return self._ask(calls.signal(run_id, name, payload, idempotency_key))

    def fork(
        self,
        run_id: str,
        from_step: str,
        *,
        revision: int | None = None,
        value: JsonValue = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> RunAccepted:
        """Start a new run that keeps a run's results, but for `from_step` and all that depends on it.

        What is not given (the workflow's `revision`, the input `value`, `labels`) is the old run's.
        """
        return self._ask(calls.fork(run_id, from_step, revision, value, labels, idempotency_key))

    def cancel_runs(
        self, wanted: RunFilter, reason: str = "cancelled by request", *, dry_run: bool = False
    ) -> RunsAccepted:
        """Stop all runs that `wanted` finds, which must name something; how many those are."""
        return self._ask(calls.cancel_runs(wanted, reason, dry_run=dry_run))

    def resume_runs(self, wanted: RunFilter, reason: str = "", *, dry_run: bool = False) -> RunsAccepted:
        """Go on with all paused runs that `wanted` finds, which must name something; how many those are."""
        return self._ask(calls.resume_runs(wanted, reason, dry_run=dry_run))

    def diff_runs(self, left: str, right: str) -> RunsDiff:
        """What differs between what two runs pinned: workflow, agents, tools, children and contract, by path."""
        return self._ask(calls.diff_runs(left, right))

    def usage(self, run_id: str) -> UsageReport:
        """Tokens and cost of a run so far, by model, agent and step."""
        return self._ask(calls.usage(run_id))

    def audit(self, run_id: str, *, after: int = 0) -> AuditPage:
        """All that was stored of a run, model calls and tool calls included."""
        return self._ask(calls.audit(run_id, after))

    def wait(self, run_id: str) -> RunView:
        """Wait until a run has ended, however it ends."""
        for _ in self.events(run_id, after=self.get_run(run_id).last_seq, follow=True):
            pass
        return self.get_run(run_id)

    def events(self, run_id: str, *, after: int = 0, follow: bool = False) -> Iterator[EventRecord]:
        """A run's events after number `after`, in order and each once.

        With `follow`, goes on until the run has ended; a connection that breaks is taken up where it broke.

        Raises
        ------
        Unavailable
            If Paracle cannot be reached for a minute while following.
        """
        return self._follow(run_id, after) if follow else self._events_so_far(run_id, after)

    def output(self, task_id: str, *, after: int = 0) -> Iterator[TaskOutput]:
        """What a task says while it is at work: pieces of replies as they come, thoughts, and the progress of tools.

        It goes on after cursor `after` (the `seq` of one) until the task has ended, and takes a connection that
        breaks up where it broke. What was said is kept for ten minutes; `gap` says that something is missing. A
        reader that is slow slows nobody but itself.

        Raises
        ------
        Unavailable
            If Paracle cannot be reached for a minute.
        """
        cursor = wire.Cursor(after)
        while not cursor.done:
            broken: ParacleError | None = None
            try:
                yield from self._said(task_id, cursor)
            except ParacleError as error:
                broken = error
            if not cursor.done:
                time.sleep(cursor.pause_s(broken))

    # Sessions

    def sessions(self, *, limit: int = 50, cursor: str | None = None) -> SessionPage:
        """Conversations with agents, newest first. The field `session` of an agent's input begins one or goes on."""
        return self._ask(calls.list_sessions(limit, cursor))

    def get_session(self, session_id: str, *, after: int = 0) -> SessionView:
        """A conversation with its turns after number `after`, and what each added."""
        return self._ask(calls.get_session(session_id, after))

    def delete_session(self, session_id: str) -> Done:
        """Forget a conversation; a conflict while one of its turns is open."""
        return self._ask(calls.delete_session(session_id))

    # Approvals

    def approvals(
        self,
        *,
        status: ApprovalStatus | None = None,
        run_id: str | None = None,
        workflow: str | None = None,
        approver: str | None = None,
        mine: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> ApprovalPage:
        """Approvals, open ones first, then the newest; `mine`: only those that whoever asks may approve now."""
        return self._ask(calls.list_approvals(status, run_id, workflow, approver, limit, cursor, mine=mine))

    def get_approval(self, approval_id: str) -> ApprovalView:
        """What exactly is asked, of whom, and what was decided."""
        return self._ask(calls.get_approval(approval_id))

    def decide(self, approval_id: str, decision: Verdict, *, digest: str, reason: str = "") -> RunAccepted:
        """Approve or reject what `digest` stands for: the one of the approval that was looked at."""
        return self._ask(calls.decide(approval_id, decision, digest, reason))

    # Effects

    def effects(self, which: EffectFilter | None = None, *, limit: int = 50, cursor: str | None = None) -> EffectPage:
        """Effects of tools (those that fit `which`), the newest first."""
        return self._ask(calls.list_effects(which or EffectFilter(), limit, cursor))

    def get_effect(self, key: str) -> EffectView:
        """One effect, by its idempotency key."""
        return self._ask(calls.get_effect(key))

    def resolve_effect(self, key: str, outcome: Truth, *, output: JsonValue = None, reason: str) -> EffectView:
        """Say what became of an effect in doubt. Later attempts of the step, and forks from it, believe that."""
        return self._ask(calls.resolve_effect(key, outcome, output, reason))

    # Dead letters

    def dead_letters(
        self, which: DeadLetterFilter | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        """Messages that could not be handled (those that fit `which`), newest first."""
        return self._ask(calls.list_dead_letters(which or DeadLetterFilter(), limit, cursor))

    def dead_letter(self, letter_id: str) -> DeadLetterView:
        """One of them, whole."""
        return self._ask(calls.get_dead_letter(letter_id))

    def redrive(self, letter_id: str) -> DeadLettersSettled:
        """Publish it again where it was published first."""
        return self._ask(calls.redrive(letter_id))

    def redrive_all(self, which: DeadLetterFilter) -> DeadLettersSettled:
        """Publish all again that fit, oldest first; those that come to be meanwhile are left."""
        return self._settle_all(which, None)

    def drop(self, letter_id: str, reason: str) -> DeadLettersSettled:
        """Give it up for good; the audit log keeps who did, and why."""
        return self._ask(calls.drop(letter_id, reason))

    def drop_all(self, which: DeadLetterFilter, reason: str) -> DeadLettersSettled:
        """Give up all that fit."""
        return self._settle_all(which, reason)

    # Triggers

    def triggers(self, *, limit: int = 100, cursor: str | None = None) -> TriggerPage:
        """Triggers by name, with what they count and when they fire next."""
        return self._ask(calls.list_triggers(limit, cursor))

    def get_trigger(self, name: str) -> TriggerView:
        """A trigger with its next times and its last runs."""
        return self._ask(calls.get_trigger(name))

    def pause_trigger(self, name: str, reason: str | None = None) -> TriggerView:
        """Let a trigger start nothing until it is resumed."""
        return self._ask(calls.pause_trigger(name, reason))

    def resume_trigger(self, name: str) -> TriggerView:
        """Let a paused trigger go on; what it missed meanwhile is not made up for."""
        return self._ask(calls.resume_trigger(name))

    def fire_trigger(self, name: str, message: JsonValue = None, *, idempotency_key: str | None = None) -> RunAccepted:
        """Start one run of a trigger now; `message` is what one on messages takes for one."""
        return self._ask(calls.fire_trigger(name, message, idempotency_key))

    # How it is done

    def _settle_all(self, which: DeadLetterFilter, reason: str | None) -> DeadLettersSettled:
        parts: deque[DeadLettersSettled] = deque()
        while not parts or parts[-1].more:
            parts.append(self._ask(calls.settle_all(which, reason, parts[-1] if parts else None)))
        return calls.together(parts)

    def _events_so_far(self, run_id: str, after: int) -> Iterator[EventRecord]:
        cursor = wire.Cursor(after)
        while True:
            page = self._ask(calls.events(run_id, cursor.after))
            for record in page.events:
                yield from cursor.take(record)
            if page.terminal or not page.events:
                return

    def _follow(self, run_id: str, after: int) -> Iterator[EventRecord]:
        cursor = wire.Cursor(after)
        if self._ended_at(run_id, after):
            return
        while not cursor.done:
            broken: ParacleError | None = None
            try:
                yield from self._stream(run_id, cursor)
            except ParacleError as error:
                broken = error
            if not cursor.done:
                time.sleep(cursor.pause_s(broken))

    def _ended_at(self, run_id: str, after: int) -> bool:
        """Whether the run ended with event `after`, so that there is nothing to wait for; checks that it exists."""
        view = self.get_run(run_id)
        return view.run.status.terminal and view.last_seq <= after

    def _stream(self, run_id: str, cursor: wire.Cursor) -> Iterator[EventRecord]:
        call = calls.events(run_id, cursor.after)
        lines = wire.EventLines()
        for line in self._lines(call.path, call.query | {"follow": "true"}, cursor):
            if (record := lines.feed(line)) is not None:
                yield from cursor.take(record)

    def _said(self, task_id: str, cursor: wire.Cursor) -> Iterator[TaskOutput]:
        lines = wire.EventLines()
        for line in self._lines(calls.task_output(task_id).path, {}, cursor):
            if (text := lines.text(line)) is not None:
                output = wire.output_of(text)
                cursor.hear(output)
                yield output

    def _lines(self, path: str, query: dict[str, Any], cursor: wire.Cursor) -> Iterator[str]:
        """Lines of an event stream, from what `cursor` has seen."""
        try:
            with self._http.stream(
                "GET", path, params=query, headers=wire.stream_headers(cursor.after), timeout=wire.STREAM_TIMEOUT
            ) as response:
                if not response.is_success:
                    response.read()
                    raise wire.failure(response)
                wire.require_stream(response)
                cursor.heard()
                for line in response.iter_lines():
                    cursor.heard()
                    yield line
        except httpx2.RequestError as error:
            raise wire.unreachable(error, self.url) from error

    def _ask[R: Message](self, call: Call[R]) -> R:
        attempt = 1
        while True:
            try:
                return self._ask_once(call)
            except ParacleError as error:
                if not wire.worth_retrying(error, attempt):
                    raise
                time.sleep(wire.pause_s(attempt, error))
            attempt += 1

    def _ask_once[R: Message](self, call: Call[R]) -> R:
        try:
            response = self._http.request(
                call.method,
                call.path,
                params=call.query,
                headers=call.headers,
                json=call.json,
                content=call.text,
                timeout=wire.timeout(call.patience_s),
            )
        except httpx2.RequestError as error:
            raise wire.unreachable(error, self.url) from error
        return wire.answer(response, call.answer)
