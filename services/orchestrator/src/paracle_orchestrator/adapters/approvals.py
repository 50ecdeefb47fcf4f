"""The list of approvals in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self, override

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.cursors import read_cursor, write_cursor
from paracle_domain.envelope import Context
from paracle_domain.ids import parse_id
from paracle_domain.run.commands import ApprovalPage, ApprovalStatus, ApprovalView, ListApprovals
from paracle_orchestrator.ports import Shown, newest

_OPEN: Final = {True: "open", False: "ended"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an approval is in the order of lists."""

    open: bool
    at: datetime
    id: str

    @override
    def __str__(self) -> str:
        return write_cursor(self.at, _OPEN[self.open], self.id)

    @classmethod
    def of(cls, approval: ApprovalView) -> Self:
        return cls(approval.status is ApprovalStatus.OPEN, approval.asked_at, approval.approval_id)

    @classmethod
    def parse(cls, cursor: str) -> Self:
        """The place that a cursor stands for.

        Raises
        ------
        InvalidInput
            If it is none.
        """
        return read_cursor(cursor, cls._read)

    @classmethod
    def _read(cls, at: datetime, words: Sequence[str]) -> Self:
        status, approval_id = words
        return cls(status == _OPEN[True], at, parse_id(approval_id, "apr"))


class PostgresApprovals:
    """`Approvals` on the table `approvals`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def show(self, approvals: Sequence[Shown]) -> None:
        """See `Approvals.show`."""
        rows = [_row(one) for one in newest(approvals)]
        if rows:
            await self._pool.execute(self._queries["show_approvals"], *map(list, zip(*rows, strict=True)))

    async def get(self, tenant: str, approval_id: str) -> ApprovalView | None:
        """See `Approvals.get`."""
        document = await self._pool.fetchval(self._queries["get_approval"], tenant, approval_id)
        return None if document is None else ApprovalView.model_validate_json(document)

    async def left_open(self, after: str, limit: int) -> list[tuple[str, str]]:
        """See `Approvals.left_open`."""
        rows = await self._pool.fetch(self._queries["left_open_approvals"], after, limit)
        return [(row[0], row[1]) for row in rows]

    async def page(self, query: ListApprovals, call: Context) -> ApprovalPage:
        """See `Approvals.page`."""
        place = None if query.cursor is None else Place.parse(query.cursor)
        rows = await self._pool.fetch(
            self._queries["list_approvals"],
            call.tenant,
            query.status,
            query.run_id,
            query.workflow,
            query.approver,
            call.principal if query.mine else None,
            list(call.roles),
            None if place is None else place.open,
            None if place is None else place.at,
            None if place is None else place.id,
            query.limit + 1,
        )
        found = tuple(ApprovalView.model_validate_json(row[0]) for row in rows[: query.limit])
        more = len(rows) > query.limit
        return ApprovalPage(approvals=found, next_cursor=str(Place.of(found[-1])) if more else None)


def _row(shown: Shown) -> tuple[object, ...]:
    approval = shown.approval
    who = (approval.principals, approval.roles, [made.principal for made in approval.decisions])
    return (
        approval.approval_id,
        shown.tenant,
        approval.run_id,
        shown.version,
        approval.workflow,
        approval.status.value,
        approval.asked_at,
        approval.requested_by,
        approval.own,
        json.dumps(who),
        approval.model_dump_json(),
    )
