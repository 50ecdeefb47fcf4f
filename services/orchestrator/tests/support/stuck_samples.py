"""Messages for runs, some of them given up, for tests of what is stuck."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any

from paracle_chassis.dead_letters import dead_headers
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.receipts import NoReceipt, Place
from paracle_domain import subjects
from paracle_domain.dead_letters import DEAD_TOLD
from paracle_domain.envelope import Context
from paracle_domain.errors import InternalError, ParacleError
from paracle_domain.ids import new_id
from paracle_domain.messages import Message
from paracle_domain.run.commands import (
    GetRun,
    Stuck,
)
from paracle_domain.task.messages import TaskResult, TaskStatus

AT = datetime(2026, 1, 1, tzinfo=UTC)
CALL = Context("acme", "ann")
_letters = count(1)


def buried(
    subject: str, body: bytes = b"{}", *, error: ParacleError | None = None, type_name: str = "", told: bool = False
) -> Delivery:
    """What the stream of dead letters delivers of a message that was given up."""
    headers = ({"ce-type": type_name} if type_name else {}) | ({DEAD_TOLD: "true"} if told else {})
    seq = next(_letters)
    message = Delivery(Incoming(subject, "", body, headers=headers), NoReceipt(), stream="S", stream_seq=seq)
    letter = dead_headers(message, Place("S", "c", 8, seq, 1), error or InternalError("it broke"))
    incoming = Incoming(subjects.dlq("acme", "orchestrator"), "", body, headers=letter)
    stored_ns = int(AT.timestamp()) * 1_000_000_000
    return Delivery(incoming, NoReceipt(), stream=subjects.DEADLETTERS, stream_seq=seq, stored_ns=stored_ns)


async def stuck_of(desk: Any, run: str) -> Stuck | None:
    found: Stuck | None = (await desk.service.get_run(GetRun(run_id=run), CALL)).run.stuck
    return found


def mail(tools: Any, run: str, message: Message, receipt: Any = None, *, tenant: str = "acme") -> Delivery:
    found: Delivery = tools.delivery(
        subjects.result(tenant, run),
        message.encode(),
        receipt or tools.receipt(),
        key=new_id("msg"),
        type_name=message.type_name,
        reply=False,
    )
    return found


def result_of(task: Any) -> TaskResult:
    known = {"task_id": task.task_id, "run_id": task.run_id, "step": task.step, "attempt": task.attempt}
    return TaskResult(**known, status=TaskStatus.COMPLETED, output=1)
