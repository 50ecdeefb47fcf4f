"""An orchestrator with triggers on a bus in memory, a registry that tests play, and a clock of theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from approvals_memory import ApprovalsInMemory
from queue_memory import QueueInMemory
from stuck_memory import StuckInMemory
from trigger_memory import MemoryTriggerStore

from paracle_chassis.bus import Outgoing
from paracle_chassis.routes import Routes
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.memory import MemoryBus
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import NotFound, Unavailable
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Command, Encoded, JsonObject
from paracle_domain.plan import Plan, PlannedWorkflow
from paracle_domain.registry import (
    ListTriggerChanges,
    PlanAnswer,
    ResolvePlan,
    TriggerChange,
    TriggerChanges,
)
from paracle_domain.run.commands import GetRun, RunFilter, RunPage, RunStatus, RunView
from paracle_domain.task.messages import Task, TaskResult, TaskStatus
from paracle_domain.trigger.commands import GetTrigger, TriggerView
from paracle_domain.workflow.spec import WorkflowSpec
from paracle_orchestrator.admission import Limits
from paracle_orchestrator.admitting import Admitter
from paracle_orchestrator.bulk import BulkOrders
from paracle_orchestrator.call_approvals import CallApprovals
from paracle_orchestrator.handlers import routes
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.plans import Plans
from paracle_orchestrator.service import Orchestrator
from paracle_orchestrator.settings import OrchestratorSettings
from paracle_orchestrator.stuck import StuckRuns
from paracle_orchestrator.triggers import Watch

EPOCH = datetime(2026, 1, 1, 12, tzinfo=UTC)
ANN = Context("acme", principal="ann")
WORKFLOW = {
    "input": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "steps": [{"id": "a", "tool": "t"}],
}


class Registry:
    """The registry's answers; `away` makes it silent."""

    def __init__(self) -> None:
        self.version: dict[str, int] = {}
        self.changes: dict[tuple[str, str], TriggerChange] = {}
        self.away = False
        self.page = 200

    def routes(self) -> Routes:
        table = Routes("registry")
        table.rpc(ListTriggerChanges, self.list_trigger_changes)
        table.rpc(ResolvePlan, self.resolve_plan)
        return table

    async def list_trigger_changes(self, request: ListTriggerChanges, call: Context) -> TriggerChanges:
        self._answer()
        found = [
            change
            for (tenant, _), change in self.changes.items()
            if tenant == call.tenant and change.version > request.after
        ]
        found.sort(key=lambda change: change.version)
        page = found[: self.page]
        more = len(found) > len(page)
        version = page[-1].version if more else self.version.get(call.tenant, 0)
        return TriggerChanges(changes=tuple(page), version=version, more=more)

    async def resolve_plan(self, request: ResolvePlan, call: Context) -> PlanAnswer:
        self._answer()
        if request.workflow != "w":
            raise NotFound(f"no workflow {request.workflow!r}", path="workflow")
        spec = WorkflowSpec.model_validate(WORKFLOW)
        plan = Plan.pin(PlannedWorkflow(name="w", revision=1, spec=spec), {}, {})
        return PlanAnswer(digest=plan.digest, plan=plan)

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("the registry is away")


class Shelf:
    """A `PlanStore` in memory."""

    def __init__(self) -> None:
        self.plans: dict[tuple[str, str], Plan] = {}

    async def put(self, tenant: str, plan: Plan) -> None:
        self.plans[tenant, plan.digest] = plan

    async def get(self, tenant: str, digest: str) -> Plan | None:
        return self.plans.get((tenant, digest))


class NoIndex:
    async def page(self, tenant: str, wanted: RunFilter, limit: int, cursor: str | None = None) -> RunPage:
        return RunPage(runs=())

    async def turns_before(self, tenant: str, run_id: str, last: int | None = None) -> list[str]:
        return []


class RunsOf(Mapping[str, RunStatus]):
    """How the runs of an event store are: the trigger store's look at the table of runs."""

    def __init__(self, store: MemoryEventStore) -> None:
        self._store = store

    def __getitem__(self, run_id: str) -> RunStatus:
        return RunStatus(self._store.actors[run_id].status)

    def __iter__(self) -> Any:
        return iter(self._store.actors)

    def __len__(self) -> int:
        return len(self._store.actors)


class TriggerDesk:
    """A replica. What it does again and again, tests do: `look` is a round of schedules, and of starting."""

    def __init__(self) -> None:
        self.now = EPOCH
        self.bus = MemoryBus()
        self.registry = Registry()
        self.events = MemoryEventStore()
        self.store = MemoryTriggerStore()
        self.store.runs = RunsOf(self.events)  # type: ignore[assignment]  # it is only read
        self.watch = Watch.over(self.store, self.bus, lambda: self.now)

    def another(self) -> Watch:
        """The triggers of a second replica."""
        return Watch.over(self.store, self.bus, lambda: self.now)

    async def open(self) -> None:
        plans, index, approvals = Plans(Shelf(), self.bus), NoIndex(), ApprovalsInMemory(self.events)
        host = RunHost(self.events, plans, approvals, self.bus, lambda: self.now, cached=100)
        stuck = StuckRuns(StuckInMemory(self.events), self.bus, lambda: self.now)
        admitter = Admitter(QueueInMemory(self.events), Limits(), host)
        calls, bulk = CallApprovals(host, approvals, self.bus, lambda: self.now), BulkOrders(index, host)
        runs = Orchestrator(host, plans, self.events, index, approvals, calls, bulk, stuck, admitter)
        await self.bus.serve(self.registry.routes())
        await self.bus.serve(routes(runs, calls, self.watch, stuck, OrchestratorSettings()))

    # ── the registry ─────────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, name: str = "t", tenant: str = "acme", *, deleted: bool = False, **spec: Any) -> None:
        """Put a trigger into the registry, which tells nobody."""
        known = self.registry.changes.get((tenant, name))
        version = self.registry.version[tenant] = self.registry.version.get(tenant, 0) + 1
        self.registry.changes[tenant, name] = TriggerChange(
            name=name,
            revision=known.revision + 1 if known else 1,
            spec=None if deleted else {"workflow": "w", **spec},
            author="ann",
            at=self.now,
            version=version,
        )

    async def told(self, tenant: str = "acme") -> None:
        """Let the registry tell of its triggers, and the orchestrator hear."""
        record = EventRecord(entity="trigger", id="t", seq=1, type="trigger.revised", at=self.now)
        envelope = Envelope.wrap(record.type_name, "paracle/registry", Context(tenant))
        await self.bus.publish([Outgoing(subjects.evt(tenant, "trigger", "t", "revised"), record, envelope)])

        async def heard() -> bool:
            return await self.store.version(tenant) == self.registry.version[tenant]

        await eventually(heard)

    async def schedule(self, cron: str = "* * * * *", *, name: str = "t", **more: Any) -> None:
        spec = {key: more.pop(key) for key in ("input", "paused", "labels", "workflow") if key in more}
        self.apply(name, schedule={"cron": cron, **more}, **spec)
        await self.watch.follower.follow("acme")

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self, minutes: float = 0) -> None:
        """Let time pass, and look at the clock."""
        self.now += timedelta(minutes=minutes)
        await look_of(self.watch)

    async def say(self, topic: str, message: Any = None, *, key: str | None = None, body: bytes | None = None) -> None:
        """Publish a message, and wait until it is dealt with."""
        envelope = Envelope.wrap("message", "client", Context("acme", principal="bob"), id=key)
        text = json.dumps(message).encode() if body is None else body
        self.bus._ids.discard((subjects.INTAKE, envelope.id))  # the same message again is stored again
        await self.bus.publish([Outgoing(subjects.intake("acme", topic), Encoded(text), envelope)])
        await self.settled()

    async def ask(self, topic: str, message: Any, *, key: str | None = None) -> Any:
        """Send a message, and what it is answered with."""
        envelope = Envelope.wrap("message", "client", Context("acme", principal="bob"), id=key)
        return await self.bus.send(subjects.intake("acme", topic), Encoded(json.dumps(message).encode()), envelope)

    async def settled(self) -> None:
        """Wait until no mailbox has anything in hand."""

        async def idle() -> bool:
            sources = [source for _, source in self.bus._sources.values()]
            return not any(source.buffer or source._held for source in sources)

        await eventually(idle)

    async def order(self, command: Command, *, key: str | None = None, call: Context = ANN) -> JsonObject:
        return await self.bus.command(command, call, id=key, timeout_s=5)

    async def finish(self, run_id: str) -> None:
        """Let the run's task complete."""
        tasks = [item.message for item in self.bus.published if isinstance(item.message, Task)]
        (task,) = [task for task in tasks if task.run_id == run_id]
        result = TaskResult(task_id=task.task_id, run_id=run_id, step=task.step, attempt=1, status=TaskStatus.COMPLETED)
        envelope = Envelope.wrap(result.type_name, "worker", Context("acme"))
        await self.bus.publish([Outgoing(subjects.result("acme", run_id), result, envelope)])
        await self.settled()

    # ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────

    async def view(self, name: str = "t", tenant: str = "acme") -> TriggerView:
        return await self.bus.call(GetTrigger(name=name), Context(tenant))

    async def runs(self) -> list[RunView]:
        """All runs that began, in the order in which they did."""
        return [await self.bus.call(GetRun(run_id=run_id), ANN) for run_id in self.events.actors]

    def told_of(self, entity: str) -> list[Any]:
        """Events of an entity."""
        return [item for item in self.bus.published if f".evt.{entity}." in item.subject]


async def look_of(replica: Watch) -> None:
    """What a replica does when it looks at the clock."""
    await replica.schedules.round()
    await replica.starter.drain()
