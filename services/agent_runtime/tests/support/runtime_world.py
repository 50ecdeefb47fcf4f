"""What surrounds the runtime in its tests: an orchestrator with one plan, a gateway with a script, leases."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pool_world import MemoryPoolBook, MemoryTaskQueue

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
from paracle_agent_runtime.pools import Pools, WorkerReport
from paracle_agent_runtime.ports import (
    TURNS_TOLD,
    Answer,
    Attempts,
    Effects,
    Ending,
    Leases,
    Letter,
    SessionBook,
    Stalled,
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
from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.event_store import EventStore, Loaded
from paracle_chassis.routes import Routes
from paracle_chassis.testing.eventually import leap
from paracle_domain import subjects
from paracle_domain.agent.spec import AgentSpec
from paracle_domain.budget.messages import BudgetList, BudgetUse, BudgetView, ListBudgets, RaiseBudget
from paracle_domain.budget.spec import Budget, OnHit
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import NotFound, ParacleError, ToolUnavailable, Unavailable
from paracle_domain.ids import derive_id, new_id
from paracle_domain.inference.chat import ChatMessage, ToolCallPart
from paracle_domain.inference.ledger import QueryUsage, Spend, UsageTable
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import Done, JsonObject
from paracle_domain.plan import Plan, PlannedAgent, PlannedTool, PlannedWorkflow
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, AskForCall, GetPlan, WithdrawCall
from paracle_domain.run.deciding import asked, withdrawn
from paracle_domain.task.effects import EffectPage, EffectState, EffectView, ListEffects, Resolution
from paracle_domain.task.ledger import Entry
from paracle_domain.task.messages import CancelTask, Task
from paracle_domain.task.past import KeptTurn, Past, Recap, remembered
from paracle_domain.task.sessions import ListTurnsBefore, SessionSummary, SessionTurn, TurnsBefore
from paracle_domain.task.wanted import ListWantedTasks, WantedTasks
from paracle_domain.tool.calls import ToolCall
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.workflow.spec import WorkflowSpec

CONTEXT = Context("default", principal="ada")
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}}


def tool(name: str, effect: str = "none", function: str = "noop", **spec: Any) -> PlannedTool:
    backend = {"type": "builtin", "function": function}
    found = ToolSpec.model_validate({"description": name, "backend": backend, "effect": effect, **spec})
    return PlannedTool(name=name, revision=1, spec=found)


TOOLS = {
    made.name: made
    for made in (
        tool("look", input=NUMBER),
        tool("save", "idempotent"),
        tool("pay", "at_most_once"),
        tool("nap", function="sleep"),
        tool("hang", "at_most_once", function="sleep"),
        tool("guarded", "at_most_once", approval={"when": "arguments.n > 1"}),
        tool("peek", approval={}),
        PlannedTool(
            name="page",
            revision=1,
            spec=ToolSpec.model_validate(
                {
                    "description": "5 KB of text",
                    "backend": {"type": "builtin", "function": "noop", "options": {"text": "x" * 5_000}},
                }
            ),
        ),
    )
}


def _wired(name: str, probe: str, **spec: Any) -> PlannedTool:
    """A tool that takes its time, and whose calls in doubt `probe` looks into, at once and twice at most."""
    asking = {"tool": probe, "settle_s": 0, "attempts": 2}
    return tool(name, "at_most_once", function="sleep", probe=asking, **spec)


def _looking(name: str, **options: Any) -> PlannedTool:
    backend = {"type": "builtin", "function": "noop", "options": options}
    return PlannedTool(name=name, revision=1, spec=ToolSpec.model_validate({"description": name, "backend": backend}))


PROBED = {
    made.name: made
    for made in (
        _wired("wire", "found"),
        _wired("lost", "missed"),
        _wired("odd", "found", output={"type": "string"}),
        _wired("dark", "blind"),
        _looking("found", outcome="done", output={"id": 7}),
        _looking("missed", outcome="not_done"),
        tool("blind", function="calculate"),
    )
}
"""Tools with probes that know, that know of nothing, and that cannot tell."""
AGENTS = {
    name: PlannedAgent(name=name, revision=1, spec=AgentSpec.model_validate(spec))
    for name, spec in {
        "helper": {"instructions": "Help.", "tools": list(TOOLS)},
        "strict": {"output": {"type": "object", "required": ["label"]}, "limits": {"output_repairs": 1}},
        "hasty": {"limits": {"wall_time_s": 0.05}},
        "broken": {"output": {"type": "nonsense"}, "limits": {"output_repairs": 0}},
        "boss": {
            "tools": ["look", "pay"],
            "delegates": [{"agent": "helper"}, {"agent": "boss"}, {"agent": "picky", "mode": "handoff"}],
            "limits": {"wall_time_s": 30},
        },
        "careful": {"tools": ["guarded", "save"]},
        "reader": {"tools": ["page"], "limits": {"turns": 200, "tool_calls": 200}},
        "chatty": {"compaction": {"above_tokens": 200, "keep_last": 1}},
        "brief": {"delegates": [{"agent": "boss"}], "limits": {"wall_time_s": 0.1}},
        "picky": {"input": {"type": "object", "required": ["text"]}},
    }.items()
}
PLAN = Plan.pin(
    PlannedWorkflow(
        name="w", revision=1, spec=WorkflowSpec.model_validate({"steps": [{"id": "s", "agent": "helper"}]})
    ),
    AGENTS,
    {**TOOLS, **PROBED},
)


def task(target: str, value: Any = None, **changes: Any) -> Task:
    run_id = new_id("run")
    fields = {
        "task_id": derive_id("task", run_id, "s", 1),
        "run_id": run_id,
        "step": "s",
        "attempt": 1,
        "plan": PLAN.digest,
        "target_kind": "agent" if target in AGENTS else "tool",
        "target": target,
        "input": {} if value is None else value,
        "effect_scope": "s",
    }
    return Task.model_validate({**fields, **changes})


def sent(task: Task, tenant: str = "default", id: str | None = None) -> Outgoing:  # the envelope's word
    envelope = Envelope.wrap(task.type_name, "test", Context(tenant, correlation_id=task.run_id), id=id or task.task_id)
    return Outgoing(subjects.task(tenant, "agents"), task, envelope)


def cancel(task: Task) -> CancelTask:
    return CancelTask(task_id=task.task_id, run_id=task.run_id, step=task.step, attempt=task.attempt, reason="enough")


def says(text: str = "", *calls: tuple[str, JsonObject]) -> Completion:
    parts = [ToolCallPart(id=f"c{i}", name=name, arguments=arguments) for i, (name, arguments) in enumerate(calls)]
    return Completion(
        message=ChatMessage.assistant(text, *parts),
        finish_reason=FinishReason.TOOL_CALLS if parts else FinishReason.STOP,
        usage=Usage(input_tokens=10, output_tokens=5, model_calls=1),
        provider="sandbox",
        model="rules",
        latency_s=0.01,
    )


class Gateway:
    """Answers the turns of a conversation by script: the nth turn gets the nth line, an error is raised.

    `None` never answers.
    """

    def __init__(self, *script: Completion | ParacleError | None) -> None:
        self.script: Sequence[Completion | ParacleError | None] = script
        self.asked: list[Complete] = []
        self.raises: list[RaiseBudget] = []
        self.unwilling: list[ParacleError] = []
        self.used_up = True
        self._used = 0

    async def complete(self, request: Complete, _: Context) -> Completion:
        self.asked.append(request)
        line = self.script[self._used]
        if line is None:
            await asyncio.Event().wait()
        self._used += 1
        if isinstance(line, ParacleError):
            raise line
        assert line is not None
        return line

    async def raise_budget(self, request: RaiseBudget, _: Context) -> BudgetView:
        if self.unwilling:
            raise self.unwilling.pop(0)
        self.raises.append(request)
        return self._shown(request.name, request.subject)

    async def list_budgets(self, request: ListBudgets, _: Context) -> BudgetList:
        return BudgetList(budgets=(self._shown(request.name or "", request.subject or ""),))

    def _shown(self, name: str, subject: str) -> BudgetView:
        spent = Decimal(1) if self.used_up else Decimal(0)
        use = BudgetUse(subject=subject, period="total", spent_usd=spent, limit_usd=Decimal(1))
        budget = Budget(name=name, limit_usd=Decimal(1), on_hit=OnHit.ASK)
        return BudgetView(budget=budget, revision=1, set_by="ann", set_at=datetime.now(UTC), uses=(use,))

    def routes(self) -> Routes:
        table = Routes("provider_gateway")
        table.rpc(Complete, self.complete, long=True)
        table.rpc(RaiseBudget, self.raise_budget)
        table.rpc(ListBudgets, self.list_budgets)
        return table


class Orchestrator:
    """Knows one plan, and keeps what people are asked; tests decide for them."""

    def __init__(self) -> None:
        self.asked = 0
        self.approvals: dict[str, ApprovalView] = {}
        self.withdrawn: list[str] = []
        self.away = 0
        self.accepted: list[str] = []
        self.over: set[str] = set()

    async def ask(self, request: AskForCall, _: Context) -> ApprovalView:
        if self.away:
            self.away -= 1
            raise Unavailable("the orchestrator is away")
        return self.approvals.setdefault(request.approval_id, asked(request, "w", "ann"))

    async def withdraw(self, request: WithdrawCall, _: Context) -> Done:
        view = self.approvals.get(request.approval_id)
        if view is not None and request.task_id not in {None, view.task_id}:
            return Done()
        self.withdrawn.append(request.approval_id)
        if view is None:
            raise NotFound(f"there is no approval {request.approval_id}")
        self.approvals[request.approval_id] = withdrawn(view, datetime.now(UTC))
        return Done()

    def decide(self, status: ApprovalStatus = ApprovalStatus.APPROVED) -> None:
        """Everything that is open comes out so."""
        for name, view in self.approvals.items():
            if view.status is ApprovalStatus.OPEN:
                self.approvals[name] = view.model_copy(update={"status": status})

    async def list_turns_before(self, request: ListTurnsBefore, _: Context) -> TurnsBefore:
        """What tests say was accepted before, and has not ended."""
        known = self.accepted
        before = known[: known.index(request.run_id)] if request.run_id in known else []
        return TurnsBefore(run_ids=tuple(before[-(request.last or len(before)) :]))

    async def list_wanted_tasks(self, request: ListWantedTasks, _: Context) -> WantedTasks:
        return WantedTasks(task_ids=tuple(one.task_id for one in request.tasks if one.task_id not in self.over))

    async def get_plan(self, request: GetPlan, _: Context) -> Plan:
        self.asked += 1
        if request.digest != PLAN.digest:
            raise NotFound(f"there is no plan {request.digest}")
        return PLAN

    def routes(self) -> Routes:
        table = Routes("orchestrator")
        table.rpc(GetPlan, self.get_plan)
        table.rpc(ListTurnsBefore, self.list_turns_before)
        table.rpc(ListWantedTasks, self.list_wanted_tasks)
        table.rpc(AskForCall, self.ask)
        table.rpc(WithdrawCall, self.withdraw)
        return table


class MemoryLeases:
    """Leases in a dictionary that several runtimes of a test share."""

    def __init__(self, live: set[str] | None = None, owners: dict[str, str] | None = None) -> None:
        self.worker = new_id("wrk")
        self.live = live if live is not None else set()
        self.owners = owners if owners is not None else {}

    async def beat(self, _report: WorkerReport) -> None:
        self.live.add(self.worker)

    async def claim(self, task_id: str) -> bool:
        owner = self.owners.get(task_id)
        if owner not in (None, self.worker) and owner in self.live:
            return False
        self.owners[task_id] = self.worker
        return True

    async def release(self, task_id: str) -> None:
        if self.owners.get(task_id) == self.worker:
            del self.owners[task_id]

    async def leave(self) -> None:
        self.live.discard(self.worker)


class MemoryAttempts:
    """The earlier attempts in a `MemoryEventStore`."""

    def __init__(self, store: EventStore) -> None:
        self._actors: dict[str, Loaded] = getattr(store, "actors", {})

    async def before(self, task: Task, tenant: str) -> Sequence[str]:
        mine = [one for one in self._actors.values() if one.tenant == tenant and one.facts["run_id"] == task.run_id]
        found = [one for one in mine if one.facts["step"] == task.step and one.facts["attempt"] < task.attempt]
        return [one.id for one in sorted(found, key=lambda one: one.facts["attempt"])]


class MemoryEffects:
    """The list of effects in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Entry] = {}

    async def enter(self, entries: Sequence[tuple[str, Entry]]) -> None:
        for tenant, new in entries:
            old = self.rows.get((tenant, new.view.key))
            if old is not None and (old.view.attempt, old.seq) >= (new.view.attempt, new.seq):
                continue
            self.rows[tenant, new.view.key] = new if old is None else replace(new, view=_later(old.view, new))

    async def get(self, tenant: str, key: str) -> EffectView | None:
        found = self.rows.get((tenant, key))
        return None if found is None else found.view

    async def page(self, query: ListEffects, tenant: str) -> EffectPage:
        wanted = query.filter
        found = [
            view
            for view in self._of(tenant)
            if wanted.state in (None, view.state)
            and wanted.tool in (None, view.tool)
            and wanted.run_id in (None, view.run_id)
            and (wanted.since is None or view.intended_at >= wanted.since)
            and (wanted.until is None or view.intended_at < wanted.until)
        ]
        found.sort(key=lambda view: (view.intended_at, view.key), reverse=True)
        start = int(query.cursor or 0)
        more = len(found) > start + query.limit
        next_cursor = str(start + query.limit) if more else None
        return EffectPage(effects=tuple(found[start : start + query.limit]), next_cursor=next_cursor)

    async def resolve(self, tenant: str, key: str, resolution: Resolution) -> bool:
        found = self.rows.get((tenant, key))
        if found is None or found.view.state is not EffectState.IN_DOUBT:
            return False
        if found.view.probe is not None and found.view.probe.open:
            return False
        changes = {"state": EffectState.RESOLVED, "resolution": resolution, "changed_at": resolution.at}
        view = found.view.model_copy(update={**changes, "resolved": found.view.resolved + 1})
        self.rows[tenant, key] = replace(found, view=view)
        return True

    async def resolutions(self, tenant: str, keys: Collection[str]) -> dict[str, Resolution]:
        found = [view for view in self._of(tenant) if view.key in keys and view.state is EffectState.RESOLVED]
        return {view.key: view.resolution for view in found if view.resolution is not None}

    async def doubtful(self, tenant: str, run_id: str, step: str) -> list[EffectView]:
        states = {EffectState.IN_DOUBT, EffectState.RESOLVED}
        return [v for v in self._of(tenant) if v.run_id == run_id and v.step == step and v.state in states]

    def _of(self, tenant: str) -> list[EffectView]:
        return [entry.view for (owner, _), entry in self.rows.items() if owner == tenant]


def _later(old: EffectView, new: Entry) -> EffectView:
    kept = None if new.sent else old.resolution
    believed = new.view.state is EffectState.IN_DOUBT and kept is not None
    return new.view.model_copy(
        update={
            "state": EffectState.RESOLVED if believed else new.view.state,
            "resolution": kept,
            "resolved": old.resolved,
            "intended_at": old.intended_at,
        }
    )


class NoWorkers:
    """Nobody answers calls of tools."""

    async def ask(self, call: ToolCall, body: bytes) -> Answer:
        raise ToolUnavailable(f"no worker answers {call.subject}")


class NoUsage:
    """A ledger in which nothing is."""

    async def table(self, request: QueryUsage, context: Context) -> UsageTable:
        assert request.run_id is not None
        assert context.tenant
        return UsageTable(rows=(), total=Spend())


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


class MemorySessionBook:
    """Sessions in a dictionary that several runtimes of a test share, beside the tasks of a `MemoryEventStore`."""

    def __init__(self, store: EventStore | None = None) -> None:
        self._actors: dict[str, Loaded] = getattr(store, "actors", {})
        self.turns: dict[tuple[str, str], list[str]] = {}
        self.runs: set[tuple[str, str, str]] = set()
        self.ended: dict[str, Ending] = {}
        self.recaps: dict[str, Recap] = {}
        self.aside: dict[str, tuple[str, Letter, int | str]] = {}

    async def number(self, task_id: str) -> int | None:
        found = [turns.index(task_id) + 1 for turns in self.turns.values() if task_id in turns]
        return found[0] if found else None

    async def enter(self, tenant: str, session: str, task: Task) -> int:
        turns = self.turns.setdefault((tenant, session), [])
        self.runs.add((tenant, session, task.run_id))
        if task.task_id not in turns:
            turns.append(task.task_id)
        return turns.index(task.task_id) + 1

    async def lacks(self, tenant: str, session: str, run_ids: Sequence[str]) -> str | None:
        ended = {one.facts["run_id"] for one in self._actors.values() if one.tenant == tenant and one.finished_at}
        absent = [one for one in run_ids if (tenant, session, one) not in self.runs]
        lacking = [*absent[: len(absent) == TURNS_TOLD], *(one for one in absent if one not in ended)]
        return lacking[-1] if lacking else None

    async def waits(self, tenant: str, session: str, turn: int) -> bool:
        before = self.turns[tenant, session][: turn - 1]
        stopped = {"failed", "cancelled", "timed_out"}
        open_turns = [task_id for task_id in before if task_id not in self.ended]
        return any(task_id not in self._actors or self._actors[task_id].status not in stopped for task_id in open_turns)

    async def set_aside(self, session: str, letter: Letter, waits_for: int | str) -> None:
        actor = self._actors.get(letter.task.task_id)
        if actor is not None and actor.finished_at:
            return
        if isinstance(waits_for, int):
            letter = replace(letter, turn=waits_for)
        self.aside[letter.task.task_id] = (session, letter, waits_for)

    async def release(self, tenant: str, task_id: str, run_id: str) -> Sequence[Letter]:
        own = self.aside.get(task_id)
        if own is not None and (own[1].turn is None or task_id in self.ended or task_id in self._actors):
            del self.aside[task_id]
        mine = [one for one in self.aside.values() if one[1].tenant == tenant and one[1].task.task_id != task_id]
        lines = [line for line, turns in self.turns.items() if task_id in turns]
        numbered = sorted(
            (letter.turn, session, letter)
            for session, letter, _ in mine
            if letter.turn is not None and (tenant, session) in lines and letter.task.task_id not in self._actors
        )
        first = [one[2] for one in numbered[:1] if not await self.waits(tenant, one[1], one[0])]
        return [*first, *(letter for _, letter, waits_for in mine if waits_for == run_id)]

    async def stalled(self, limit: int) -> Sequence[Stalled]:
        runs = {letter.task.run_id for _, letter, _ in self.aside.values()}
        found = [(session, after, letter) for session, letter, after in self.aside.values() if isinstance(after, str)]
        return [Stalled(*one) for one in found if one[1] not in runs][:limit]

    async def past(self, tenant: str, session: str, turn: int) -> Past:
        before = self.turns[tenant, session][: turn - 1]
        kept = [
            KeptTurn(number, self.ended[task_id].messages, self.ended[task_id].tokens)
            for number, task_id in enumerate(before, start=1)
            if task_id in self.ended
        ]
        recaps = [self.recaps[task_id] for task_id in before if task_id in self.recaps]
        return remembered(turn, kept, recaps[-1] if recaps else None)

    async def sum_up(self, tenant: str, task_id: str, recap: Recap) -> None:
        actor = self._actors.get(task_id)
        if (
            self._known(tenant, task_id)
            and task_id not in self.ended
            and actor is not None
            and actor.status == "running"
        ):
            self.recaps[task_id] = recap

    async def end(self, tenant: str, task_id: str, ending: Ending) -> None:
        if self._known(tenant, task_id) and task_id not in self.ended:
            self.ended[task_id] = ending
            if ending.recap is not None:
                self.recaps[task_id] = ending.recap

    def _known(self, tenant: str, task_id: str) -> bool:
        return any(task_id in turns for (owner, _), turns in self.turns.items() if owner == tenant)


class NoShelf:
    """Nothing is dropped: that is the adapter's, tested on PostgreSQL."""

    async def drop(self, tenant: str, run_ids: Sequence[str]) -> int:
        raise AssertionError(f"nothing of {tenant} is to be dropped: {run_ids}")


class NoSessionShelf:
    """No sessions to look at: that is the adapter's, tested on PostgreSQL."""

    async def list(self, tenant: str, cursor: str | None, limit: int) -> Sequence[SessionSummary]:
        raise AssertionError((tenant, cursor, limit))

    async def get(self, tenant: str, session: str) -> SessionSummary | None:
        raise AssertionError((tenant, session))

    async def recap(self, tenant: str, session: str) -> Recap | None:
        raise AssertionError((tenant, session))

    async def turns(self, tenant: str, session: str, after: int, limit: int) -> Sequence[SessionTurn]:
        raise AssertionError((tenant, session, after, limit))

    async def delete(self, tenant: str, session: str) -> bool:
        raise AssertionError((tenant, session))


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
