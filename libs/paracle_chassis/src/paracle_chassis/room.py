"""How much a mailbox may hold for its handler, and whether it is to take anything at all."""

from __future__ import annotations

from collections.abc import Callable


class Room:
    """Places for messages, as a handler has them that keeps what it gets for long.

    The mailbox asks for no more messages than there are free places, so that what does not fit goes to other replicas
    and waits in none of them. While the room is closed, it asks for none at all.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken = 0
        self._closed = False
        self._watch: Callable[[], None] = lambda: None
        self._quiet: Callable[[], bool] = lambda: True

    @property
    def free(self) -> int:
        """Places that nobody has."""
        return max(0, self.size - self._taken)

    @property
    def taken(self) -> int:
        """Places that somebody has."""
        return self._taken

    @property
    def closed(self) -> bool:
        """Whether nothing is taken."""
        return self._closed

    @property
    def quiet(self) -> bool:
        """Whether it is closed, and nothing is on its way any more that was asked for before."""
        return self._closed and self._quiet()

    def watched(self, watch: Callable[[], None], quiet: Callable[[], bool]) -> None:
        """Call `watch` whenever a place becomes free, or the room is opened or closed; `quiet` knows what may come."""
        self._watch, self._quiet = watch, quiet

    def enter(self) -> None:
        """Take a place. What was fetched before the room was full or closed may still come in."""
        self._taken += 1

    def leave(self) -> None:
        """Give a place back."""
        self._taken -= 1
        self._watch()

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True
        self._watch()

    def open(self) -> None:
        """Take messages again."""
        self._closed = False
        self._watch()
