"""A table of steps, or of a map's items, that costs what changes: a copy shares all but the nodes that were written.

A run of 10,000 steps, or a map of 100,000 items, is decided upon once for each of them; copying all of them each time
would make that quadratic. A table is written through a *token*, which stands for one decision: what was made with the
same token is changed in place, everything else is copied first. So nobody else ever sees a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, Self, override

_BITS: Final = 5
_SIZE: Final = 1 << _BITS
_MASK: Final = _SIZE - 1

BLOCKED: Final = 1
READY: Final = 0


class Entry(Protocol):
    """What has begun, or has ended without beginning."""

    @property
    def ended(self) -> bool: ...


class _Node[E: Entry]:
    """Up to `_SIZE` places, or nodes with places below them; how many of them are ready, and how many open."""

    __slots__ = ("below", "open", "ready", "slots", "token")

    def __init__(
        self, slots: list[E | int], below: list[_Node[E]] | None, ready: int, running: int, token: object
    ) -> None:
        self.slots = slots
        self.below = below
        self.ready = ready
        self.open = running
        self.token = token

    def copy(self, token: object) -> _Node[E]:
        below = None if self.below is None else self.below.copy()
        return _Node(self.slots.copy(), below, self.ready, self.open, token)


class Table[E: Entry]:
    """Places 0, 1, …, each of which holds a number (of what it still waits for; 0: ready) or an entry.

    It is a tree of nodes with 32 branches: writing copies the few nodes above a place, and counting what is ready and
    open in each node finds those few places among many. `ready`, `open` and `ended` count all places.
    """

    __slots__ = ("_root", "_shift", "_token", "count", "ended", "open", "ready")

    def __init__(self, root: _Node[E], shift: int, counts: tuple[int, int, int, int], token: object) -> None:
        self._root = root
        self._shift = shift
        self._token = token
        self.count, self.ready, self.open, self.ended = counts

    @classmethod
    def of(cls, waiting: Iterable[int]) -> Self:
        """A table whose places wait for so many others."""
        slots: list[E | int] = list(waiting)
        nodes: list[_Node[E]] = []
        for start in range(0, len(slots) or 1, _SIZE):
            part = slots[start : start + _SIZE]
            nodes.append(_Node(part, None, part.count(READY), 0, None))
        return cls(*_rooted(nodes), (len(slots), slots.count(READY), 0, 0), None)

    @classmethod
    def blocked(cls, count: int) -> Self:
        """A table of `count` places that are filled one by one."""
        full: _Node[E] = _Node([BLOCKED] * _SIZE, None, 0, 0, None)
        nodes = [full] * (count >> _BITS)
        if count & _MASK or not nodes:
            nodes.append(_Node([BLOCKED] * (count & _MASK), None, 0, 0, None))
        return cls(*_rooted(nodes), (count, 0, 0, 0), None)

    def __getitem__(self, place: int) -> E | int:
        node, shift = self._root, self._shift
        while node.below is not None:
            node = node.below[(place >> shift) & _MASK]
            shift -= _BITS
        return node.slots[place & _MASK]

    def entry(self, place: int) -> E | None:
        """The entry at `place`, if it holds one."""
        found = self[place]
        return None if isinstance(found, int) else found

    def put(self, place: int, value: E | int, token: object) -> Self:
        """The table with `value` at `place`: this one, if it was made with `token`."""
        if self._token is not token:
            counts = (self.count, self.ready, self.open, self.ended)
            return type(self)(self._root, self._shift, counts, token).put(place, value, token)
        was_ready, was_open, was_ended = _counts(self[place])
        ready, running, ended = _counts(value)
        ready -= was_ready
        running -= was_open
        self.ready += ready
        self.open += running
        self.ended += ended - was_ended
        node = self._root = self._root if self._root.token is token else self._root.copy(token)
        shift = self._shift
        while True:
            node.ready += ready
            node.open += running
            if node.below is None:
                node.slots[place & _MASK] = value
                return self
            at = (place >> shift) & _MASK
            child = node.below[at]
            if child.token is not token:
                child = node.below[at] = child.copy(token)
            node = child
            shift -= _BITS

    def ready_places(self) -> Iterator[int]:
        """Places that wait for nothing and have not begun, in order; found without looking at every place."""
        for start, node in self._leaves(lambda node: node.ready > 0):
            for at, value in enumerate(node.slots):
                if isinstance(value, int) and value == READY:
                    yield start + at

    def open_entries(self) -> Iterator[tuple[int, E]]:
        """What has begun and not ended, in order, with its places; found without looking at every place."""
        for start, node in self._leaves(lambda node: node.open > 0):
            for at, value in enumerate(node.slots):
                if not isinstance(value, int) and not value.ended:
                    yield start + at, value

    def __iter__(self) -> Iterator[E | int]:
        for _, node in self._leaves(lambda _: True):
            yield from node.slots

    def _leaves(self, wanted: Callable[[_Node[E]], bool]) -> Iterator[tuple[int, _Node[E]]]:
        """Nodes with places of their own, and the first of these, where all nodes above are `wanted` too."""
        ahead = [(0, self._shift, self._root)]
        while ahead:
            start, shift, node = ahead.pop()
            if not wanted(node):
                continue
            if node.below is None:
                yield start, node
                continue
            below = [(start + (at << shift), shift - _BITS, child) for at, child in enumerate(node.below)]
            ahead.extend(reversed(below))

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it can change while it is being made


def _rooted[E: Entry](nodes: list[_Node[E]]) -> tuple[_Node[E], int]:
    """One node above all `nodes`, and the shift that picks its branches."""
    shift = 0
    while len(nodes) > 1:
        groups = [nodes[start : start + _SIZE] for start in range(0, len(nodes), _SIZE)]
        nodes = [_Node([], group, sum(node.ready for node in group), 0, None) for group in groups]
        shift += _BITS
    return nodes[0], shift


def _counts(value: Entry | int) -> tuple[int, int, int]:
    """How much `value` counts as ready, as open and as ended."""
    if isinstance(value, int):
        return _COUNTS_READY if value == READY else _COUNTS_NOTHING
    return _COUNTS_ENDED if value.ended else _COUNTS_OPEN


_COUNTS_NOTHING: Final = (0, 0, 0)
_COUNTS_READY: Final = (1, 0, 0)
_COUNTS_OPEN: Final = (0, 1, 0)
_COUNTS_ENDED: Final = (0, 0, 1)
