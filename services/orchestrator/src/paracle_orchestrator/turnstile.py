"""One at a time: whoever comes with several names waits until nobody before him holds one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager


class Turnstile:
    """Lets those who share no name pass side by side, and the others in the order in which they came.

    Everybody takes his place behind all his names at once, so nobody ever waits in a circle.
    """

    def __init__(self) -> None:
        self._last: dict[str, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def hold(self, names: Collection[str]) -> AsyncIterator[None]:
        """Have all `names` alone within it."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = {last for name in names if (last := self._last.get(name)) is not None}
        self._last.update(dict.fromkeys(names, gone))
        try:
            if before:
                await asyncio.wait(before)
            yield
        finally:
            if any(not one.done() for one in before):  # cancelled: whoever comes next waits for those before
                asyncio.gather(*before).add_done_callback(lambda _: self._let_go(names, gone))
            else:
                self._let_go(names, gone)

    def _let_go(self, names: Collection[str], gone: asyncio.Future[None]) -> None:
        gone.set_result(None)
        for name in names:
            if self._last[name] is gone:
                del self._last[name]
