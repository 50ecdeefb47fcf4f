"""What observability hears and answers."""

from __future__ import annotations

from paracle_chassis.routes import Routes
from paracle_domain import subjects
from paracle_domain.audit import GetAudit, GetUsage
from paracle_domain.dead_letters import (
    DropDeadLetter,
    DropDeadLetters,
    GetDeadLetter,
    ListDeadLetters,
    RedriveDeadLetter,
    RedriveDeadLetters,
)
from paracle_observability.dead_letters import DeadLetters
from paracle_observability.service import Observability


def routes(
    observability: Observability, dead_letters: DeadLetters, *, batch: int = 1_000, linger_s: float = 0.0
) -> Routes:
    """The routing table."""
    table = Routes("observability")
    table.mailbox(
        stream=subjects.EVENTS,
        durable="observability",
        filter=f"{subjects.PREFIX}.*.evt.>",
        handler=observability.store,
        batch=batch,
        linger_s=linger_s,
        ack_wait_s=10.0,  # how long the audit log lags behind when a replica is killed
    )
    table.mailbox(
        stream=subjects.DEADLETTERS,
        durable="observability",
        filter=subjects.dlq(subjects.ANY, subjects.ANY),
        handler=dead_letters.take_in,
    )
    table.rpc(ListDeadLetters, dead_letters.list)
    table.rpc(GetDeadLetter, dead_letters.get)
    table.rpc(RedriveDeadLetter, dead_letters.redrive)
    table.rpc(RedriveDeadLetters, dead_letters.redrive_many, long=True, exact=True)
    table.rpc(DropDeadLetter, dead_letters.drop)
    table.rpc(DropDeadLetters, dead_letters.drop_many, long=True, exact=True)
    table.rpc(GetAudit, observability.get_audit)
    table.rpc(GetUsage, observability.get_usage)
    return table
