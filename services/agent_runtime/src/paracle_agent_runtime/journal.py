"""The histories of tasks, written many at a time; outages of the store are waited out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paracle_chassis.batching import Batches
from paracle_chassis.event_store import Append, EventStore, Loaded
from paracle_chassis.outages import outlast

_WHO: Final = "the journal"


class Journal:
    """An `EventStore` for many concurrent tasks: what they write and read at the same time is one round trip."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._append = Batches(self._append_all)
        self._load = Batches(self._load_all)

    async def load(self, task_id: str) -> Loaded | None:
        """The task's history, if it has one."""
        return await self._load(task_id)

    async def append(self, append: Append) -> bool:
        """Write `append`; false if the task has moved on since, and nothing was written."""
        return await self._append(append)

    async def _append_all(self, appends: Sequence[Append]) -> Sequence[bool]:
        unique = {append.id: append for append in appends}
        late = [append for append in appends if unique[append.id] is not append]
        tries = 0

        async def write() -> set[str]:
            nonlocal tries
            tries += 1
            return await self._store.append(list(unique.values()))

        refused = await outlast(write, _WHO)
        if refused and tries > 1:
            refused -= await self._written_after_all([unique[task_id] for task_id in refused])
        return [append.id not in refused and not any(append is other for other in late) for append in appends]

    async def _written_after_all(self, appends: Sequence[Append]) -> set[str]:
        """Those that an earlier try wrote, whose answer was lost with the connection."""
        seen = {append.id: append.expected for append in appends}
        found = await outlast(lambda: self._store.load(seen, seen), _WHO)
        return {a.id for a in appends if a.id in found and found[a.id].pages[: len(a.pages)] == a.pages}

    async def _load_all(self, ids: Sequence[str]) -> Sequence[Loaded | None]:
        found = await outlast(lambda: self._store.load(set(ids)), _WHO)
        return [found.get(task_id) for task_id in ids]
