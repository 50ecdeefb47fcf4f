"""The other services that the runtime asks, over the bus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paracle_agent_runtime.ports import TURNS_TOLD
from paracle_agent_runtime.telemetry import SOURCE
from paracle_chassis.bus import Bus, Outgoing
from paracle_domain.budget.messages import ListBudgets, RaiseBudget
from paracle_domain.envelope import Context, Envelope
from paracle_domain.inference.ledger import QueryUsage, UsageTable
from paracle_domain.inference.request import AbortCall, Complete, abort_subject
from paracle_domain.inference.response import Completion
from paracle_domain.plan import Plan
from paracle_domain.run.commands import ApprovalView, AskForCall, GetPlan, WithdrawCall
from paracle_domain.task.events import Shortage
from paracle_domain.task.messages import Task
from paracle_domain.task.raising import has_room
from paracle_domain.task.sessions import ListTurnsBefore
from paracle_domain.task.wanted import ListWantedTasks, TaskPlace

_ANSWER_S: Final = 10.0
_GRACE_S: Final = 5.0


class RpcPlans:
    """`PlanSource`: the orchestrator."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def get(self, digest: str, context: Context) -> Plan:
        """See `PlanSource.get`."""
        return await self._bus.call(GetPlan(digest=digest), context, timeout_s=_ANSWER_S)


class RpcRuns:
    """`Runs`: the orchestrator."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def waits_for(self, tenant: str, run_id: str, tasks: Sequence[Task]) -> frozenset[str]:
        """See `Runs.waits_for`."""
        places = tuple(TaskPlace(task_id=one.task_id, step=one.step, attempt=one.attempt) for one in tasks)
        asked, context = ListWantedTasks(run_id=run_id, tasks=places), Context(tenant, correlation_id=run_id)
        return frozenset((await self._bus.call(asked, context, timeout_s=_ANSWER_S)).task_ids)


class RpcStarts:
    """`Starts`: the orchestrator."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def before(self, tenant: str, run_id: str) -> Sequence[str]:
        """See `Starts.before`."""
        asked, context = ListTurnsBefore(run_id=run_id, last=TURNS_TOLD), Context(tenant, correlation_id=run_id)
        return (await self._bus.call(asked, context, timeout_s=_ANSWER_S)).run_ids[-TURNS_TOLD:]


class RpcPeople:
    """`People`: whoever reads the orchestrator's list of approvals."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def ask(self, request: AskForCall, context: Context) -> ApprovalView:
        """See `People.ask`."""
        return await self._bus.call(request, context, timeout_s=_ANSWER_S)

    async def withdraw(self, approval_id: str, context: Context, task_id: str | None) -> None:
        """See `People.withdraw`."""
        await self._bus.call(WithdrawCall(approval_id=approval_id, task_id=task_id), context, timeout_s=_ANSWER_S)


class RpcBudgets:
    """`Budgets`: the provider gateway."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def raise_by(self, order: RaiseBudget, context: Context) -> None:
        """See `Budgets.raise_by`."""
        await self._bus.call(order, context, timeout_s=_ANSWER_S)

    async def has_room(self, short: Shortage, context: Context) -> bool:
        """See `Budgets.has_room`."""
        asked = ListBudgets(name=short.budget, subject=short.subject, subjects=1)
        return has_room(await self._bus.call(asked, context, timeout_s=_ANSWER_S), short)


class RpcUsage:
    """`UsageSource`: the provider gateway."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def table(self, request: QueryUsage, context: Context) -> UsageTable:
        """See `UsageSource.table`."""
        return await self._bus.call(request, context, timeout_s=_ANSWER_S)


class RpcModels:
    """`Models`: the provider gateway. It sends signs of life while a model thinks, so silence means that it is gone."""

    def __init__(self, bus: Bus, *, idle_s: float = 5.0) -> None:
        self._bus = bus
        self._idle_s = idle_s

    async def complete(self, request: Complete, context: Context) -> Completion:
        """See `Models.complete`."""
        return await self._bus.call(request, context, timeout_s=request.timeout_s + _GRACE_S, idle_s=self._idle_s)

    async def abort(self, call_id: str, context: Context) -> None:
        """See `Models.abort`."""
        message = AbortCall(call_id=call_id, reason="its task has ended")
        envelope = Envelope.wrap(message.type_name, SOURCE, context)
        await self._bus.broadcast(Outgoing(abort_subject(context.tenant), message, envelope))
