"""Use cases: what model calls used, as people ask for it."""

from __future__ import annotations

from typing import Protocol

from paracle_domain.envelope import Context
from paracle_domain.inference.ledger import ListAttempts, QueryUsage, UsageRecords, UsageTable


class UsageShelf(Protocol):
    """The usage ledger, read."""

    async def table(self, tenant: str, asked: QueryUsage) -> UsageTable:
        """What the tenant's attempts used, added up."""
        ...

    async def records(self, tenant: str, asked: ListAttempts) -> UsageRecords:
        """The tenant's attempts one by one. Raises `InvalidInput` if the cursor is none."""
        ...


class UsageDesk:
    """Answers questions about usage: each tenant's about its own."""

    def __init__(self, shelf: UsageShelf) -> None:
        self._shelf = shelf

    async def query_usage(self, request: QueryUsage, context: Context) -> UsageTable:
        return await self._shelf.table(context.tenant, request)

    async def list_attempts(self, request: ListAttempts, context: Context) -> UsageRecords:
        return await self._shelf.records(context.tenant, request)
