"""The cache's own work: answers are looked up in batches, and kept behind those who get them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self
from weakref import WeakValueDictionary

from paracle_chassis import outages
from paracle_chassis.batching import Batches
from paracle_provider_gateway.answers import AnswerKey, AnswerMemory, AnswerStore, KeptAnswer

_log = logging.getLogger(__name__)

_BATCH: Final = 256
_MOST_WAITING: Final = 1_024
_LOOK_S: Final = 1.0
_FLUSH_S: Final = 2.0


@dataclass(slots=True, weakref_slot=True)
class Era:
    """The time till a tenant's answers are dropped: what was asked for in one that is `over` is not kept."""

    over: bool = False


class AnswerShelf:
    """A resource: finds answers and keeps them, as well as it can; nobody fails for want of it.

    Parameters
    ----------
    largest
        Bytes of an answer that is still kept.
    missed
        Told that the store could not be asked, or does not have what it was to keep.
    """

    def __init__(
        self,
        store: AnswerStore,
        memory: AnswerMemory,
        *,
        largest: int,
        clock: Callable[[], float],
        missed: Callable[[], None],
    ) -> None:
        self._store = store
        self._memory = memory
        self._largest = largest
        self._clock = clock
        self._missed = missed
        self._lookups: Batches[AnswerKey, KeptAnswer | None] = Batches(store.find, most=_BATCH)
        self._eras = WeakValueDictionary[str, Era]()
        self._waiting: dict[AnswerKey, KeptAnswer] = {}
        self._writing: asyncio.Task[None] | None = None

    def era(self, tenant: str) -> Era:
        """The present one of a tenant; it is known for as long as somebody holds it."""
        era = self._eras.get(tenant)
        if era is None:
            era = self._eras[tenant] = Era()
        return era

    async def find(self, key: AnswerKey, oldest: float) -> KeptAnswer | None:
        """What is kept under `key`, if it was made at `oldest` or later."""
        held = self._memory.get(key)
        if held is not None and held.expires_at > self._clock() and held.made_at >= oldest:
            return held
        era = self.era(key.tenant)
        found = await self._look_up(key)
        if found is None or found.made_at < oldest:
            return None
        if not era.over:
            self._memory.put(key, found)
        return found

    def keep(self, key: AnswerKey, answer: KeptAnswer, era: Era) -> None:
        """Keep `answer`, which was asked for in `era`; it is not waited for.

        It is not kept if it is too large, or too many wait to be kept.
        """
        if era.over or len(answer.body) > self._largest or len(self._waiting) >= _MOST_WAITING:
            return
        self._memory.put(key, answer)
        self._waiting[key] = answer
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="answers")

    async def clear(self, tenant: str) -> int:
        """Drop the answers of a tenant; how many there were."""
        self.forget(tenant)
        cleared = await self._store.clear(tenant)
        self.forget(tenant)  # what was looked up meanwhile
        return cleared

    def forget(self, tenant: str) -> None:
        """A tenant's answers were dropped."""
        era = self._eras.pop(tenant, None)
        if era is not None:
            era.over = True
        self._memory.forget(tenant)
        self._waiting = {key: answer for key, answer in self._waiting.items() if key.tenant != tenant}

    def doubt(self) -> None:
        """It may have been missed that a tenant's answers were dropped."""
        for era in self._eras.values():
            era.over = True
        self._eras.clear()
        self._memory.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._writing is not None:
            _, late = await asyncio.wait((self._writing,), timeout=_FLUSH_S)
            for task in late:
                task.cancel()

    async def _look_up(self, key: AnswerKey) -> KeptAnswer | None:
        try:
            async with asyncio.timeout(_LOOK_S):
                return await self._lookups(key)
        except Exception as error:  # noqa: BLE001  # told; the model is asked instead
            self._tell("answers cannot be looked up", error)
            return None

    async def _write(self) -> None:
        while self._waiting:
            batch = [(key, self._waiting.pop(key)) for key in list(self._waiting)[:_BATCH]]
            try:
                await self._store.keep(batch)
            except Exception as error:  # noqa: BLE001  # told; they are made once more when they are asked for
                self._tell(f"{len(batch)} answers are not kept", error)
        self._writing = None

    def _tell(self, what: str, error: Exception) -> None:
        self._missed()
        if outages.is_outage(error) or isinstance(error, TimeoutError):
            _log.warning("%s: %s: %s", what, type(error).__name__, error)
        else:
            _log.error("%s", what, exc_info=error)
