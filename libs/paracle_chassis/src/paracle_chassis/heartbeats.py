"""Signs of life for those who wait long: all that are due at a moment go out together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nats.errors import Error as NatsError

from paracle_chassis import codec
from paracle_chassis.voice import Voice, frame_of

_SLOTS: Final = 8
_HEADERS: Final = {codec.PROGRESS_HEADER: codec.WORKING}


class Heartbeats:
    """Tells callers every `every_s` seconds that somebody works for them; first after a quarter of that."""

    def __init__(self, voice: Voice, every_s: float) -> None:
        self._voice = voice
        self._tick_s = every_s / _SLOTS
        self._slots: list[dict[str, bytes]] = [{} for _ in range(_SLOTS)]
        self._at = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, address: str, caller: str) -> Callable[[], None]:
        """Tell `caller` from now on, with `address` to hang up at; what is returned ends that."""
        slot = self._slots[(self._at + 2) % _SLOTS]
        slot[address] = frame_of(caller, b"", address, _HEADERS)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)
        return lambda: self._stop(slot, address)

    @staticmethod
    def _stop(slot: dict[str, bytes], address: str) -> None:
        slot.pop(address, None)

    def _tick(self) -> None:
        self._at = (self._at + 1) % _SLOTS
        with suppress(NatsError, OSError):  # NATS is away: its callers know
            for frame in self._slots[self._at].values():
                self._voice.put(frame)
        busy = any(self._slots)
        self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick) if busy else None
