"""Answers that need not be kept any longer go, and the memory of the calls with them: `round` is a `Background`'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paracle_provider_gateway.calls import CallTable
from paracle_provider_gateway.outflow import Outflow

EVERY_S: Final = 30.0
_MANY: Final = 1_000


class Tidying:
    """Forgets old answers and settlements; after many, once no call is in the air, the system gets their memory back.

    What is kept of a burst lies between what is not, so little can be given back before.
    """

    def __init__(self, calls: CallTable, outflow: Outflow, give_back: Callable[[], None]) -> None:
        self._calls = calls
        self._outflow = outflow
        self._give_back = give_back
        self._most = 0

    async def round(self) -> None:
        """See above."""
        self._most = max(self._most, self._calls.answers)
        self._calls.forget()
        self._outflow.forget()
        left = self._calls.answers
        if self._most - left >= _MANY and not self._calls.in_air:
            self._most = left
            self._give_back()
