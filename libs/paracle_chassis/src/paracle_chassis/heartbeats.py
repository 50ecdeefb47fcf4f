"""Signs of life for those who wait long: all that are due at a moment go out together.

Each has a number, so that whoever hears that nobody listens knows which of them that was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nats.errors import Error as NatsError

from paracle_chassis import codec, frames
from paracle_chassis.voice import Voice

_SLOTS: Final = 8
_HEAD: Final = frames.head_of({codec.PROGRESS_HEADER: codec.WORKING})
_GONE_AFTER: Final = 3  # signs in a row that reach nobody; a caller may just be reconnecting


class Heartbeats:
    """Tells callers every `every_s` seconds that somebody works for them; first after a quarter of that."""

    def __init__(self, voice: Voice, every_s: float) -> None:
        self._voice = voice
        self._tick_s = every_s / _SLOTS
        self._slots: list[dict[str, str]] = [{} for _ in range(_SLOTS)]
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, address: str, caller: str) -> Callable[[], None]:
        """Tell `caller` from now on, with `{address}.{number}` to hang up at; what is returned ends that."""
        slot = self._slots[(self._ticks + 2) % _SLOTS]
        slot[address] = caller
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)
        return lambda: self._stop(slot, address)

    @staticmethod
    def _stop(slot: dict[str, str], address: str) -> None:
        slot.pop(address, None)

    def _tick(self) -> None:
        self._ticks += 1
        number = self._ticks // _SLOTS
        with suppress(NatsError, OSError):  # NATS is away: its callers know
            for address, caller in self._slots[self._ticks % _SLOTS].items():
                self._voice.put(frames.hpub(caller, f"{address}.{number}", _HEAD, b""))
        busy = any(self._slots)
        self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick) if busy else None


class Unheard:
    """Which signs of life reached nobody. Single ones are lost now and then; that several in a row are tells more."""

    def __init__(self) -> None:
        self._last = -1
        self._in_a_row = 0

    def add(self, number: int) -> bool:
        """Nobody listened to the sign with that number; whether nobody is there any more."""
        self._in_a_row = self._in_a_row + 1 if number == self._last + 1 else 1
        self._last = number
        return self._in_a_row >= _GONE_AFTER
