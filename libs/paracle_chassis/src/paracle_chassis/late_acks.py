"""Acknowledgements on their way: gathered, and sent together a moment later.

Nobody waits for one: what a process that is killed has not acked yet comes again, and changes nothing. Sent at once,
they would cost a write each, and leave a work queue empty between two messages; nats-server makes a new file, and drops
the old one, each time a queue in a file becomes empty. So the latest stay a moment: under load no queue is ever empty.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from nats.errors import Error as NatsError

from paracle_chassis import frames

if TYPE_CHECKING:
    from nats.aio.client import Client

_log = logging.getLogger(__name__)

EVERY_S: Final = 0.02
"""An ack is sent once it is as old as this, and before it is twice as old."""


class LateAcks:
    """The acks of one connection, which `client` gives."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._young: list[str] = []
        self._old: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    def put(self, replies: Iterable[str]) -> None:
        """Ack what has these ack subjects, soon."""
        self._young += replies
        if self._young and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._tick)

    async def flush(self) -> None:
        """Send all of them now."""
        if due := self.drop():
            await self._send(due)

    def drop(self) -> list[str]:
        """Let go of all of them; they are the caller's."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due, self._old, self._young = self._old + self._young, [], []
        return due

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due: list[str] = []
        if self._client().is_connected:  # while it is not, they wait here
            due, self._old, self._young = self._old, self._young, []
        self._timer = loop.call_later(EVERY_S, self._tick) if self._old or self._young else None
        if due:
            self._sending = asyncio.Task(self._send(due), loop=loop, eager_start=True)

    async def _send(self, replies: Iterable[str]) -> None:
        try:
            await frames.post(self._client(), [frames.pub(reply, b"") for reply in replies])
        except (NatsError, OSError) as error:  # the connection is closed: what is not acked comes again
            _log.debug("acks are not sent: %s", error)
