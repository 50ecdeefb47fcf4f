"""What observability hears and answers."""

from __future__ import annotations

from paracle_chassis.routes import Routes
from paracle_domain import subjects
from paracle_domain.audit import GetAudit, GetUsage
from paracle_observability.service import Observability


def routes(observability: Observability, *, batch: int = 1_000, linger_s: float = 0.0) -> Routes:
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
    table.rpc(GetAudit, observability.get_audit)
    table.rpc(GetUsage, observability.get_usage)
    return table
