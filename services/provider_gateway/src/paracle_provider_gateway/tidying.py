"""Giving memory back after a burst of calls: what is kept of them for a while goes in time, then the system has it.

Freed memory stays with the process otherwise: it looks, and is charged for, as large as it once had to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

EVERY_S: Final = 10.0
BURST: Final = 500
"""So many calls at once leave something that is worth to be given back."""
_QUIET: Final = 50
_QUIET_ROUNDS: Final = 6
"""A minute: connections to providers are closed by then."""


class Kept(Protocol):
    """Keeps something for a while."""

    def forget(self) -> None:
        """Drop what was kept long enough, though nobody asks for anything."""


class Calls(Kept, Protocol):
    """Those of this replica."""

    def most_in_air(self) -> int:
        """How many there were at once since this was asked last."""


class Tidying:
    """`round` is that of a `Background`. `give_back` takes a tenth of a second, for which few calls are to wait."""

    def __init__(self, calls: Calls, settled: Kept, give_back: Callable[[], None]) -> None:
        self._calls = calls
        self._settled = settled
        self._give_back = give_back
        self._owes = False
        self._quiet = 0

    async def round(self) -> None:
        """See above."""
        self._calls.forget()
        self._settled.forget()
        most = self._calls.most_in_air()
        self._owes |= most >= BURST
        self._quiet = self._quiet + 1 if most <= _QUIET else 0
        if self._owes and self._quiet >= _QUIET_ROUNDS:
            self._owes = False
            self._give_back()
