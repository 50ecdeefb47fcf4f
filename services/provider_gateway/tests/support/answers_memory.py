"""Kept answers in memory, shared by as many replicas as a test wants."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from paracle_provider_gateway.answers import AnswerKey, KeptAnswer


class MemoryAnswers:
    """An `AnswerStore`. Its next calls fail with `failures`; it counts the keys of each look-up."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.kept: dict[AnswerKey, KeptAnswer] = {}
        self.failures: list[Exception] = []
        self.looked_up: list[int] = []
        self._clock = clock

    async def find(self, keys: Sequence[AnswerKey]) -> Sequence[KeptAnswer | None]:
        self.looked_up.append(len(keys))
        self._fail()
        now = self._clock()
        return [found if found and found.expires_at > now else None for found in map(self.kept.get, keys)]

    async def keep(self, answers: Sequence[tuple[AnswerKey, KeptAnswer]]) -> None:
        self._fail()
        for key, answer in answers:
            before = self.kept.get(key)
            if before is None or before.made_at <= answer.made_at:
                self.kept[key] = answer

    async def clear(self, tenant: str) -> int:
        self._fail()
        gone = [key for key in self.kept if key.tenant == tenant]
        for key in gone:
            del self.kept[key]
        return len(gone)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
