"""A thread that sends what was gathered, so that nobody waits for a collector."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread
from time import monotonic, sleep
from typing import Final

from paracle_chassis.portions import portions
from paracle_domain.errors import InvalidInput

_log = logging.getLogger(__name__)


_TURN: Final = 64
_PAUSE_S: Final = 0.0005


def in_turns[T](items: Sequence[T]) -> Iterator[T]:
    """`items`, with a pause after every few, in which the event loop's thread gets the interpreter.

    A thread that is busy gives it up only when it was asked to for 5 ms, and the loop's asks after each of its system
    calls: what took two milliseconds took twenty while two thousand spans were encoded.
    """
    for few in portions(items, _TURN):
        yield from few
        sleep(_PAUSE_S)


def within(seconds: float, *ends: Callable[[], object]) -> bool:
    """Call `ends`, all at once, and wait for them for so many seconds; whether all came to an end."""
    threads = [Thread(target=end, daemon=True) for end in ends]
    for thread in threads:
        thread.start()
    until = monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - monotonic()))
    return not any(thread.is_alive() for thread in threads)


class Sender:
    """Calls `work` every `every_s` seconds, when it is woken, and once more at the end.

    What goes wrong is logged: telemetry that is lost is lost.
    """

    def __init__(self, name: str, every_s: float, work: Callable[[], None]) -> None:
        self._every_s = every_s
        self._work = work
        self._woken = Event()
        self._over = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        """Send the rest."""
        self._over = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        over = False
        while not over:
            self._woken.wait(self._every_s)
            self._woken.clear()
            over = self._over  # read before the work: what is told to stop while at work has more to send
            try:
                self._work()
            except Exception:  # noqa: BLE001  # the thread has to live on, whatever an exporter raises
                _log.exception("cannot send telemetry")


class Batches[T]:
    """Sends what is put into it by `send`, at most `size` at once. What does not fit into `room` pushes out the oldest.

    The names of the settings are OpenTelemetry's (`OTEL_BSP_…`).
    """

    def __init__(self, name: str, room: int, send: Callable[[list[T]], object]) -> None:
        self._waiting: deque[T] = deque(maxlen=room)
        self._size = min(room, int(_setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH)))
        self._send = send
        self._dropped = 0
        self._over = False
        self._sender = Sender(name, _setting("OTEL_BSP_SCHEDULE_DELAY", _EVERY_MS) / 1_000, self._flush)

    def put(self, item: T) -> None:
        waiting = self._waiting
        if len(waiting) == waiting.maxlen:
            self._dropped += 1
        waiting.append(item)
        if len(waiting) == self._size:
            self._sender.wake()

    def stop(self) -> None:
        """Send the rest."""
        self._over = True
        self._sender.stop()

    def _flush(self) -> None:
        """Send a batch, and then whole ones only: what is left is the beginning of the next."""
        enough = 1
        while len(self._waiting) >= enough:
            self._send([self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))])
            enough = 1 if self._over else self._size
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            _log.warning("dropped the oldest %d spans: they come faster than they can be sent", dropped)


def _setting(name: str, default: int) -> float:
    """A number from the environment.

    Raises
    ------
    InvalidInput
        If it is none from 1 on: a thread would send nothing again and again without a pause.
    """
    text = os.environ.get(name, "").strip() or str(default)
    try:
        found = float(text)
    except ValueError:
        found = 0
    if not 1 <= found <= _MOST:
        raise InvalidInput(f"{name} is {text!r}; say a number from 1 to {_MOST:,}, or leave it out", path=name)
    return found


_BATCH: Final = 2_048
_EVERY_MS: Final = 5_000
_MOST: Final = 1_000_000_000
