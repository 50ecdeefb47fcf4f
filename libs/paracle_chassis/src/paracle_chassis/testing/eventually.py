"""Time in tests: what takes its own is waited for, without sleeps of a guessed length, and limits are leapt over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Final, overload

PATIENCE_S: Final = 30.0
_LOOK_S: Final = 0.01


@overload
async def eventually[T](look: Callable[[], Awaitable[T]], *, within_s: float = PATIENCE_S) -> T: ...


@overload
async def eventually[T](look: Callable[[], T], *, within_s: float = PATIENCE_S) -> T: ...


async def eventually[T](look: Callable[[], T | Awaitable[T]], *, within_s: float = PATIENCE_S) -> T:
    """What `look` gives once it is truthy and raises no `AssertionError`.

    Raises
    ------
    AssertionError
        If that does not happen `within_s` seconds; the last one that `look` raised, if it did.
    """
    deadline = time.monotonic() + within_s
    while True:
        found: T | None = None
        failure: AssertionError | None = None
        try:
            seen = look()
            found = await seen if isawaitable(seen) else seen
        except AssertionError as error:
            failure = error
        if failure is None and found:
            return found
        if time.monotonic() > deadline:
            raise failure or AssertionError(f"not within {within_s:g} s: {look} gave {found!r}")
        await asyncio.sleep(_LOOK_S)


def leap(seconds: float) -> None:
    """Make it so much later for the running loop, for as long as it lives: timers that are due by then, are due now.

    So a limit that has to run out can be longer than a machine may stand still before it should.
    """
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + seconds  # type: ignore[method-assign]
