"""The builtin function `spend`: what the model calls of an agent used, and of all whom it turned to.

It asks the gateway's ledger, so attempts that failed and those in the air are counted, too. It sees one run, and of
that only the task that asks and the tasks below it; a step that is a tool sees its run, which has no other eyes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from pydantic import JsonValue

from paracle_agent_runtime.tools.builtin.acting import Acting, Call
from paracle_agent_runtime.tools.builtin.arguments import Arguments
from paracle_agent_runtime.tools.workers import Caller
from paracle_domain.envelope import Context
from paracle_domain.inference.ledger import MOST_ROWS, QueryUsage, Spend, UsageBy, UsageRow, UsageTable
from paracle_domain.messages import JsonObject

_BY: Final = (UsageBy.TASK, UsageBy.PARENT_TASK, UsageBy.AGENT)
_PAUSES_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4)


class UsageSource(Protocol):
    """Who keeps the usage ledger."""

    async def table(self, request: QueryUsage, context: Context) -> UsageTable:
        """What model calls used."""
        ...


class _Spend(Arguments):
    pass


class Spending:
    """`spend`, which takes no arguments: whose spend it is follows from who calls."""

    def __init__(self, usage: UsageSource) -> None:
        self._usage = usage
        self.functions: Mapping[str, Acting] = {"spend": self.spend}

    async def spend(self, call: Call) -> JsonValue:
        """What the caller used, what each agent below it did, and all of them together.

        `more`: the run has more agents than are counted, which are those that cost most.
        """
        _Spend.take(call.arguments)
        table = await self._settled(call.caller)
        own, below = _shares(call.caller, table.rows)
        return {
            "own": _told(_sum(row.spend for row in own)),
            "below": [_row(row) for row in below],
            "total": _told(_sum(row.spend for row in (*own, *below))),
            "more": table.more,
        }

    async def _settled(self, caller: Caller) -> UsageTable:
        """The ledger is written behind the answers of models, and whoever calls a tool asks none: it is waited for."""
        asked = QueryUsage(by=_BY, run_id=caller.task.run_id, limit=MOST_ROWS)
        table = await self._usage.table(asked, caller.context)
        for pause in _PAUSES_S:
            if not any(row.spend.open for row in table.rows if row.by.get(UsageBy.TASK) == caller.task.task_id):
                break
            await asyncio.sleep(pause)
            table = await self._usage.table(asked, caller.context)
        return table


def _shares(caller: Caller, rows: Sequence[UsageRow]) -> tuple[Sequence[UsageRow], Sequence[UsageRow]]:
    """The rows of the caller itself, and of those below it. A step that is a tool has none itself, and all below."""
    if caller.task.target_kind != "agent":
        return (), rows
    root = caller.task.task_id
    return [row for row in rows if row.by.get(UsageBy.TASK) == root], _below(root, rows)


def _below(root: str, rows: Iterable[UsageRow]) -> list[UsageRow]:
    """The rows of tasks below `root`: each task that has one has made calls, and so has its parent."""
    children: dict[str, list[UsageRow]] = {}
    for row in rows:
        children.setdefault(row.by.get(UsageBy.PARENT_TASK, ""), []).append(row)
    found: list[UsageRow] = []
    ahead = [root]
    while ahead:
        for row in children.pop(ahead.pop(), ()):
            found.append(row)
            ahead.append(row.by.get(UsageBy.TASK, ""))
    return found


def _sum(spends: Iterable[Spend]) -> Spend:
    total = Spend()
    for one in spends:
        total = Spend(
            attempts=total.attempts + one.attempts,
            failed=total.failed + one.failed,
            open=total.open + one.open,
            input_tokens=total.input_tokens + one.input_tokens,
            output_tokens=total.output_tokens + one.output_tokens,
            cost_usd=total.cost_usd + one.cost_usd,
            unpriced=total.unpriced + one.unpriced,
            reserved_usd=total.reserved_usd + one.reserved_usd,
        )
    return total


def _row(row: UsageRow) -> JsonObject:
    return {"agent": row.by.get(UsageBy.AGENT), "task_id": row.by.get(UsageBy.TASK), **_told(row.spend)}


def _told(spend: Spend) -> JsonObject:
    """What an agent makes something of. `unpriced` attempts cost something that nobody knows."""
    return {
        "cost_usd": f"{spend.cost_usd:f}",
        "reserved_usd": f"{spend.reserved_usd:f}",
        "attempts": spend.attempts,
        "failed": spend.failed,
        "open": spend.open,
        "unpriced": spend.unpriced,
        "input_tokens": spend.input_tokens,
        "output_tokens": spend.output_tokens,
    }
