"""An orchestrator on ports in memory, with a registry and a worker pool that tests play."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from approvals_memory import ApprovalsInMemory
from queue_memory import QueueInMemory
from runs_memory import RunsInMemory
from stuck_memory import StuckInMemory
from trigger_desk import TriggerDesk

from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.postgres import create_pool
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import NotFound, ParacleError, Unavailable
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Command, Encodable, JsonObject, Request
from paracle_domain.plan import Plan, PlannedWorkflow
from paracle_domain.registry import PlanAnswer, ResolvePlan
from paracle_domain.run.commands import CancelRun, StartRun
from paracle_domain.task.messages import Task, TaskResult, TaskStatus
from paracle_domain.workflow.spec import KINDS, WorkflowSpec
from paracle_orchestrator.admission import Limits
from paracle_orchestrator.admitting import Admitter
from paracle_orchestrator.bulk import BulkOrders
from paracle_orchestrator.call_approvals import CallApprovals
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.plans import Plans
from paracle_orchestrator.service import Orchestrator
from paracle_orchestrator.stuck import StuckRuns
from paracle_orchestrator.ticks import Ticker

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def plan_of(*steps: dict[str, Any], **spec: Any) -> Plan:
    """A plan of `steps`, which call a tool if they do not say what they do; `children` are its child workflows."""
    children, revision = spec.pop("children", {}), spec.pop("revision", 1)
    full = [step if set(KINDS) & set(step) else {"tool": "t", **step} for step in steps]
    parsed = WorkflowSpec.model_validate({"steps": full, **spec})
    return Plan.pin(PlannedWorkflow(name="w", revision=revision, spec=parsed), {}, {}, children)


class FakeBus(Bus):
    """Answers plans from a dictionary, keeps what is published, and fails when it is told to."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.asked: list[ResolvePlan] = []
        self.published: list[Outgoing] = []
        self.broken = 0

    async def call(
        self, request: Request[Any], context: Context, *, timeout_s: float = 5.0, idle_s: float | None = None
    ) -> Any:
        assert isinstance(request, ResolvePlan)
        self.asked.append(request)
        plan = self.plans.get(request.workflow or request.agent or "")
        if plan is None:
            raise NotFound(f"no workflow {request.workflow!r}", path="workflow")
        return PlanAnswer(digest=plan.digest, plan=None if plan.digest == request.known_digest else plan)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        if self.broken:
            self.broken -= 1
            raise Unavailable("NATS is away")
        self.published += messages

    async def broadcast(self, message: Outgoing) -> None:
        raise AssertionError("the orchestrator broadcasts nothing")

    async def send(
        self, subject: str, message: Encodable, envelope: Envelope, *, timeout_s: float = 10.0
    ) -> JsonObject:
        raise AssertionError("the orchestrator commands nobody")

    def take(self) -> list[Outgoing]:
        taken, self.published = self.published, []
        return taken


@dataclass
class Receipt:
    """What became of a delivery."""

    answers: list[Any] = field(default_factory=list)
    acked: int = 0
    beats: int = 0
    parked: list[ParacleError] = field(default_factory=list)

    async def ack(self) -> None:
        self.acked += 1

    async def ack_with(self, others: Sequence[Receipt]) -> None:
        raise AssertionError("the orchestrator leaves that to the mailbox")

    async def nak(self, delay_s: float) -> None:
        raise AssertionError("the orchestrator leaves that to the mailbox")

    async def term(self, delivery: Delivery, error: ParacleError) -> None:
        self.parked.append(error)

    async def in_progress(self, others: Sequence[Receipt] = ()) -> None:
        for receipt in (self, *others):
            receipt.beats += 1

    async def reply(self, delivery: Delivery, answer: Any) -> None:
        self.answers.append(answer)

    def waited_for(self, delivery: Delivery) -> bool:
        return delivery.envelope.reply_to is not None


class PlanShelf:
    """A `PlanStore` in memory."""

    def __init__(self) -> None:
        self.plans: dict[tuple[str, str], Plan] = {}

    async def put(self, tenant: str, plan: Plan) -> None:
        self.plans[tenant, plan.digest] = plan

    async def get(self, tenant: str, digest: str) -> Plan | None:
        return self.plans.get((tenant, digest))


class Desk:
    """A replica of the orchestrator, the store and bus that it shares with others, and a clock."""

    def __init__(self, other: Desk | None = None, *, cached: int = 100, limits: Limits | None = None) -> None:
        self.bus: FakeBus = other.bus if other else FakeBus()
        self.store: MemoryEventStore = other.store if other else MemoryEventStore()
        self.shelf: PlanShelf = other.shelf if other else PlanShelf()
        self.now = EPOCH
        self.approvals: ApprovalsInMemory = other.approvals if other else ApprovalsInMemory(self.store)
        self.plans = Plans(self.shelf, self.bus)
        self.host = RunHost(self.store, self.plans, self.approvals, self.bus, lambda: self.now, cached=cached)
        self.calls = CallApprovals(self.host, self.approvals, self.bus, lambda: self.now)
        index = RunsInMemory(self.store)
        self.bulk = BulkOrders(index, self.host)
        self.stuck_index: StuckInMemory = other.stuck_index if other else StuckInMemory(self.store)
        self.stuck = StuckRuns(self.stuck_index, self.bus, lambda: self.now)
        self.queue: QueueInMemory = QueueInMemory(self.store, other.queue.slots if other else None)
        self.admitter = Admitter(self.queue, limits or Limits(), self.host)
        self.service = Orchestrator(
            self.host, self.plans, self.store, index, self.approvals, self.calls, self.bulk, self.stuck, self.admitter
        )
        self.ticker = Ticker(self.store, self.host, self.bus, lambda: self.now)

    def knows(self, name: str, plan: Plan) -> None:
        self.bus.plans[name] = plan

    async def order(self, command: Command, **more: Any) -> Receipt:
        receipt = Receipt()
        delivery = self.command(command, receipt, **more)
        delivery.handed_over = 1  # as a mailbox counts
        await self.service.obey([delivery])
        await self.bulk.beside.idle()
        return receipt

    def command(self, command: Command, receipt: Receipt, *, key: str = "msg-1", **more: Any) -> Delivery:
        body = more.pop("body", None) or command.encode()
        verb = more.pop("verb", command.verb)
        return delivery(subjects.cmd(more.pop("tenant", "acme"), "orchestrator", verb), body, receipt, key=key, **more)

    async def start(self, name: str = "w", value: Any = None, *, key: str = "msg-1") -> str:
        receipt = await self.order(StartRun(workflow=name, input=value or {}), key=key)
        run_id: str = receipt.answers[0].run_id
        return run_id

    async def cancel(self, run_id: str, **more: Any) -> Receipt:
        return await self.order(CancelRun(run_id=run_id, reason="enough"), key=f"cancel-{run_id}", **more)

    async def finish(self, task: Task, status: TaskStatus = TaskStatus.COMPLETED, **more: Any) -> None:
        await self.service.take_in([result_of(task, status, **more)])

    async def deliver(self, outbox: Sequence[Outgoing], *, deliveries: int = 1) -> None:
        """Bring what runs tell one another to them."""
        await self.service.take_in(
            [
                delivery(
                    item.subject,
                    item.message.encode(),
                    Receipt(),
                    key=item.envelope.id,
                    type_name=item.envelope.type,
                    deliveries=deliveries,
                )
                for item in outbox
                if ".result." in item.subject
            ]
        )

    async def tick(self, seconds: float) -> int:
        """Let time pass, wake who is due, and deliver the ticks."""
        self.now += timedelta(seconds=seconds)
        kept, self.bus.published = self.bus.published, []
        count_due = await self.ticker.fire()
        ticks = self.bus.take()
        self.bus.published = kept
        await self.service.take_in(
            [
                delivery(tick.subject, tick.message.encode(), Receipt(), key=tick.envelope.id, type_name="run.tick")
                for tick in ticks
            ]
        )
        return count_due


_seqs = count(1)


def delivery(
    subject: str,
    body: bytes,
    receipt: Receipt,
    *,
    key: str | None,
    type_name: str = "",
    deliveries: int = 1,
    reply: bool = True,
    by: str = "",
    roles: str = "",
) -> Delivery:
    given = {"ce-type": type_name, "paracle-principal": by, "paracle-roles": roles}
    headers = {name: value for name, value in given.items() if value}
    if key is not None:
        headers["Nats-Msg-Id"] = key
    if reply:
        headers["paracle-reply-to"] = "_INBOX.test"
    return Delivery(
        Incoming(subject, "", body, headers=headers),
        receipt,
        deliveries=deliveries,
        stream="COMMANDS",
        stream_seq=next(_seqs),
        stored_ns=1_767_225_600_000_000_000,
    )


def result_of(task: Task, status: TaskStatus = TaskStatus.COMPLETED, *, deliveries: int = 1, **more: Any) -> Delivery:
    """How `task` ended, as it is delivered."""
    result = TaskResult(
        task_id=task.task_id, run_id=task.run_id, step=task.step, attempt=task.attempt, status=status, **more
    )
    subject, key = subjects.result("acme", task.run_id), f"{task.task_id}.result"
    return delivery(subject, result.encode(), Receipt(), key=key, type_name="task.result", deliveries=deliveries)


def tasks(outbox: Sequence[Outgoing]) -> list[Task]:
    return [item.message for item in outbox if isinstance(item.message, Task)]


def events(outbox: Sequence[Outgoing]) -> list[dict[str, Any]]:
    told = [EventRecord.model_validate_json(item.message.encode()) for item in outbox if ".evt." in item.subject]
    return [one.model_dump(mode="json", exclude_none=True) for record in told for one in record.each()]


@pytest.fixture
def desk() -> Desk:
    found = Desk()
    found.knows("w", plan_of({"id": "a"}, {"id": "b", "needs": ["a"]}, output="{{ steps.b.output }}"))
    return found


@pytest.fixture
def replica(desk: Desk) -> Desk:
    """A second replica on the same store and bus."""
    return Desk(desk)


@pytest.fixture
def tools() -> Any:
    """The helpers above, for tests in other files."""

    class Tools:
        plan_of = staticmethod(plan_of)
        tasks = staticmethod(tasks)
        result = staticmethod(result_of)
        events = staticmethod(events)
        receipt = Receipt
        failed = TaskStatus.FAILED
        cancelled = TaskStatus.CANCELLED
        desk = Desk
        delivery = staticmethod(delivery)

    return Tools


@pytest.fixture
async def trigger_desk() -> AsyncIterator[TriggerDesk]:
    found = TriggerDesk()
    await found.open()
    yield found
    await found.bus.drain()


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Any]:
    """Connections to a database with the orchestrator's tables."""
    await migrated(postgres_dsn, "paracle_orchestrator")
    async with create_pool(ServiceSettings(postgres_dsn=postgres_dsn)) as pool:
        yield pool
