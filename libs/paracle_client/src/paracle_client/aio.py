"""Paracle's REST API from Python code that uses asyncio. See `client` for the same without it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx2
from pydantic import JsonValue

from paracle_client import calls, wire
from paracle_client.calls import Call, Plural
from paracle_client.client import DEFAULT_URL
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


class AsyncClient:
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
        self._http = httpx2.AsyncClient(**wire.options(url, timeout_s, principal, roles))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    # Manifests

    async def apply(self, text: str, source: str = "manifest", *, dry_run: bool = False) -> Applied:
        """Put all manifests of `text` (YAML) in, or none; `source` is what errors call it."""
        return await self._ask(calls.apply(text, source, dry_run=dry_run))

    async def list(self, plural: Plural, *, limit: int = 500, cursor: str | None = None) -> SpecList:
        """Newest revisions of all `agents`, `tools`, `workflows` or `triggers`, by name."""
        return await self._ask(calls.list_specs(plural, limit, cursor))

    async def get(self, plural: Plural, name: str, *, revision: int | None = None) -> SpecView:
        """One manifest as it was written: its newest revision, or the one given."""
        return await self._ask(calls.get_spec(plural, name, revision))

    async def revisions(self, plural: Plural, name: str) -> RevisionList:
        """How a manifest came to be what it is, newest first."""
        return await self._ask(calls.revisions(plural, name))

    async def delete(self, plural: Plural, name: str, *, dry_run: bool = False) -> Applied:
        """Take one manifest out, unless others use it; its revisions are kept."""
        return await self._ask(calls.delete(plural, name, dry_run=dry_run))

    async def delete_manifests(self, text: str, source: str = "manifest", *, dry_run: bool = False) -> Applied:
        """Take out all that `text` (YAML) names by kind and name, or nothing of it."""
        return await self._ask(calls.delete_manifests(text, source, dry_run=dry_run))

    async def explain(self, agent: str) -> Explanation:
        """An agent with its inheritance resolved, and which ancestor set each field."""
        return await self._ask(calls.explain(agent))

    # Runs

    async def start_run(
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
        return await self._ask(calls.start_run(workflow, given, labels or {}, revision, priority, idempotency_key))

    async def invoke(
        self,
        agent: str,
        value: JsonValue,
        *,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> RunAccepted:
        """Start a run of one agent."""
        return await self._ask(calls.invoke(agent, value, labels or {}, idempotency_key))

    async def get_run(self, run_id: str, *, parts: int | None = None) -> RunView:
        """A run with its steps, as it stands, and the first `parts` items or iterations of each (100, if not given)."""
        return await self._ask(calls.get_run(run_id, parts))

    async def runs(
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
        return await self._ask(calls.list_runs(wanted, limit, cursor))

    async def cancel(self, run_id: str, reason: str = "cancelled by request") -> RunAccepted:
        """Stop a run: from the answer on, nothing new of it begins."""
        return await self._ask(calls.cancel(run_id, reason))

    async def pause(self, run_id: str, reason: str = "") -> RunAccepted:
        """Start nothing new of a run until it is resumed; what runs goes on."""
        return await self._ask(calls.pause(run_id, reason))

    async def resume(self, run_id: str, reason: str = "") -> RunAccepted:
        """Go on with a paused run."""
        return await self._ask(calls.resume(run_id, reason))

    async def signal(
        self, run_id: str, name: str, payload: JsonValue = None, *, idempotency_key: str | None = None
    ) -> RunAccepted:
        """Tell a run what a `wait` step of it waits for, or will; the same key is one signal."""
        return await self._ask(calls.signal(run_id, name, payload, idempotency_key))

    async def fork(
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
        return await self._ask(calls.fork(run_id, from_step, revision, value, labels, idempotency_key))

    async def cancel_runs(
        self, wanted: RunFilter, reason: str = "cancelled by request", *, dry_run: bool = False
    ) -> RunsAccepted:
        """Stop all runs that `wanted` finds, which must name something; how many those are."""
        return await self._ask(calls.cancel_runs(wanted, reason, dry_run=dry_run))

    async def resume_runs(self, wanted: RunFilter, reason: str = "", *, dry_run: bool = False) -> RunsAccepted:
        """Go on with all paused runs that `wanted` finds, which must name something; how many those are."""
        return await self._ask(calls.resume_runs(wanted, reason, dry_run=dry_run))

    async def diff_runs(self, left: str, right: str) -> RunsDiff:
        """What differs between what two runs pinned: workflow, agents, tools, children and contract, by path."""
        return await self._ask(calls.diff_runs(left, right))

    async def usage(self, run_id: str) -> UsageReport:
        """Tokens and cost of a run so far, by model, agent and step."""
        return await self._ask(calls.usage(run_id))

    async def audit(self, run_id: str, *, after: int = 0) -> AuditPage:
        """All that was stored of a run, model calls and tool calls included."""
        return await self._ask(calls.audit(run_id, after))

    async def wait(self, run_id: str) -> RunView:
        """Wait until a run has ended, however it ends."""
        async for _ in self.events(run_id, after=(await self.get_run(run_id)).last_seq, follow=True):
            pass
        return await self.get_run(run_id)

    def events(self, run_id: str, *, after: int = 0, follow: bool = False) -> AsyncIterator[EventRecord]:
        """A run's events after number `after`, in order and each once.

        With `follow`, goes on until the run has ended; a connection that breaks is taken up where it broke.

        Raises
        ------
        Unavailable
            If Paracle cannot be reached for a minute while following.
        """
        return self._follow(run_id, after) if follow else self._events_so_far(run_id, after)

    async def output(self, task_id: str, *, after: int = 0) -> AsyncIterator[TaskOutput]:
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
                async for said in self._said(task_id, cursor):
                    yield said
            except ParacleError as error:
                broken = error
            if not cursor.done:
                await asyncio.sleep(cursor.pause_s(broken))

    # Sessions

    async def sessions(self, *, limit: int = 50, cursor: str | None = None) -> SessionPage:
        """Conversations with agents, newest first. The field `session` of an agent's input begins one or goes on."""
        return await self._ask(calls.list_sessions(limit, cursor))

    async def get_session(self, session_id: str, *, after: int = 0) -> SessionView:
        """A conversation with its turns after number `after`, and what each added."""
        return await self._ask(calls.get_session(session_id, after))

    async def delete_session(self, session_id: str) -> Done:
        """Forget a conversation; a conflict while one of its turns is open."""
        return await self._ask(calls.delete_session(session_id))

    # Approvals

    async def approvals(
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
        return await self._ask(calls.list_approvals(status, run_id, workflow, approver, limit, cursor, mine=mine))

    async def get_approval(self, approval_id: str) -> ApprovalView:
        """What exactly is asked, of whom, and what was decided."""
        return await self._ask(calls.get_approval(approval_id))

    async def decide(self, approval_id: str, decision: Verdict, *, digest: str, reason: str = "") -> RunAccepted:
        """Approve or reject what `digest` stands for: the one of the approval that was looked at."""
        return await self._ask(calls.decide(approval_id, decision, digest, reason))

    # Effects

    async def effects(
        self, which: EffectFilter | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> EffectPage:
        """Effects of tools (those that fit `which`), the newest first."""
        return await self._ask(calls.list_effects(which or EffectFilter(), limit, cursor))

    async def get_effect(self, key: str) -> EffectView:
        """One effect, by its idempotency key."""
        return await self._ask(calls.get_effect(key))

    async def resolve_effect(self, key: str, outcome: Truth, *, output: JsonValue = None, reason: str) -> EffectView:
        """Say what became of an effect in doubt. Later attempts of the step, and forks from it, believe that."""
        return await self._ask(calls.resolve_effect(key, outcome, output, reason))

    # Dead letters

    async def dead_letters(
        self, which: DeadLetterFilter | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        """Messages that could not be handled (those that fit `which`), newest first."""
        return await self._ask(calls.list_dead_letters(which or DeadLetterFilter(), limit, cursor))

    async def dead_letter(self, letter_id: str) -> DeadLetterView:
        """One of them, whole."""
        return await self._ask(calls.get_dead_letter(letter_id))

    async def redrive(self, letter_id: str) -> DeadLettersSettled:
        """Publish it again where it was published first."""
        return await self._ask(calls.redrive(letter_id))

    async def redrive_all(self, which: DeadLetterFilter) -> DeadLettersSettled:
        """Publish all again that fit, oldest first; those that come to be meanwhile are left."""
        return await self._settle_all(which, None)

    async def drop(self, letter_id: str, reason: str) -> DeadLettersSettled:
        """Give it up for good; the audit log keeps who did, and why."""
        return await self._ask(calls.drop(letter_id, reason))

    async def drop_all(self, which: DeadLetterFilter, reason: str) -> DeadLettersSettled:
        """Give up all that fit."""
        return await self._settle_all(which, reason)

    # Triggers

    async def triggers(self, *, limit: int = 100, cursor: str | None = None) -> TriggerPage:
        """Triggers by name, with what they count and when they fire next."""
        return await self._ask(calls.list_triggers(limit, cursor))

    async def get_trigger(self, name: str) -> TriggerView:
        """A trigger with its next times and its last runs."""
        return await self._ask(calls.get_trigger(name))

    async def pause_trigger(self, name: str, reason: str | None = None) -> TriggerView:
        """Let a trigger start nothing until it is resumed."""
        return await self._ask(calls.pause_trigger(name, reason))

    async def resume_trigger(self, name: str) -> TriggerView:
        """Let a paused trigger go on; what it missed meanwhile is not made up for."""
        return await self._ask(calls.resume_trigger(name))

    async def fire_trigger(
        self, name: str, message: JsonValue = None, *, idempotency_key: str | None = None
    ) -> RunAccepted:
        """Start one run of a trigger now; `message` is what one on messages takes for one."""
        return await self._ask(calls.fire_trigger(name, message, idempotency_key))

    # How it is done

    async def _settle_all(self, which: DeadLetterFilter, reason: str | None) -> DeadLettersSettled:
        parts: deque[DeadLettersSettled] = deque()
        while not parts or parts[-1].more:
            parts.append(await self._ask(calls.settle_all(which, reason, parts[-1] if parts else None)))
        return calls.together(parts)

    async def _events_so_far(self, run_id: str, after: int) -> AsyncIterator[EventRecord]:
        cursor = wire.Cursor(after)
        while True:
            page = await self._ask(calls.events(run_id, cursor.after))
            for record in page.events:
                for fresh in cursor.take(record):
                    yield fresh
            if page.terminal or not page.events:
                return

    async def _follow(self, run_id: str, after: int) -> AsyncIterator[EventRecord]:
        cursor = wire.Cursor(after)
        if await self._ended_at(run_id, after):
            return
        while not cursor.done:
            broken: ParacleError | None = None
            try:
                async for record in self._stream(run_id, cursor):
                    yield record
            except ParacleError as error:
                broken = error
            if not cursor.done:
                await asyncio.sleep(cursor.pause_s(broken))

    async def _ended_at(self, run_id: str, after: int) -> bool:
        """Whether the run ended with event `after`, so that there is nothing to wait for; checks that it exists."""
        view = await self.get_run(run_id)
        return view.run.status.terminal and view.last_seq <= after

    async def _stream(self, run_id: str, cursor: wire.Cursor) -> AsyncIterator[EventRecord]:
        call = calls.events(run_id, cursor.after)
        lines = wire.EventLines()
        async for line in self._lines(call.path, call.query | {"follow": "true"}, cursor):
            if (record := lines.feed(line)) is not None:
                for fresh in cursor.take(record):
                    yield fresh

    async def _said(self, task_id: str, cursor: wire.Cursor) -> AsyncIterator[TaskOutput]:
        lines = wire.EventLines()
        async for line in self._lines(calls.task_output(task_id).path, {}, cursor):
            if (text := lines.text(line)) is not None:
                output = wire.output_of(text)
                cursor.hear(output)
                yield output

    async def _lines(self, path: str, query: dict[str, Any], cursor: wire.Cursor) -> AsyncIterator[str]:
        """Lines of an event stream, from what `cursor` has seen."""
        try:
            async with self._http.stream(
                "GET", path, params=query, headers=wire.stream_headers(cursor.after), timeout=wire.STREAM_TIMEOUT
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise wire.failure(response)
                wire.require_stream(response)
                cursor.heard()
                async for line in response.aiter_lines():
                    cursor.heard()
                    yield line
        except httpx2.RequestError as error:
            raise wire.unreachable(error, self.url) from error

    async def _ask[R: Message](self, call: Call[R]) -> R:
        attempt = 1
        while True:
            try:
                return await self._ask_once(call)
            except ParacleError as error:
                if not wire.worth_retrying(error, attempt):
                    raise
                await asyncio.sleep(wire.pause_s(attempt, error))
            attempt += 1

    async def _ask_once[R: Message](self, call: Call[R]) -> R:
        try:
            response = await self._http.request(
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
