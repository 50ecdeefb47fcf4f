"""The builtin function `spend`: own and children's, of one run and one tenant."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from tool_bench import caller, planned

from paracle_agent_runtime.tools.builtin.acting import Call
from paracle_agent_runtime.tools.builtin.spending import Spending
from paracle_agent_runtime.tools.permissions import Grants
from paracle_agent_runtime.tools.workers import Caller
from paracle_domain.envelope import Context
from paracle_domain.errors import InputInvalid
from paracle_domain.ids import id_from_key
from paracle_domain.inference.ledger import QueryUsage, Spend, UsageBy, UsageRow, UsageTable

OWN, CHILD, GRANDCHILD, OTHER = (id_from_key("task", name) for name in ("own", "child", "grandchild", "other"))


class Ledger:
    """Answers with these tables in turn, the last one again and again."""

    def __init__(self, *tables: tuple[UsageRow, ...]) -> None:
        self.tables = list(tables)
        self.more = False
        self.asked: list[tuple[QueryUsage, Context]] = []

    async def table(self, request: QueryUsage, context: Context) -> UsageTable:
        self.asked.append((request, context))
        rows = self.tables.pop(0) if len(self.tables) > 1 else self.tables[0]
        return UsageTable(rows=rows, total=Spend(), more=self.more)


def row(task: str, parent: str | None, agent: str, cost: str, **more: Any) -> UsageRow:
    by = {UsageBy.TASK: task, UsageBy.AGENT: agent} | ({} if parent is None else {UsageBy.PARENT_TASK: parent})
    return UsageRow(by=by, spend=Spend(attempts=1, input_tokens=10, cost_usd=Decimal(cost), **more))


ROWS = (
    row(OWN, None, "boss", "0.10"),
    row(OTHER, None, "stranger", "9"),
    row(GRANDCHILD, CHILD, "writer", "0.03", failed=1),
    row(CHILD, OWN, "helper", "0.02"),
)


def asked_by(kind: str = "agent") -> Caller:
    given = caller()
    return replace(given, task=given.task.model_copy(update={"task_id": OWN, "target_kind": kind}))


async def spend(ledger: Ledger, by: Caller, **arguments: Any) -> Any:
    grants = Grants("spend", planned().spec.permissions, None, {})  # type: ignore[arg-type]  # it touches no file
    return await Spending(ledger).functions["spend"](Call(arguments, {}, grants, None, 5.0, by))


async def test_an_agent_sees_what_it_and_all_below_it_used_and_nobody_elses():
    ledger, by = Ledger(ROWS), asked_by()
    told = await spend(ledger, by)
    assert (told["own"]["cost_usd"], told["total"]["cost_usd"]) == ("0.10", "0.15")
    assert [(one["agent"], one["cost_usd"], one["task_id"]) for one in told["below"]] == [
        ("helper", "0.02", CHILD),
        ("writer", "0.03", GRANDCHILD),
    ]
    assert (told["total"]["attempts"], told["total"]["failed"], told["total"]["input_tokens"]) == (3, 1, 30)
    [(request, context)] = ledger.asked
    assert (request.run_id, context.tenant) == (by.task.run_id, "acme")


async def test_a_step_that_is_a_tool_sees_its_run():
    told = await spend(Ledger(ROWS), asked_by("tool"))
    assert (told["own"]["attempts"], told["total"]["cost_usd"], len(told["below"])) == (0, "9.15", 4)


async def test_what_no_task_asked_for_is_counted_once():
    asked_by_nobody = UsageRow(by={}, spend=Spend(attempts=1, cost_usd=Decimal("0.5")))
    told = await spend(Ledger((*ROWS, asked_by_nobody)), asked_by("tool"))
    assert (told["own"]["attempts"], told["total"]["attempts"], told["total"]["cost_usd"]) == (0, 5, "9.65")


@pytest.mark.parametrize("more", [False, True])
async def test_it_says_so_where_not_all_is_counted(more: bool):
    ledger = Ledger(ROWS)
    ledger.more = more
    assert (await spend(ledger, asked_by()))["more"] is more


async def test_what_is_still_being_entered_is_waited_for_but_not_for_ever():
    entering = (row(OWN, None, "boss", "0", open=1, reserved_usd=Decimal("0.5")),)
    assert (await spend(Ledger(entering, entering, ROWS), asked_by()))["own"]["cost_usd"] == "0.10"
    assert (await spend(Ledger(entering), asked_by()))["own"]["reserved_usd"] == "0.5"


async def test_it_takes_no_arguments():
    with pytest.raises(InputInvalid, match="run_id"):
        await spend(Ledger(ROWS), asked_by(), run_id="run_x")
