"""Kept answers: where all replicas keep them, and a little memory before that."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

_BESIDES: Final = 600
"""About what an answer in memory takes besides its bytes."""


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """Whose answer it is, and to which question."""

    tenant: str
    question: bytes


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as bytes, when it was made, and until when it is kept: by the clock of this process."""

    body: bytes
    made_at: float
    expires_at: float


class AnswerStore(Protocol):
    """Where all replicas keep answers. It may lose any of them at any time."""

    async def find(self, keys: Sequence[AnswerKey]) -> Sequence[KeptAnswer | None]:
        """What is kept under each of the keys; what has expired is not."""

    async def keep(self, answers: Sequence[tuple[AnswerKey, KeptAnswer]]) -> None:
        """Keep these, each under a key of its own; of two under one key the younger stays."""

    async def clear(self, tenant: str) -> int:
        """Drop the answers of a tenant; how many there were."""


class AnswerMemory:
    """Answers within `most` bytes. Who has most of them gives way first, with what was not asked for longest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[str, OrderedDict[AnswerKey, KeptAnswer]] = {}
        self._bytes: dict[str, int] = {}
        self._total = 0

    @property
    def total(self) -> int:
        """Bytes that it takes, about."""
        return self._total

    def get(self, key: AnswerKey) -> KeptAnswer | None:
        """What is kept under `key`, whether it has expired or not."""
        shelf = self._of.get(key.tenant)
        found = None if shelf is None else shelf.get(key)
        if shelf is not None and found is not None:
            shelf.move_to_end(key)
        return found

    def put(self, key: AnswerKey, answer: KeptAnswer) -> None:
        """Keep `answer`, instead of what was there."""
        self._drop(key)
        self._of.setdefault(key.tenant, OrderedDict())[key] = answer
        self._weigh(key.tenant, _size(answer))
        while self._total > self._most:
            fattest = max(self._bytes, key=self._bytes.__getitem__)
            self._drop(next(iter(self._of[fattest])))

    def forget(self, tenant: str) -> None:
        """Drop what a tenant has."""
        self._of.pop(tenant, None)
        self._total -= self._bytes.pop(tenant, 0)

    def clear(self) -> None:
        """Drop everything."""
        for tenant in list(self._of):
            self.forget(tenant)

    def _drop(self, key: AnswerKey) -> None:
        shelf = self._of.get(key.tenant)
        if shelf is None or (dropped := shelf.pop(key, None)) is None:
            return
        self._weigh(key.tenant, -_size(dropped))
        if not shelf:
            self.forget(key.tenant)

    def _weigh(self, tenant: str, more: int) -> None:
        self._bytes[tenant] = self._bytes.get(tenant, 0) + more
        self._total += more


def _size(answer: KeptAnswer) -> int:
    return len(answer.body) + _BESIDES
