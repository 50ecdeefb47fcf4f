"""What runs tell one another, on subject `result.{run_id}`: only the orchestrator may publish there.

    parent ── ChildStart, ChildCancel ──► child        parent ◄── ChildEnded ── child

All of them come again until they are answered, so losing one only delays.
"""

from __future__ import annotations

from datetime import datetime

from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import RunId
from paracle_domain.inference.usage import NOTHING, Used
from paracle_domain.messages import Json, Message
from paracle_domain.run.commands import Parent, RunStatus


class ChildStart(Message, type_name="run.child_start"):
    """Begin a child run, if it has not begun; one that has ended answers with `ChildEnded` (again)."""

    run_id: RunId
    parent: Parent
    workflow: str
    plan: str
    input: Json = None
    principal: str
    labels: dict[str, str] = {}
    priority: int = 0
    deadline_at: datetime | None = None


class ChildCancel(Message, type_name="run.child_cancel"):
    """Cancel a child run. One that has not begun begins cancelled, so that a start that comes late finds it ended."""

    start: ChildStart
    reason: str


class ChildEnded(Message, type_name="run.child_ended"):
    """A child run has ended; for its parent, `run_id`."""

    run_id: RunId
    step: str
    attempt: int
    child_run_id: RunId
    status: RunStatus
    output: Json = None
    error: ErrorInfo | None = None
    usage: Used = NOTHING
