"""A table of steps, or of a map's items, that costs what changes: a copy shares all but the chunks that were written.

A run of 10,000 steps, or a map of 100,000 items, is decided upon once for each of them; copying all of them each time
would make that quadratic. A table is written through a *token*, which stands for one decision: what was made with the
same token is changed in place, everything else is copied first. So nobody else ever sees a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol, Self, override

_BITS: Final = 7
_SIZE: Final = 1 << _BITS
_MASK: Final = _SIZE - 1

BLOCKED: Final = 1
READY: Final = 0


class Entry(Protocol):
    """What has begun, or has ended without beginning."""

    @property
    def ended(self) -> bool: ...


class _Chunk[E: Entry]:
    __slots__ = ("open", "ready", "slots", "token")

    def __init__(self, slots: list[E | int], ready: int, running: int, token: object) -> None:
        self.slots = slots
        self.ready = ready
        self.open = running
        self.token = token


class Table[E: Entry]:
    """Places 0, 1, …, each of which holds a number (of what it still waits for; 0: ready) or an entry.

    `ready`, `open` and `ended` count places; the chunks count theirs, so that a few are found among many.
    """

    __slots__ = ("chunks", "count", "ended", "open", "ready", "token")

    def __init__(self, chunks: list[_Chunk[E]], counts: tuple[int, int, int, int], token: object) -> None:
        self.chunks = chunks
        self.count, self.ready, self.open, self.ended = counts
        self.token = token

    @classmethod
    def of(cls, waiting: Iterable[int]) -> Self:
        """A table whose places wait for so many others."""
        slots: list[E | int] = list(waiting)
        parts = [slots[start : start + _SIZE] for start in range(0, len(slots), _SIZE)]
        chunks = [_Chunk(part, part.count(READY), 0, None) for part in parts]
        return cls(chunks, (len(slots), slots.count(READY), 0, 0), None)

    @classmethod
    def blocked(cls, count: int) -> Self:
        """A table of `count` places that are filled one by one."""
        full: _Chunk[E] = _Chunk([BLOCKED] * _SIZE, 0, 0, None)
        chunks = [full] * (count >> _BITS)
        if count & _MASK:
            chunks.append(_Chunk([BLOCKED] * (count & _MASK), 0, 0, None))
        return cls(chunks, (count, 0, 0, 0), None)

    def __getitem__(self, place: int) -> E | int:
        return self.chunks[place >> _BITS].slots[place & _MASK]

    def entry(self, place: int) -> E | None:
        """The entry at `place`, if it holds one."""
        found = self.chunks[place >> _BITS].slots[place & _MASK]
        return None if isinstance(found, int) else found

    def put(self, place: int, value: E | int, token: object) -> Self:
        """The table with `value` at `place`: this one, if it was made with `token`."""
        if self.token is not token:
            counts = (self.count, self.ready, self.open, self.ended)
            return type(self)(self.chunks.copy(), counts, token).put(place, value, token)
        chunk = self.chunks[place >> _BITS]
        if chunk.token is not token:
            chunk = _Chunk(chunk.slots.copy(), chunk.ready, chunk.open, token)
            self.chunks[place >> _BITS] = chunk
        self._count(chunk, chunk.slots[place & _MASK], -1)
        self._count(chunk, value, 1)
        chunk.slots[place & _MASK] = value
        return self

    def _count(self, chunk: _Chunk[E], value: E | int, by: int) -> None:
        if isinstance(value, int):
            if value == READY:
                chunk.ready += by
                self.ready += by
        elif value.ended:
            self.ended += by
        else:
            chunk.open += by
            self.open += by

    def ready_places(self) -> Iterator[int]:
        """Places that wait for nothing and have not begun, in order; found without looking at every place."""
        for number, chunk in enumerate(self.chunks):
            if chunk.ready:
                for at, value in enumerate(chunk.slots):
                    if isinstance(value, int) and value == READY:
                        yield (number << _BITS) + at

    def open_entries(self) -> Iterator[tuple[int, E]]:
        """What has begun and not ended, in order, with its places; found without looking at every place."""
        for number, chunk in enumerate(self.chunks):
            if chunk.open:
                for at, value in enumerate(chunk.slots):
                    if not isinstance(value, int) and not value.ended:
                        yield (number << _BITS) + at, value

    def __iter__(self) -> Iterator[E | int]:
        for chunk in self.chunks:
            yield from chunk.slots

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it can change while it is being made
