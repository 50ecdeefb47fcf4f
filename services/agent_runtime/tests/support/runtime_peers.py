"""Whom the runtime asks in its tests: an orchestrator with one plan, and a gateway with a script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from runtime_plan import PLAN

from paracle_chassis.routes import Routes
from paracle_domain.budget.messages import BudgetList, BudgetUse, BudgetView, ListBudgets, RaiseBudget
from paracle_domain.budget.spec import Budget, OnHit
from paracle_domain.envelope import Context
from paracle_domain.errors import NotFound, ParacleError, Unavailable
from paracle_domain.inference.chat import ChatMessage, ToolCallPart
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import Done, JsonObject
from paracle_domain.plan import Plan
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, AskForCall, GetPlan, WithdrawCall
from paracle_domain.run.deciding import asked, withdrawn
from paracle_domain.task.sessions import ListTurnsBefore, TurnsBefore
from paracle_domain.task.wanted import ListWantedTasks, WantedTasks


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
