"""Streams that are gone are made anew, by whoever is connected, and by this piece of code alone.

Somebody deleted one, or it was in memory and ended with its server. Whoever publishes to it is told so, and a mailbox
hears no more of its server; but what is only broadcast, as pieces of output are, is confirmed to nobody. So every
service hears JetStream's word of deletions, and looks when it is connected again; at its start, too, since its server
may have been started with it. `provision` alone makes streams that never were there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from paracle_chassis import outages, provisioning, topology
from paracle_chassis.link import Link
from paracle_domain.errors import ParacleError, Unavailable

_log = logging.getLogger(__name__)

_DELETED: Final = "$JS.EVENT.ADVISORY.STREAM.DELETED"
_ALL: Final = frozenset(spec.name for spec in topology.STREAMS)
_IN_MEMORY: Final = frozenset(spec.name for spec in topology.STREAMS if spec.memory)
_GOING_S: Final = 0.5  # the word comes while the stream is being deleted


class Streams:
    """The streams of the topology, as one connection sees them."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._making = asyncio.Lock()
        self._gone = asyncio.Event()
        self._subscription: Subscription | None = None
        self._unhook: Callable[[], None] = lambda: None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Hear which are deleted, from now on."""
        self._subscription = await self._link.client.subscribe(f"{_DELETED}.*", cb=self._on_deleted)
        self._unhook = self._link.on_reconnect(self._gone.set)
        self._task = asyncio.get_running_loop().create_task(self._mend(), name="streams")

    async def close(self) -> None:
        self._unhook()
        self._unhook = lambda: None  # it may be closed twice
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._subscription is not None:
            with suppress(NatsError):
                await self._subscription.unsubscribe()

    async def make(self, names: Collection[str]) -> None:
        """Make those of the streams called `names` that are gone.

        Raises
        ------
        Unavailable
            If NATS does not answer.
        Conflict
            If NATS refuses to make one.
        """
        async with self._making:
            there = await provisioning.stream_names(self._link.client)
            for spec in topology.STREAMS:
                if spec.name in names and spec.name not in there:
                    level = logging.INFO if spec.memory else logging.WARNING
                    _log.log(level, "stream %s is gone: making it anew", spec.name)
                    await provisioning.ensure_stream(self._link.client, spec, self._link.durability)

    async def recall(self) -> None:
        """Make those that ended with their server, if it holds others: else nothing was ever provisioned."""
        if await provisioning.stream_names(self._link.client):
            await self.make(_IN_MEMORY)

    async def make_for(self, subjects: Collection[str]) -> None:
        """Make the streams of these subjects, which NATS has just refused; if that fails, it refuses them again."""
        specs = (topology.stream_of_subject(subject) for subject in subjects)
        try:
            await self.make({spec.name for spec in specs if spec is not None})
        except ParacleError as error:
            _log.warning("cannot make a stream anew: %s", error)

    async def _on_deleted(self, message: Msg) -> None:
        if message.subject.rpartition(".")[2] in _ALL:
            self._gone.set()

    async def _mend(self) -> None:
        await self._insist(self.recall)
        while True:
            await self._gone.wait()
            await asyncio.sleep(_GOING_S)
            self._gone.clear()
            await self._insist(partial(self.make, _ALL))

    async def _insist(self, make: Callable[[], Awaitable[None]]) -> None:
        for delay in outages.delays():
            try:
                await make()
            except Unavailable:
                await asyncio.sleep(delay)
            except ParacleError as error:
                _log.warning("cannot make a stream anew: %s", error)
                return
            else:
                return
