"""Worker pools of tests: the book in a dictionary, and a queue of so many tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paracle_agent_runtime.ports import Backlog, Worker
from paracle_domain.task.pools import Drain


class MemoryPoolBook:
    """Drains in a dictionary that several runtimes of a test share, and the workers that a test names."""

    def __init__(self, *found: Worker) -> None:
        self.found: Sequence[Worker] = found
        self._drains: dict[str, Drain] = {}
        self._numbers: dict[str, int] = {}
        self.turns: dict[tuple[str, str], int] = {}

    async def drains(self) -> Mapping[str, Drain]:
        return dict(self._drains)

    async def drain(self, pool: str, drain: Drain) -> int | None:
        return None if self._drains.setdefault(pool, drain) is not drain else self._next(pool)

    async def resume(self, pool: str) -> int | None:
        return None if self._drains.pop(pool, None) is None else self._next(pool)

    async def number(self, pool: str) -> int | None:
        return self._numbers.get(pool)

    async def aside(self, tenant: str | None) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for (owner, pool), number in self.turns.items():
            if tenant in (None, owner):
                found[pool] = found.get(pool, 0) + number
        return found

    async def workers(self) -> Sequence[Worker]:
        return self.found

    def _next(self, pool: str) -> int:
        self._numbers[pool] = self._numbers.get(pool, 0) + 1
        return self._numbers[pool]


class MemoryTaskQueue:
    """So many messages by tenant and pool, and consumers by pool."""

    def __init__(
        self, messages: Mapping[tuple[str, str], int] | None = None, consumers: Mapping[str, Backlog] | None = None
    ) -> None:
        self._messages = messages or {}
        self._consumers = consumers or {}

    async def sizes(self, tenant: str | None) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for (owner, pool), number in self._messages.items():
            if tenant in (None, owner):
                found[pool] = found.get(pool, 0) + number
        return found

    async def backlogs(self) -> Mapping[str, Backlog]:
        return self._consumers
