"""The REST API as data: each function is one call, with its path and the message that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import JsonValue

from paracle_domain.audit import AuditPage, UsageReport
from paracle_domain.dead_letters import DeadLetterFilter, DeadLetterPage, DeadLettersSettled, DeadLetterView
from paracle_domain.ids import new_id
from paracle_domain.messages import Done, Message
from paracle_domain.registry import Applied, Explanation, RevisionList, SpecList, SpecView
from paracle_domain.run.commands import (
    ApprovalPage,
    ApprovalStatus,
    ApprovalView,
    RunAccepted,
    RunEvents,
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

type Plural = Literal["agents", "tools", "workflows", "triggers"]

PLURALS: Final[tuple[Plural, ...]] = ("agents", "tools", "workflows", "triggers")


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


def apply(text: str, source: str, *, dry_run: bool) -> Call[Applied]:
    params = {"source": source, "dry_run": "true" if dry_run else None}
    return Call("POST", "/v1/manifests", Applied, params, {"content-type": "application/yaml"}, text=text)


def delete(plural: Plural, name: str, *, dry_run: bool) -> Call[Applied]:
    return Call("DELETE", f"{_manifests(plural)}/{_part(name)}", Applied, {"dry_run": "true" if dry_run else None})


def delete_manifests(text: str, source: str, *, dry_run: bool) -> Call[Applied]:
    params = {"source": source, "dry_run": "true" if dry_run else None}
    return Call("POST", "/v1/manifests/delete", Applied, params, {"content-type": "application/yaml"}, text=text)


def _manifests(plural: Plural) -> str:
    """Where manifests of a kind are; at `/v1/triggers` stands what triggers do."""
    return f"/v1/manifests/{plural}" if plural == "triggers" else f"/v1/{plural}"


def list_specs(plural: Plural, limit: int, cursor: str | None) -> Call[SpecList]:
    return Call("GET", _manifests(plural), SpecList, {"limit": limit, "cursor": cursor})


def get_spec(plural: Plural, name: str, revision: int | None) -> Call[SpecView]:
    return Call("GET", f"{_manifests(plural)}/{_part(name)}", SpecView, {"revision": revision})


def revisions(plural: Plural, name: str) -> Call[RevisionList]:
    return Call("GET", f"{_manifests(plural)}/{_part(name)}/revisions", RevisionList)


def explain(agent: str) -> Call[Explanation]:
    return Call("GET", f"/v1/agents/{_part(agent)}/explain", Explanation)


def start_run(
    workflow: str,
    value: JsonValue,
    labels: Mapping[str, str],
    revision: int | None,
    priority: int | None,
    key: str | None,
) -> Call[RunAccepted]:
    body = {"input": value, "labels": dict(labels), "revision": revision, "priority": priority}
    return _start(f"/v1/workflows/{_part(workflow)}/runs", body, key)


def invoke(agent: str, value: JsonValue, labels: Mapping[str, str], key: str | None) -> Call[RunAccepted]:
    return _start(f"/v1/agents/{_part(agent)}/runs", {"input": value, "labels": dict(labels)}, key)


def _start(path: str, body: Mapping[str, Any], key: str | None) -> Call[RunAccepted]:
    given = {name: value for name, value in body.items() if value is not None}
    # a key that has the form of a run's id becomes the run's id, so that ids sort by the time of the start
    return Call("POST", path, RunAccepted, headers={"idempotency-key": key or new_id("run")}, json=given)


def get_run(run_id: str, parts: int | None) -> Call[RunView]:
    return Call("GET", f"/v1/runs/{_part(run_id)}", RunView, {"parts": parts})


def statuses(given: RunStatus | Sequence[RunStatus] | None) -> tuple[RunStatus, ...]:
    """One status, several, or none."""
    if given is None:
        return ()
    return (given,) if isinstance(given, RunStatus) else tuple(given)


def list_runs(wanted: RunFilter, limit: int, cursor: str | None) -> Call[RunPage]:
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


def cancel_runs(wanted: RunFilter, reason: str, *, dry_run: bool) -> Call[RunsAccepted]:
    return _order_many("cancel", wanted, reason, dry_run=dry_run)


def resume_runs(wanted: RunFilter, reason: str, *, dry_run: bool) -> Call[RunsAccepted]:
    return _order_many("resume", wanted, reason, dry_run=dry_run)


def diff_runs(left: str, right: str) -> Call[RunsDiff]:
    return Call("GET", f"/v1/runs/{_part(left)}/diff", RunsDiff, {"with": right})


def _order_many(verb: str, wanted: RunFilter, reason: str, *, dry_run: bool) -> Call[RunsAccepted]:
    body = {"filter": wanted.model_dump(mode="json", exclude_none=True), "reason": reason, "dry_run": dry_run}
    return Call("POST", f"/v1/runs/{verb}", RunsAccepted, json=body, patience_s=_MANY_S)


def events(run_id: str, after: int) -> Call[RunEvents]:
    return Call("GET", f"/v1/runs/{_part(run_id)}/events", RunEvents, {"after": after})


def list_sessions(limit: int, cursor: str | None) -> Call[SessionPage]:
    return Call("GET", "/v1/sessions", SessionPage, {"limit": limit, "cursor": cursor})


def get_session(session_id: str, after: int) -> Call[SessionView]:
    return Call("GET", f"/v1/sessions/{_part(session_id)}", SessionView, {"after": after})


def delete_session(session_id: str) -> Call[Done]:
    return Call("DELETE", f"/v1/sessions/{_part(session_id)}", Done)


def task_output(task_id: str) -> Call[TaskOutput]:
    return Call("GET", f"/v1/tasks/{_part(task_id)}/output", TaskOutput)


def cancel(run_id: str, reason: str) -> Call[RunAccepted]:
    return Call("POST", f"/v1/runs/{_part(run_id)}/cancel", RunAccepted, json={"reason": reason})


def pause(run_id: str, reason: str) -> Call[RunAccepted]:
    return Call("POST", f"/v1/runs/{_part(run_id)}/pause", RunAccepted, json={"reason": reason})


def resume(run_id: str, reason: str) -> Call[RunAccepted]:
    return Call("POST", f"/v1/runs/{_part(run_id)}/resume", RunAccepted, json={"reason": reason})


def signal(run_id: str, name: str, payload: JsonValue, key: str | None) -> Call[RunAccepted]:
    path = f"/v1/runs/{_part(run_id)}/signals/{_part(name)}"
    return Call("POST", path, RunAccepted, headers={"idempotency-key": key or new_id("msg")}, json={"payload": payload})


def fork(
    run_id: str,
    from_step: str,
    revision: int | None,
    value: JsonValue,
    labels: Mapping[str, str] | None,
    key: str | None,
) -> Call[RunAccepted]:
    body = {"from_step": from_step, "revision": revision, "input": value, "labels": labels and dict(labels)}
    return _start(f"/v1/runs/{_part(run_id)}/fork", body, key)


def list_approvals(
    status: ApprovalStatus | None,
    run_id: str | None,
    workflow: str | None,
    approver: str | None,
    limit: int,
    cursor: str | None,
    *,
    mine: bool,
) -> Call[ApprovalPage]:
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
    return Call("GET", f"/v1/approvals/{_part(approval_id)}", ApprovalView)


def decide(approval_id: str, decision: Verdict, digest: str, reason: str) -> Call[RunAccepted]:
    body = {"decision": decision, "digest": digest, "reason": reason}
    return Call("POST", f"/v1/approvals/{_part(approval_id)}/decision", RunAccepted, json=body)


def list_triggers(limit: int, cursor: str | None) -> Call[TriggerPage]:
    return Call("GET", "/v1/triggers", TriggerPage, {"limit": limit, "cursor": cursor})


def get_trigger(name: str) -> Call[TriggerView]:
    return Call("GET", f"/v1/triggers/{_part(name)}", TriggerView)


def pause_trigger(name: str, reason: str | None) -> Call[TriggerView]:
    return Call("POST", f"/v1/triggers/{_part(name)}/pause", TriggerView, json={"reason": reason})


def resume_trigger(name: str) -> Call[TriggerView]:
    return Call("POST", f"/v1/triggers/{_part(name)}/resume", TriggerView)


def fire_trigger(name: str, message: JsonValue, key: str | None) -> Call[RunAccepted]:
    path, headers = f"/v1/triggers/{_part(name)}/fire", {"idempotency-key": key or new_id("msg")}
    return Call("POST", path, RunAccepted, headers=headers, json={"message": message})


def usage(run_id: str) -> Call[UsageReport]:
    return Call("GET", f"/v1/runs/{_part(run_id)}/usage", UsageReport)


def audit(run_id: str, after: int) -> Call[AuditPage]:
    return Call("GET", f"/v1/runs/{_part(run_id)}/audit", AuditPage, {"after": after})


def list_effects(which: EffectFilter, limit: int, cursor: str | None) -> Call[EffectPage]:
    return Call("GET", "/v1/effects", EffectPage, {**_chosen(which), "limit": limit, "cursor": cursor})


def get_effect(key: str) -> Call[EffectView]:
    return Call("GET", f"/v1/effects/{_part(key)}", EffectView)


def resolve_effect(key: str, outcome: Truth, output: JsonValue, reason: str) -> Call[EffectView]:
    body = {"outcome": outcome, "output": output, "reason": reason}
    return Call("POST", f"/v1/effects/{_part(key)}/resolution", EffectView, json=body)


def list_dead_letters(which: DeadLetterFilter, limit: int, cursor: str | None) -> Call[DeadLetterPage]:
    return Call("GET", "/v1/dead-letters", DeadLetterPage, {**_chosen(which), "limit": limit, "cursor": cursor})


def get_dead_letter(id: str) -> Call[DeadLetterView]:
    return Call("GET", f"/v1/dead-letters/{_part(id)}", DeadLetterView)


def redrive(id: str) -> Call[DeadLettersSettled]:
    return Call("POST", f"/v1/dead-letters/{_part(id)}/redrive", DeadLettersSettled)


def drop(id: str, reason: str) -> Call[DeadLettersSettled]:
    return Call("POST", f"/v1/dead-letters/{_part(id)}/drop", DeadLettersSettled, json={"reason": reason})


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


def _chosen(which: DeadLetterFilter | EffectFilter) -> dict[str, Any]:
    return which.model_dump(mode="json", exclude_none=True)


def _part(name: str) -> str:
    """`name` as one part of a path, whatever it holds."""
    return quote(name, safe="")
