"""One replica of the runtime as its tests have it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from memory_ports import (
    MemoryAttempts,
    MemoryEffects,
    MemoryLeases,
    MemorySessionBook,
    NoSessionShelf,
    NoShelf,
    NoUsage,
    NoWorkers,
)
from pool_world import MemoryPoolBook, MemoryTaskQueue
from runtime_plan import CONTEXT

from paracle_agent_runtime.adapters.outlet import BusOutlet
from paracle_agent_runtime.adapters.rpc import RpcBudgets, RpcModels, RpcPeople, RpcPlans, RpcRuns, RpcStarts
from paracle_agent_runtime.decisions import Decisions
from paracle_agent_runtime.effects import EffectDesk, Ledger
from paracle_agent_runtime.handlers import routes
from paracle_agent_runtime.histories import Histories
from paracle_agent_runtime.journal import Journal
from paracle_agent_runtime.outbox import Outbox
from paracle_agent_runtime.plans import PlanCache
from paracle_agent_runtime.pool_desk import PoolDesk
from paracle_agent_runtime.pools import Pools
from paracle_agent_runtime.ports import (
    Attempts,
    Effects,
    Leases,
    SessionBook,
)
from paracle_agent_runtime.purging import Purging
from paracle_agent_runtime.schemas import Schemas
from paracle_agent_runtime.service import Runtime
from paracle_agent_runtime.session_desk import SessionDesk
from paracle_agent_runtime.sessions import Sessions
from paracle_agent_runtime.tools.http import HttpTools
from paracle_agent_runtime.tools.mcp.backend import McpTools
from paracle_agent_runtime.tools.sandbox.bubblewrap import Bubblewrap
from paracle_agent_runtime.tools.sandbox.commands import Commands
from paracle_agent_runtime.tools.toolbox import Toolbox, ToolEnd
from paracle_agent_runtime.tools.workers import Caller, WorkerTools
from paracle_agent_runtime.wanted import Wanted
from paracle_agent_runtime.workshop import Workshop
from paracle_chassis.bus import Bus
from paracle_chassis.event_store import EventStore
from paracle_chassis.testing.eventually import leap
from paracle_domain.messages import JsonObject
from paracle_domain.plan import PlannedTool


class CountingToolbox(Toolbox):
    """A toolbox that remembers its calls."""

    def __init__(self, schemas: Schemas) -> None:
        super().__init__(
            schemas=schemas,
            http=HttpTools(),
            mcp=McpTools({}, {}),
            workers=WorkerTools(NoWorkers(), lambda: datetime.now(UTC)),
            commands=Commands(Bubblewrap()),
            usage=NoUsage(),
            files_root=Path(),
            environment={},
            log_bug=lambda *_: None,
        )
        self.calls: list[tuple[str, str | None]] = []

    async def call(
        self, tool: PlannedTool, arguments: JsonObject, caller: Caller, *, key: str | None = None
    ) -> ToolEnd:
        self.calls.append((tool.name, key))
        return await super().call(tool, arguments, caller, key=key)


class World:
    """One replica of the runtime on a bus and a store."""

    def __init__(
        self,
        bus: Bus,
        store: EventStore,
        leases: Leases | None = None,
        attempts: Attempts | None = None,
        effects: Effects | None = None,
        book: MemorySessionBook | None = None,
        pools: Pools | None = None,
        pool_book: MemoryPoolBook | None = None,
        sessions: SessionBook | None = None,
        **options: Any,
    ) -> None:
        schemas = Schemas()
        self.leases = leases or MemoryLeases()
        self.lag = timedelta()  # how long it stood still, as far as it can see
        self.toolbox = CountingToolbox(schemas)
        self.plans = PlanCache(RpcPlans(bus))
        self.effects = effects or MemoryEffects()
        journal = Journal(store)
        outbox = Outbox(bus)
        self.book = book or MemorySessionBook(store)
        self.shop = Workshop(
            journal=journal,
            outbox=outbox,
            outlet=BusOutlet(bus),
            sessions=Sessions(sessions or self.book, RpcStarts(bus), outbox),
            ledger=Ledger(self.effects, attempts or MemoryAttempts(store), journal),
            wanted=Wanted(RpcRuns(bus)),
            models=RpcModels(bus),
            decisions=Decisions(RpcPeople(bus), RpcBudgets(bus), lambda: datetime.now(UTC), look_s=0.05),
            toolbox=self.toolbox,
            schemas=schemas,
            clock=lambda: datetime.now(UTC) + self.lag,
            leases=self.leases,
        )
        self.pools = pools or Pools({"agents": 20_000})
        self.pool_book = pool_book or MemoryPoolBook()
        drains = self.pool_book.drains
        self.runtime = Runtime(self.shop, self.plans, self.pools, drains, drain_s=0.2, look_s=0.05, **options)
        self.routes = routes(
            self.runtime,
            self.pools,
            Histories(store),
            Purging(NoShelf()),
            EffectDesk(self.effects, bus, self.shop.clock),
            PoolDesk(self.pool_book, MemoryTaskQueue(), bus, self.shop.clock, CONTEXT.tenant),
            SessionDesk(NoSessionShelf()),
        )

    def later(self, seconds: float) -> None:
        """It is so much later: deadlines pass now, and not because the machine is slow."""
        self.lag += timedelta(seconds=seconds)
        leap(seconds)
