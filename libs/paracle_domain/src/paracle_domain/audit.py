"""What can be asked of the audit log: stored events, and what a run used."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Self

from pydantic import Field, model_validator

from paracle_domain.ids import RunId
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Message, Plain, Request, Value


class StoredEvent(Value):
    """One event as the audit log keeps it.

    `position` is its place in the log: it grows in the order in which events became visible, so that a reader who
    goes on from the last one that it saw misses none. `time` is when it happened, `principal` on whose behalf.
    """

    position: int
    subject: str
    principal: str
    time: datetime
    event: EventRecord


class AuditPage(Message, type_name="audit.page"):
    """Stored events in the order of their positions; `next_cursor` asks for what follows, `None`: no more for now.

    `incomplete`: events of the run, or of the entity, that was asked for never came, and their owner does not know them
    (any more).
    """

    events: tuple[StoredEvent, ...]
    next_cursor: int | None = None
    incomplete: bool = False


class ModelUsage(Value):
    """What all calls of one model used."""

    provider: str
    model: str
    usage: Usage


class NamedUsage(Value):
    """What one agent, or one step, used."""

    name: str
    usage: Usage


class UsageReport(Message, type_name="usage.report"):
    """What a run used, in all and by model, agent and step, counted from the events of its model calls.

    Where the price of a call is unknown, so is every sum that it is part of (`usage.cost_usd` is `None`);
    `known_cost_usd` is the sum of those that are known, `unpriced_calls` the number of those that are not.
    """

    run_id: RunId
    total: Usage
    known_cost_usd: Decimal = Decimal(0)
    unpriced_calls: int = 0
    by_model: tuple[ModelUsage, ...] = ()
    by_agent: tuple[NamedUsage, ...] = ()
    by_step: tuple[NamedUsage, ...] = ()


class GetAudit(Request[AuditPage], service="observability", method="get_audit", answer=AuditPage, query=True):
    """Stored events of a run and of everything that it caused (`run_id`), or of one entity (`entity` and `id`)."""

    run_id: RunId | None = None
    entity: Plain | None = Field(default=None, max_length=64)
    id: Plain | None = Field(default=None, max_length=64)
    after: int = Field(default=0, ge=0, description="position to go on from: only later events")
    limit: int = Field(default=500, ge=1, le=5_000)

    @model_validator(mode="after")
    def _one_selection(self) -> Self:
        of_entity = self.entity is not None and self.id is not None
        half = (self.entity is None) != (self.id is None)
        if half or of_entity == (self.run_id is not None):
            message = "give either run_id, or entity and id together"
            raise ValueError(message)
        return self


class GetUsage(Request[UsageReport], service="observability", method="get_usage", answer=UsageReport, query=True):
    """What a run used so far."""

    run_id: RunId
