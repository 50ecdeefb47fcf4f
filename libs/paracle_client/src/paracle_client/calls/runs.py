"""Runs and conversations: starting, following and stopping them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import JsonValue

from paracle_client.calls.call import Call, keyed, part_of
from paracle_domain.audit import AuditPage, UsageReport
from paracle_domain.messages import Done
from paracle_domain.run.commands import (
    Outputs,
    RunAccepted,
    RunEvents,
    RunFilter,
    RunPage,
    RunsAccepted,
    RunStatus,
    RunView,
    ShownStep,
)
from paracle_domain.run.diff import RunsDiff
from paracle_domain.task.output import TaskOutput
from paracle_domain.task.sessions import SessionPage, SessionView

# The API waits for a minute until all runs have been told.
_MANY_S: Final = 65.0


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
    return _start(f"/v1/workflows/{part_of(workflow)}/runs", body, idempotency_key)


def invoke(
    agent: str, value: JsonValue, *, labels: Mapping[str, str] | None = None, idempotency_key: str | None = None
) -> Call[RunAccepted]:
    """Start a run of one agent."""
    return _start(f"/v1/agents/{part_of(agent)}/runs", {"input": value, "labels": dict(labels or {})}, idempotency_key)


def _start(path: str, body: Mapping[str, Any], key: str | None) -> Call[RunAccepted]:
    given = {name: value for name, value in body.items() if value is not None}
    # a key that has the form of a run's id becomes the run's id, so that ids sort by the time of the start
    return Call("POST", path, RunAccepted, headers=keyed(key, "run"), json=given)


def get_run(run_id: str, *, parts: int | None = None, outputs: Outputs | None = None) -> Call[RunView]:
    """A run with its steps, as it stands, and the first `parts` items or iterations of each (100, if not given).

    All `outputs` together may be too large for an answer (`PayloadTooLarge`): `read_run` has them as far as they fit.
    """
    return Call("GET", f"/v1/runs/{part_of(run_id)}", RunView, {"parts": parts, "outputs": outputs})


def get_step(run_id: str, step: str, *, parts: int | None = None) -> Call[ShownStep]:
    """One step of a run with its output, or what is within it: `pay`, `each[3]`, `pay.compensate`."""
    return Call("GET", f"/v1/runs/{part_of(run_id)}/steps/{part_of(step)}", ShownStep, {"parts": parts})


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
        "label": [f"{_escaped(key)}:{value}" for key, value in wanted.labels.items()] or None,
        "created_after": wanted.created_after and wanted.created_after.isoformat(),
        "created_before": wanted.created_before and wanted.created_before.isoformat(),
        "parent": wanted.parent,
        "stuck": "true" if wanted.stuck else None,
        "limit": limit,
        "cursor": cursor,
    }
    return Call("GET", "/v1/runs", RunPage, params)


def _escaped(key: str) -> str:
    """A label's key before its colon."""
    return re.sub(r"([:\\])", r"\\\1", key)


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
    return Call("GET", f"/v1/runs/{part_of(left)}/diff", RunsDiff, {"with": right})


def _order_many(verb: str, wanted: RunFilter, reason: str, *, dry_run: bool) -> Call[RunsAccepted]:
    body = {"filter": wanted.model_dump(mode="json", exclude_none=True), "reason": reason, "dry_run": dry_run}
    return Call("POST", f"/v1/runs/{verb}", RunsAccepted, json=body, patience_s=_MANY_S)


def events(run_id: str, after: int) -> Call[RunEvents]:
    """A page of a run's events after number `after`."""
    return Call("GET", f"/v1/runs/{part_of(run_id)}/events", RunEvents, {"after": after})


def task_output(task_id: str) -> Call[TaskOutput]:
    """What a task says, piece by piece."""
    return Call("GET", f"/v1/tasks/{part_of(task_id)}/output", TaskOutput)


def cancel(run_id: str, reason: str = "cancelled by request") -> Call[RunAccepted]:
    """Stop a run: from the answer on, nothing new of it begins."""
    return Call("POST", f"/v1/runs/{part_of(run_id)}/cancel", RunAccepted, json={"reason": reason})


def pause(run_id: str, reason: str = "") -> Call[RunAccepted]:
    """Start nothing new of a run until it is resumed; what runs goes on."""
    return Call("POST", f"/v1/runs/{part_of(run_id)}/pause", RunAccepted, json={"reason": reason})


def resume(run_id: str, reason: str = "") -> Call[RunAccepted]:
    """Go on with a paused run."""
    return Call("POST", f"/v1/runs/{part_of(run_id)}/resume", RunAccepted, json={"reason": reason})


def signal(
    run_id: str, name: str, payload: JsonValue = None, *, idempotency_key: str | None = None
) -> Call[RunAccepted]:
    """Tell a run what a `wait` step of it waits for, or will; the same key is one signal."""
    path = f"/v1/runs/{part_of(run_id)}/signals/{part_of(name)}"
    return Call("POST", path, RunAccepted, headers=keyed(idempotency_key), json={"payload": payload})


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
    return _start(f"/v1/runs/{part_of(run_id)}/fork", body, idempotency_key)


def usage(run_id: str) -> Call[UsageReport]:
    """Tokens and cost of a run so far, by model, agent and step."""
    return Call("GET", f"/v1/runs/{part_of(run_id)}/usage", UsageReport)


def audit(run_id: str, *, after: int = 0) -> Call[AuditPage]:
    """All that was stored of a run, model calls and tool calls included."""
    return Call("GET", f"/v1/runs/{part_of(run_id)}/audit", AuditPage, {"after": after})


# Sessions


def sessions(*, limit: int = 50, cursor: str | None = None) -> Call[SessionPage]:
    """Conversations with agents, newest first. The field `session` of an agent's input begins one or goes on."""
    return Call("GET", "/v1/sessions", SessionPage, {"limit": limit, "cursor": cursor})


def get_session(session_id: str, *, after: int = 0) -> Call[SessionView]:
    """A conversation with its turns after number `after`, and what each added."""
    return Call("GET", f"/v1/sessions/{part_of(session_id)}", SessionView, {"after": after})


def delete_session(session_id: str) -> Call[Done]:
    """Forget a conversation; a conflict while one of its turns is open."""
    return Call("DELETE", f"/v1/sessions/{part_of(session_id)}", Done)
