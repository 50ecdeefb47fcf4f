"""The REST API as data: each function is one call, with its path and the message that answers it.

Both clients have them as their methods (`aio`, `client`): what a call takes and does is said here alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import update_wrapper
from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import JsonValue

from paracle_domain.audit import AuditPage, UsageReport
from paracle_domain.budget.messages import BudgetList, BudgetView
from paracle_domain.budget.spec import Budget, BudgetScope
from paracle_domain.dead_letters import DeadLetterFilter, DeadLetterPage, DeadLettersSettled, DeadLetterView
from paracle_domain.ids import new_id
from paracle_domain.inference.deployments import DeploymentList
from paracle_domain.inference.ledger import UsageBy, UsageFilter, UsageRecords, UsageTable
from paracle_domain.messages import Done, Message
from paracle_domain.registry import Applied, Explanation, RevisionList, SpecList, SpecView
from paracle_domain.run.commands import (
    ApprovalPage,
    ApprovalStatus,
    ApprovalView,
    Outputs,
    RunAccepted,
    RunEvents,
    RunFilter,
    RunPage,
    RunsAccepted,
    RunStatus,
    RunView,
    ShownStep,
    Verdict,
)
from paracle_domain.run.diff import RunsDiff
from paracle_domain.task.effects import EffectFilter, EffectPage, EffectView, Truth
from paracle_domain.task.output import TaskOutput
from paracle_domain.task.pools import PoolList, PoolView
from paracle_domain.task.sessions import SessionPage, SessionView
from paracle_domain.trigger.commands import TriggerPage, TriggerView

type Plural = Literal["agents", "tools", "workflows", "triggers", "providers", "models"]

PLURALS: Final[tuple[Plural, ...]] = ("agents", "tools", "workflows", "triggers", "providers", "models")
_LIVE: Final = frozenset[Plural]({"triggers", "providers", "models"})


# The API waits for a minute until all runs have been told.
_MANY_S: Final = 65.0


@dataclass(frozen=True, slots=True)
class Call[R: Message]:
    """One request. All of them may be sent again: starts, forks and signals carry an idempotency key."""

    method: str
    path: str
    answer: type[R]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    text: str | None = None
    patience_s: float | None = None

    @property
    def query(self) -> dict[str, Any]:
        """The parameters that were given."""
        return {name: value for name, value in self.params.items() if value is not None}


def as_method[M: Callable[..., Any]](method: M, call: Callable[..., Call[Any]]) -> M:
    """`method` of a client, named, signed and documented as the `call` that it makes."""
    signature = inspect.signature(call)
    oneself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    made = signature.replace(
        parameters=[oneself, *signature.parameters.values()],
        return_annotation=signature.return_annotation.removeprefix("Call[").removesuffix("]"),
    )
    update_wrapper(method, call)
    method.__signature__ = made  # type: ignore[attr-defined]  # what `inspect` and `help` look at
    return method


# Manifests


def apply(text: str, source: str = "manifest", *, dry_run: bool = False) -> Call[Applied]:
    """Put all manifests of `text` (YAML) in, or none; `source` is what errors call it."""
    params = {"source": source, "dry_run": "true" if dry_run else None}
    return Call("POST", "/v1/manifests", Applied, params, {"content-type": "application/yaml"}, text=text)


def delete(plural: Plural, name: str, *, dry_run: bool = False) -> Call[Applied]:
    """Take one manifest out, unless others use it; its revisions are kept."""
    return Call("DELETE", f"{_manifests(plural)}/{_part(name)}", Applied, {"dry_run": "true" if dry_run else None})


def delete_manifests(text: str, source: str = "manifest", *, dry_run: bool = False) -> Call[Applied]:
    """Take out all that `text` (YAML) names by kind and name, or nothing of it."""
    params = {"source": source, "dry_run": "true" if dry_run else None}
    return Call("POST", "/v1/manifests/delete", Applied, params, {"content-type": "application/yaml"}, text=text)


def _manifests(plural: Plural) -> str:
    """Where manifests of a kind are; at `/v1/triggers` stands what triggers do, and so for others that are live."""
    return f"/v1/manifests/{plural}" if plural in _LIVE else f"/v1/{plural}"


def list_specs(plural: Plural, *, limit: int = 500, cursor: str | None = None) -> Call[SpecList]:
    """Newest revisions of all manifests of a kind (`agents`, `tools`, …), by name."""
    return Call("GET", _manifests(plural), SpecList, {"limit": limit, "cursor": cursor})


def get_spec(plural: Plural, name: str, *, revision: int | None = None) -> Call[SpecView]:
    """One manifest as it was written: its newest revision, or the one given."""
    return Call("GET", f"{_manifests(plural)}/{_part(name)}", SpecView, {"revision": revision})


def revisions(plural: Plural, name: str) -> Call[RevisionList]:
    """How a manifest came to be what it is, newest first."""
    return Call("GET", f"{_manifests(plural)}/{_part(name)}/revisions", RevisionList)


def explain(agent: str) -> Call[Explanation]:
    """An agent with its inheritance resolved, and which ancestor set each field."""
    return Call("GET", f"/v1/agents/{_part(agent)}/explain", Explanation)


# Runs


def start_run(
    workflow: str,
    value: JsonValue = None,
    *,
    labels: Mapping[str, str] | None = None,
    revision: int | None = None,
    priority: int | None = None,
    idempotency_key: str | None = None,
) -> Call[RunAccepted]:
    """Start a run of `workflow` on the input `value`; the same key names the same run for ever.

    Where a limit makes runs wait, the highest `priority` (-100 to 100, else 0) goes first.
    """
    given = {} if value is None else value
    body = {"input": given, "labels": dict(labels or {}), "revision": revision, "priority": priority}
    return _start(f"/v1/workflows/{_part(workflow)}/runs", body, idempotency_key)


def invoke(
    agent: str, value: JsonValue, *, labels: Mapping[str, str] | None = None, idempotency_key: str | None = None
) -> Call[RunAccepted]:
    """Start a run of one agent."""
    return _start(f"/v1/agents/{_part(agent)}/runs", {"input": value, "labels": dict(labels or {})}, idempotency_key)


def _start(path: str, body: Mapping[str, Any], key: str | None) -> Call[RunAccepted]:
    given = {name: value for name, value in body.items() if value is not None}
    # a key that has the form of a run's id becomes the run's id, so that ids sort by the time of the start
    return Call("POST", path, RunAccepted, headers={"idempotency-key": key or new_id("run")}, json=given)


def get_run(run_id: str, *, parts: int | None = None, outputs: Outputs | None = None) -> Call[RunView]:
    """A run with its steps, as it stands, and the first `parts` items or iterations of each (100, if not given).

    All `outputs` together may be too large for an answer (`PayloadTooLarge`): `read_run` has them as far as they fit.
    """
    return Call("GET", f"/v1/runs/{_part(run_id)}", RunView, {"parts": parts, "outputs": outputs})


def get_step(run_id: str, step: str, *, parts: int | None = None) -> Call[ShownStep]:
    """One step of a run with its output, or what is within it: `pay`, `each[3]`, `pay.compensate`."""
    return Call("GET", f"/v1/runs/{_part(run_id)}/steps/{_part(step)}", ShownStep, {"parts": parts})


def runs(
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
) -> Call[RunPage]:
    """Runs that meet all that is given, newest first: in one of the statuses, with all of the labels.

    `stuck`: only those that wait for a message which could not be handled (see `dead_letters`).

    A page may be short and still have a `next_cursor`, since a long search rests after a while.
    """
    wanted = RunFilter(
        workflow=workflow,
        statuses=() if status is None else (status,) if isinstance(status, RunStatus) else tuple(status),
        labels=dict(labels or {}),
        created_after=created_after,
        created_before=created_before,
        parent=parent,
        stuck=stuck,
    )
    params = {
        "workflow": wanted.workflow,
        "status": [status.value for status in wanted.statuses] or None,
        "label": [f"{key}:{value}" for key, value in wanted.labels.items()] or None,
        "created_after": wanted.created_after and wanted.created_after.isoformat(),
        "created_before": wanted.created_before and wanted.created_before.isoformat(),
        "parent": wanted.parent,
        "stuck": "true" if wanted.stuck else None,
        "limit": limit,
        "cursor": cursor,
    }
    return Call("GET", "/v1/runs", RunPage, params)


def cancel_runs(
    wanted: RunFilter, reason: str = "cancelled by request", *, dry_run: bool = False
) -> Call[RunsAccepted]:
    """Stop all runs that `wanted` finds, which must name something; how many those are."""
    return _order_many("cancel", wanted, reason, dry_run=dry_run)


def resume_runs(wanted: RunFilter, reason: str = "", *, dry_run: bool = False) -> Call[RunsAccepted]:
    """Go on with all paused runs that `wanted` finds, which must name something; how many those are."""
    return _order_many("resume", wanted, reason, dry_run=dry_run)


def diff_runs(left: str, right: str) -> Call[RunsDiff]:
    """What differs between what two runs pinned: workflow, agents, tools, children and contract, by path."""
    return Call("GET", f"/v1/runs/{_part(left)}/diff", RunsDiff, {"with": right})


def _order_many(verb: str, wanted: RunFilter, reason: str, *, dry_run: bool) -> Call[RunsAccepted]:
    body = {"filter": wanted.model_dump(mode="json", exclude_none=True), "reason": reason, "dry_run": dry_run}
    return Call("POST", f"/v1/runs/{verb}", RunsAccepted, json=body, patience_s=_MANY_S)


def events(run_id: str, after: int) -> Call[RunEvents]:
    """A page of a run's events after number `after`."""
    return Call("GET", f"/v1/runs/{_part(run_id)}/events", RunEvents, {"after": after})


def task_output(task_id: str) -> Call[TaskOutput]:
    """What a task says, piece by piece."""
    return Call("GET", f"/v1/tasks/{_part(task_id)}/output", TaskOutput)


def cancel(run_id: str, reason: str = "cancelled by request") -> Call[RunAccepted]:
    """Stop a run: from the answer on, nothing new of it begins."""
    return Call("POST", f"/v1/runs/{_part(run_id)}/cancel", RunAccepted, json={"reason": reason})


def pause(run_id: str, reason: str = "") -> Call[RunAccepted]:
    """Start nothing new of a run until it is resumed; what runs goes on."""
    return Call("POST", f"/v1/runs/{_part(run_id)}/pause", RunAccepted, json={"reason": reason})


def resume(run_id: str, reason: str = "") -> Call[RunAccepted]:
    """Go on with a paused run."""
    return Call("POST", f"/v1/runs/{_part(run_id)}/resume", RunAccepted, json={"reason": reason})


def signal(
    run_id: str, name: str, payload: JsonValue = None, *, idempotency_key: str | None = None
) -> Call[RunAccepted]:
    """Tell a run what a `wait` step of it waits for, or will; the same key is one signal."""
    path = f"/v1/runs/{_part(run_id)}/signals/{_part(name)}"
    return Call("POST", path, RunAccepted, headers=_keyed(idempotency_key), json={"payload": payload})


def fork(
    run_id: str,
    from_step: str,
    *,
    revision: int | None = None,
    value: JsonValue = None,
    labels: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Call[RunAccepted]:
    """Start a new run that keeps a run's results, but for `from_step` and all that depends on it.

    What is not given (the workflow's `revision`, the input `value`, `labels`) is the old run's.
    """
    body = {"from_step": from_step, "revision": revision, "input": value, "labels": labels and dict(labels)}
    return _start(f"/v1/runs/{_part(run_id)}/fork", body, idempotency_key)


def usage(run_id: str) -> Call[UsageReport]:
    """Tokens and cost of a run so far, by model, agent and step."""
    return Call("GET", f"/v1/runs/{_part(run_id)}/usage", UsageReport)


def audit(run_id: str, *, after: int = 0) -> Call[AuditPage]:
    """All that was stored of a run, model calls and tool calls included."""
    return Call("GET", f"/v1/runs/{_part(run_id)}/audit", AuditPage, {"after": after})


# Sessions


def sessions(*, limit: int = 50, cursor: str | None = None) -> Call[SessionPage]:
    """Conversations with agents, newest first. The field `session` of an agent's input begins one or goes on."""
    return Call("GET", "/v1/sessions", SessionPage, {"limit": limit, "cursor": cursor})


def get_session(session_id: str, *, after: int = 0) -> Call[SessionView]:
    """A conversation with its turns after number `after`, and what each added."""
    return Call("GET", f"/v1/sessions/{_part(session_id)}", SessionView, {"after": after})


def delete_session(session_id: str) -> Call[Done]:
    """Forget a conversation; a conflict while one of its turns is open."""
    return Call("DELETE", f"/v1/sessions/{_part(session_id)}", Done)


# Approvals


def approvals(
    *,
    status: ApprovalStatus | None = None,
    run_id: str | None = None,
    workflow: str | None = None,
    approver: str | None = None,
    mine: bool = False,
    limit: int = 50,
    cursor: str | None = None,
) -> Call[ApprovalPage]:
    """Approvals, open ones first, then the newest; `mine`: only those that whoever asks may approve now."""
    params = {
        "status": status and status.value,
        "run_id": run_id,
        "workflow": workflow,
        "approver": approver,
        "mine": "true" if mine else None,
        "limit": limit,
        "cursor": cursor,
    }
    return Call("GET", "/v1/approvals", ApprovalPage, params)


def get_approval(approval_id: str) -> Call[ApprovalView]:
    """What exactly is asked, of whom, and what was decided."""
    return Call("GET", f"/v1/approvals/{_part(approval_id)}", ApprovalView)


def decide(approval_id: str, decision: Verdict, *, digest: str, reason: str = "") -> Call[RunAccepted]:
    """Approve or reject what `digest` stands for: the one of the approval that was looked at."""
    body = {"decision": decision, "digest": digest, "reason": reason}
    return Call("POST", f"/v1/approvals/{_part(approval_id)}/decision", RunAccepted, json=body)


# Effects


def effects(which: EffectFilter | None = None, *, limit: int = 50, cursor: str | None = None) -> Call[EffectPage]:
    """Effects of tools (those that fit `which`), the newest first."""
    return Call("GET", "/v1/effects", EffectPage, {**_chosen(which), "limit": limit, "cursor": cursor})


def get_effect(key: str) -> Call[EffectView]:
    """One effect, by its idempotency key."""
    return Call("GET", f"/v1/effects/{_part(key)}", EffectView)


def resolve_effect(key: str, outcome: Truth, *, output: JsonValue = None, reason: str) -> Call[EffectView]:
    """Say what became of an effect in doubt. Later attempts of the step, and forks from it, believe that."""
    body = {"outcome": outcome, "output": output, "reason": reason}
    return Call("POST", f"/v1/effects/{_part(key)}/resolution", EffectView, json=body)


# Worker pools


def pools() -> Call[PoolList]:
    """Worker pools: what waits for each, who serves it, and whether anything new is taken."""
    return Call("GET", "/v1/pools", PoolList)


def get_pool(pool: str) -> Call[PoolView]:
    """One of them."""
    return Call("GET", f"/v1/pools/{_part(pool)}", PoolView)


def drain_pool(pool: str, *, reason: str = "") -> Call[PoolView]:
    """Take no new tasks of a pool, in no process, until it is resumed; what is in hand is finished."""
    return Call("POST", f"/v1/pools/{_part(pool)}/drain", PoolView, json={"reason": reason})


def resume_pool(pool: str) -> Call[PoolView]:
    """Take tasks of a pool again that was drained."""
    return Call("POST", f"/v1/pools/{_part(pool)}/resume", PoolView)


# Dead letters


def dead_letters(
    which: DeadLetterFilter | None = None, *, limit: int = 50, cursor: str | None = None
) -> Call[DeadLetterPage]:
    """Messages that could not be handled (those that fit `which`), newest first."""
    return Call("GET", "/v1/dead-letters", DeadLetterPage, {**_chosen(which), "limit": limit, "cursor": cursor})


def dead_letter(letter_id: str) -> Call[DeadLetterView]:
    """One of them, whole."""
    return Call("GET", f"/v1/dead-letters/{_part(letter_id)}", DeadLetterView)


def redrive(letter_id: str) -> Call[DeadLettersSettled]:
    """Publish it again where it was published first."""
    return Call("POST", f"/v1/dead-letters/{_part(letter_id)}/redrive", DeadLettersSettled)


def drop(letter_id: str, reason: str) -> Call[DeadLettersSettled]:
    """Give it up for good; the audit log keeps who did, and why."""
    return Call("POST", f"/v1/dead-letters/{_part(letter_id)}/drop", DeadLettersSettled, json={"reason": reason})


def settle_all(
    which: DeadLetterFilter, reason: str | None, before: DeadLettersSettled | None
) -> Call[DeadLettersSettled]:
    """Redrive, or with a `reason` drop, what fits; `before` is the answer to the last such call, to go on from."""
    body = {**_chosen(which), "all": which == DeadLetterFilter()}
    if before is not None and before.until is not None:
        body |= {"until": before.until.isoformat(), "after": before.after}
    if reason is not None:
        body["reason"] = reason
    verb = "redrive" if reason is None else "drop"
    return Call("POST", f"/v1/dead-letters/{verb}", DeadLettersSettled, json=body)


def together(parts: Sequence[DeadLettersSettled]) -> DeadLettersSettled:
    """The answers to several calls as one."""
    return DeadLettersSettled(
        settled=tuple(letter for part in parts for letter in part.settled),
        refused=tuple(refusal for part in parts for refusal in part.refused),
    )


# Triggers


def triggers(*, limit: int = 100, cursor: str | None = None) -> Call[TriggerPage]:
    """Triggers by name, with what they count and when they fire next."""
    return Call("GET", "/v1/triggers", TriggerPage, {"limit": limit, "cursor": cursor})


def get_trigger(name: str) -> Call[TriggerView]:
    """A trigger with its next times and its last runs."""
    return Call("GET", f"/v1/triggers/{_part(name)}", TriggerView)


def pause_trigger(name: str, reason: str | None = None) -> Call[TriggerView]:
    """Let a trigger start nothing until it is resumed."""
    return Call("POST", f"/v1/triggers/{_part(name)}/pause", TriggerView, json={"reason": reason})


def resume_trigger(name: str) -> Call[TriggerView]:
    """Let a paused trigger go on; what it missed meanwhile is not made up for."""
    return Call("POST", f"/v1/triggers/{_part(name)}/resume", TriggerView)


def fire_trigger(name: str, message: JsonValue = None, *, idempotency_key: str | None = None) -> Call[RunAccepted]:
    """Start one run of a trigger now; `message` is what one on messages takes for one."""
    path = f"/v1/triggers/{_part(name)}/fire"
    return Call("POST", path, RunAccepted, headers=_keyed(idempotency_key), json={"message": message})


# Money


def query_usage(by: Sequence[UsageBy] = (), which: UsageFilter | None = None, *, limit: int = 500) -> Call[UsageTable]:
    """What model calls (those that fit `which`) used, added up `by` any of its kinds; with the total."""
    return Call("GET", "/v1/usage", UsageTable, {"by": list(by), **_chosen(which), "limit": limit})


def attempts(which: UsageFilter | None = None, *, limit: int = 100, cursor: str | None = None) -> Call[UsageRecords]:
    """Attempts of model calls one by one, newest first."""
    return Call("GET", "/v1/attempts", UsageRecords, {**_chosen(which), "limit": limit, "cursor": cursor})


def deployments(name: str | None = None) -> Call[DeploymentList]:
    """Deployments: their limits with what is in use of them, and the breakers of the replica that answers."""
    return Call("GET", "/v1/deployments", DeploymentList, {"name": name})


def budgets(
    *, name: str | None = None, scope: BudgetScope | None = None, subject: str | None = None, subjects: int = 20
) -> Call[BudgetList]:
    """Budgets, and what is spent, reserved and left of each."""
    found = {"name": name, "scope": scope, "subject": subject, "subjects": subjects}
    return Call("GET", "/v1/budgets", BudgetList, found)


def set_budget(budget: Budget, *, reason: str | None = None) -> Call[BudgetView]:
    """Set a budget, or change the one of that name."""
    body = {**budget.model_dump(mode="json", exclude={"name"}, exclude_none=True), "reason": reason}
    return Call("PUT", f"/v1/budgets/{_part(budget.name)}", BudgetView, json=body)


def delete_budget(name: str, *, reason: str | None = None) -> Call[BudgetView]:
    """Let a budget hold nothing back any more; answered with how it stood."""
    return Call("DELETE", f"/v1/budgets/{_part(name)}", BudgetView, {"reason": reason})


def raise_budget(
    name: str,
    subject: str,
    *,
    usd: Decimal | None = None,
    tokens: int | None = None,
    reason: str | None = None,
    idempotency_key: str | None = None,
) -> Call[BudgetView]:
    """Add to the limit of one subject of a budget, until its window ends."""
    body = {"subject": subject, "usd": None if usd is None else str(usd), "tokens": tokens, "reason": reason}
    path = f"/v1/budgets/{_part(name)}/raise"
    return Call("POST", path, BudgetView, headers=_keyed(idempotency_key), json=body)


# How it is said


def _chosen(which: DeadLetterFilter | EffectFilter | UsageFilter | None) -> dict[str, Any]:
    return {} if which is None else which.model_dump(mode="json", exclude_none=True)


def _keyed(key: str | None) -> dict[str, str]:
    """The key of the caller, or one of its own, so that sending it again does nothing twice."""
    return {"idempotency-key": key or new_id("msg")}


def _part(name: str) -> str:
    """`name` as one part of a path, whatever it holds."""
    return quote(name, safe="")
