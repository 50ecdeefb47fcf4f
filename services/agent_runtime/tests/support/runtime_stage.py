"""A runtime with everything in memory, and what came out of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from runtime_peers import Gateway, Orchestrator
from runtime_plan import CONTEXT, cancel, sent
from runtime_world import World

from paracle_chassis.bus import Outgoing
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.receipts import NoReceipt
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.memory import MemoryBus
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.inference.request import AbortCall
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Encodable
from paracle_domain.task.messages import Task, TaskResult
from paracle_domain.task.output import ToolProgress


class Stage(World):
    """A world with everything in memory, and what came out of it."""

    def __init__(self, gateway: Gateway, **options: Any) -> None:
        self.bus = MemoryBus()
        self.store = MemoryEventStore()
        self.gateway = gateway
        self.orchestrator = Orchestrator()
        super().__init__(self.bus, self.store, **options)

    async def start(self) -> None:
        for table in (self.orchestrator.routes(), self.gateway.routes(), self.routes):
            await self.bus.serve(table)

    @property
    def aborted(self) -> int:
        """How many model calls were called off (some by more than one)."""
        orders = [told.message for told in self.bus.broadcasts]
        return len({order.call_id for order in orders if isinstance(order, AbortCall)})

    def progress(self, of: Task) -> list[ToolProgress]:
        """What whoever watches a task was told of its tools."""
        return [one for one in self.said(of) if isinstance(one, ToolProgress)]

    def said(self, of: Task) -> list[Encodable]:
        """All that whoever watches a task was told."""
        subject = subjects.out(CONTEXT.tenant, of.task_id)
        return [told.message for told in self.bus.broadcasts if told.subject == subject]

    def results(self) -> dict[str, TaskResult]:
        found = [m.message for m in self.bus.published if isinstance(m.message, TaskResult)]
        return {result.task_id: result for result in found}

    def events(self, of: Task) -> list[EventRecord]:
        told = [m for m in self.bus.published if m.envelope.type == EventRecord.type_name]
        records = [EventRecord.model_validate_json(m.message.encode()) for m in told]
        return [event for record in records if record.id == of.task_id for event in record.each()]

    async def do(self, *tasks: Task) -> list[TaskResult]:
        await self.bus.publish([sent(each) for each in tasks])
        await eventually(lambda: all(each.task_id in self.results() for each in tasks))
        await eventually(lambda: self.runtime.running == 0)
        return [self.results()[each.task_id] for each in tasks]


def script(*lines: Any) -> Any:
    return pytest.mark.parametrize("stage", [lines], indirect=True)


def again(of: Any) -> Any:
    return Delivery(Incoming(of.subject, "", of.body, headers=of.headers), NoReceipt(), deliveries=2)


def order(job: Task, tenant: str = CONTEXT.tenant) -> Outgoing:
    told = cancel(job)
    envelope = Envelope.wrap(told.type_name, "test", Context(tenant))
    return Outgoing(subjects.cmd(tenant, "agent_runtime", "cancel_task"), told, envelope)


def as_delivered(job: Task) -> Any:
    out = sent(job)
    return SimpleNamespace(subject=out.subject, headers=out.envelope.headers(), body=job.encode())
