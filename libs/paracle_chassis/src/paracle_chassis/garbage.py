"""When a process looks for garbage: for what goes in circles, as failed calls do, and does not go away by itself."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import Final

_THRESHOLDS: Final = (1_000_000, 4, 100)
_EVERY_S: Final = 10.0
_WORTH_A_LOOK: Final = 20_000


def settle() -> None:
    """Let the collector look at what the service makes, not at what it is made of, and not every 700 objects.

    A batch makes thousands of objects that live as long as it does; with Python's thresholds, the collector went
    through all states in memory again and again and took 40 % of the orchestrator's time. A full batch has tens of
    thousands in hand, and five thousand agents that wait for their models half a million: the first threshold is above
    that, or what goes by itself in the end is looked at while in use, for a tenth of a second that nothing else has.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()  # `__main__` may have left it off while all was loaded


async def keep_looking() -> None:
    """Look every ten seconds, too. Objects are counted, not bytes: a failed call leaves a hundred, and its prompt."""
    while True:
        await asyncio.sleep(_EVERY_S)
        generation = due(*gc.get_count())
        if generation is not None:
            gc.collect(generation)


def due(young: int, middle: int, old: int) -> int | None:
    """Which generation to look through, by what `gc.get_count` says of all three; none if that is not worth it."""
    if young < _WORTH_A_LOOK:
        return None
    if old >= _THRESHOLDS[2]:
        return 2
    return int(middle >= _THRESHOLDS[1])


def give_back() -> None:
    """Let the system have what was freed: the C library keeps it otherwise, and the process looks as large as ever."""
    import ctypes  # noqa: PLC0415  # seldom wanted, and no service is to start later for it

    gc.collect()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
