"""A durable pull consumer that always has a request standing, and survives whatever happens to NATS.

The server sends what is there at once; a lone message does not wait for others. When half of what was asked for has
come, more is asked for, so that a busy mailbox never waits for a round trip. A broken connection, a missed heartbeat, a
deleted consumer or stream: it starts over, making anew what is missing.

Where nobody waits for the messages they gather at the server (`linger_s`): the request that stands is for one, and a
while after that has come, all others that are there are asked for together. Sent one by one as they are published, they
would cost the server, the kernel and this process a turn each.

With a room it asks for no more than there is place for; while that is closed, for nothing, and takes back what it had
asked for: what was sent before the server knew of that is still handed over. Turned away, a message would come again
to whoever has asked, and count as delivered each time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Final

from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from paracle_chassis import outages, provisioning
from paracle_chassis.inlet import Incoming, Inlet
from paracle_chassis.link import NO_RESPONDERS, Link, status_of
from paracle_chassis.provisioning import Change
from paracle_chassis.room import Room
from paracle_chassis.streams import Streams
from paracle_chassis.topology import ConsumerSpec
from paracle_domain.errors import NotFound, ParacleError, Unavailable

_log = logging.getLogger(__name__)

# A process that hangs goes on being sent what it had asked for, so no request stands for long.
EXPIRES_S: Final = 5
HEARTBEAT_S: Final = 2
_LOOK_AGAIN_S: Final = 0.5
# Requests for single places that stand at once: a consumer bears 512, of all replicas together.
_SMALL_PULLS: Final = 8
# For what is there at a server that is well.
_GATHERED_WITHIN_S: Final = 2.0
# A server that has nothing, or is owed so many acks that it may send nothing, keeps a request that has no end.
_GATHER_EXPIRES_S: Final = 0.02
_NS: Final = 1_000_000_000
_HEARTBEAT: Final = "100"
_ENDED: Final = ("404", "408", "409")
_GONE: Final = ("Consumer Deleted", "Consumer not found", "Stream not found")

type Unpack = Callable[[Incoming], Sequence[Incoming]]


class PullConsumer:
    """Messages of one durable consumer, as they come.

    Parameters
    ----------
    capacity
        Most messages asked for or held ready.
    unpack
        Gives what came in a message: itself, or all that is in a bundle.
    linger_s
        Seconds in which messages gather at the server before they are fetched; 0 for as they come.
    room
        What bounds them further; its places are taken by whoever is handed the messages. Not with `linger_s`.
    """

    def __init__(
        self,
        link: Link,
        streams: Streams,
        spec: ConsumerSpec,
        *,
        capacity: int,
        unpack: Unpack,
        linger_s: float = 0.0,
        room: Room | None = None,
    ) -> None:
        self.spec = spec
        self.buffer: deque[Incoming] = deque()
        self._link = link
        self._streams = streams
        self._capacity = capacity
        self._unpack = unpack
        self._linger_s = linger_s
        self._full = False
        self._room = room
        self._handed = 0  # messages that were taken, and may have no place yet
        self._paused = False
        self._turning: asyncio.Task[None] | None = None
        self._pulls: dict[str, int] = {}
        self._names = count()
        self._arrived = asyncio.Event()
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._repair: asyncio.Task[None] | None = None
        self._last_heard = 0.0
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._inlet: Inlet | None = None
        self._unhook: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Make the consumer what it should be, and start to pull.

        Raises
        ------
        Unavailable
            If NATS does not answer.
        """
        await self._ensure()
        self._paused = self._is_closed
        if not self._paused:
            await self._listen()
        self._unhook = self._link.on_reconnect(self._start_over)
        _ = self._spawn(self._watch())
        self._start_over()
        if self._room is not None:
            self._room.watched(self._on_room, self._is_quiet)
            self._on_room()

    async def _listen(self) -> None:
        client = self._link.client
        self._inbox = self._link.new_inbox()
        self._subscription = await client.subscribe(f"{self._inbox}.*", pending_msgs_limit=0, pending_bytes_limit=0)
        self._inlet = self._link.inlet
        self._inlet.divert(self._subscription, self._receive)

    async def _hush(self) -> None:
        """Take back all requests. Nobody listens to their answers any more, so the server gives what it has to others.

        What it sent before it knew of that has come when this returns.
        """
        subscription, self._subscription = self._subscription, None
        self._pulls.clear()
        if subscription is None:
            return
        with suppress(NatsError, OSError, Unavailable):  # a lost connection has lost its requests, too
            await subscription.unsubscribe()
            await self._link.check()
        if self._inlet is not None:
            self._inlet.forget(subscription)

    async def take(self, limit: int) -> list[Incoming]:
        """What is there, at most `limit`; waits for one, and lets others gather for as long as it is to.

        Empty once it has stopped.
        """
        if self._handed:
            self._handed = 0
            self._replenish()
        await self._until(lambda: bool(self.buffer))
        if self._linger_s:
            await self._gather(limit)
        if self._stopped:
            return []
        taken = [self.buffer.popleft() for _ in range(min(limit, len(self.buffer)))]
        self._full = len(taken) == limit
        self._handed = len(taken)
        self._replenish()
        return taken

    async def _gather(self, limit: int) -> None:
        """Let others gather at the server, unless there were too many the last time, and fetch what is there."""
        if not self._full:
            await self._until(lambda: False, self._linger_s)
        wanted = limit - len(self.buffer)
        if wanted > 0 and not self._stopped and self._repair is None:
            name = str(next(self._names))
            self._pulls[name] = wanted
            ask = {"batch": wanted, "no_wait": True, "expires": int(_GATHER_EXPIRES_S * _NS)}
            await self._request(name, ask)
            await self._until(lambda: name not in self._pulls, _GATHERED_WITHIN_S)
            self._pulls.pop(name, None)

    async def _until(self, so: Callable[[], bool], within_s: float | None = None) -> None:
        """Wait until it is `so`, but only `within_s` seconds, and not if it stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not so() and not self._stopped:
                    self._arrived.clear()
                    await self._arrived.wait()

    async def stop(self) -> list[Incoming]:
        """Stop pulling; what was fetched and not taken is the caller's to give back."""
        self._stopped = True
        self._unhook()
        if self._room is not None:
            self._room.watched(lambda: None, lambda: True)
        for task in self._tasks:
            task.cancel()
        self._arrived.set()
        await self._hush()
        left = list(self.buffer)
        self.buffer.clear()
        return left

    async def close(self) -> None:
        """Wait for what is still being done; what comes after this is delivered again once its ack wait is over."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def alive(self) -> bool:
        """Whether a request stands (or is about to, or none is wanted) with a server that was heard lately."""
        return not self._stopped and asyncio.get_running_loop().time() - self._last_heard < 6 * HEARTBEAT_S

    # ── the room ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_room(self) -> None:
        if self._turning is None and self._is_closed != self._paused and not self._stopped:
            self._turning = self._spawn(self._turn())
        self._replenish()

    @property
    def _is_closed(self) -> bool:
        return self._room is not None and self._room.closed

    def _is_quiet(self) -> bool:
        """Whether all requests are taken back, and what came of them was handed over and taken on."""
        return self._paused and self._turning is None and not self.buffer and not self._handed

    async def _turn(self) -> None:
        """Have nothing come, or something, as the room says; it may say something else meanwhile."""
        try:
            while self._is_closed != self._paused:
                await (self._pause() if self._is_closed else self._go_on())
        except (NatsError, OSError) as error:
            _log.debug("cannot listen yet: %s", error)  # the watch tries again
        finally:
            self._turning = None

    async def _pause(self) -> None:
        self._paused = True
        await self._hush()

    async def _go_on(self) -> None:
        await self._listen()
        self._paused = False
        self._start_over()

    # ── pulling ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, message: Incoming) -> None:
        self._last_heard = asyncio.get_running_loop().time()
        if not message.reply.startswith("$JS.ACK"):  # a word of the server about a request, not a message
            self._on_status(message.subject.rpartition(".")[2], status_of(message) or "", message)
            return
        self._count_off()
        self.buffer.extend(self._unpack(message))
        self._arrived.set()
        self._replenish()

    def _on_status(self, pull: str, status: str, message: Incoming) -> None:
        if status == _HEARTBEAT or self._stopped or self._paused:
            return
        description = message.headers.get("Description", "")
        known = self._pulls.pop(pull, None) is not None
        self._arrived.set()
        if status in _ENDED and not description.startswith(_GONE) and "Shutdown" not in description:
            if known:
                self._replenish()
            return
        if status != NO_RESPONDERS or known:
            _log.warning("mailbox %s of %s: %s %s", self.spec.durable, self.spec.stream, status, description)
            self._mend()

    def _replenish(self) -> None:
        """Ask for more once half of the capacity is free, or a place of a room that has less."""
        if self._stopped or self._paused or self._repair is not None:
            return
        most = 1 if self._linger_s else self._capacity
        if self._room is not None:
            most = min(most, self._room.free - self._handed)
        free = most - len(self.buffer) - sum(self._pulls.values())
        enough = free * 2 >= self._capacity or (most < self._capacity and len(self._pulls) < _SMALL_PULLS)
        if free > 0 and enough:
            name = str(next(self._names))
            self._pulls[name] = free
            ask = {"batch": free, "expires": EXPIRES_S * _NS, "idle_heartbeat": HEARTBEAT_S * _NS}
            _ = self._spawn(self._request(name, ask))

    async def _request(self, name: str, ask: Mapping[str, int]) -> None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.spec.stream}.{self.spec.durable}"
        try:
            await self._link.client.publish(subject, json.dumps(ask).encode(), f"{self._inbox}.{name}")
        except (NatsError, OSError) as error:
            self._pulls.pop(name, None)  # the reconnection, or the watch, starts over
            _log.debug("cannot pull: %s", error)

    def _count_off(self) -> None:
        """One message less to come, of the request that stands longest: the server serves them in turn."""
        for name, left in self._pulls.items():
            if left > 1:
                self._pulls[name] = left - 1
            else:
                del self._pulls[name]
            return

    # ── staying alive ────────────────────────────────────────────────────────────────────────────────────────────

    def _start_over(self) -> None:
        """Forget what was asked for: the server that heard it is gone."""
        self._last_heard = asyncio.get_running_loop().time()
        self._pulls.clear()
        self._arrived.set()
        self._replenish()

    async def _watch(self) -> None:
        """Mend the consumer if the server's heartbeats stay away."""
        while not self._stopped:
            await asyncio.sleep(HEARTBEAT_S)
            if not self._pulls:  # nothing is asked for, so nothing is heard
                self._last_heard = asyncio.get_running_loop().time()
                self._on_room()
                continue
            silent = asyncio.get_running_loop().time() - self._last_heard
            if silent > 2.5 * HEARTBEAT_S and self._link.connected:
                _log.warning("mailbox %s of %s: no heartbeat for %.0f s", self.spec.durable, self.spec.stream, silent)
                self._mend()

    async def _ensure(self) -> Change:
        """Make the consumer what it should be, and its stream if that is gone."""
        try:
            return await provisioning.ensure_consumer(self._link.client, self.spec)
        except NotFound:
            await self._streams.make({self.spec.stream})
            return await provisioning.ensure_consumer(self._link.client, self.spec)

    def _mend(self) -> None:
        if self._repair is None and not self._stopped and not self._paused:
            self._repair = self._spawn(self._make_anew())

    async def _make_anew(self) -> None:
        for delay in outages.delays():
            await asyncio.sleep(delay)
            try:
                await self._ensure()
            except Unavailable as error:
                _log.debug("cannot mend yet: %s", error)
            except ParacleError:
                _log.exception("mailbox %s of %s cannot be made", self.spec.durable, self.spec.stream)
            else:
                break
        self._repair = None
        self._start_over()
        _ = self._spawn(self._look_again())

    async def _look_again(self) -> None:
        """A consumer that is just being deleted may still have looked well, and have swallowed the request."""
        await asyncio.sleep(_LOOK_AGAIN_S)
        try:
            change = await self._ensure()
        except ParacleError as error:
            _log.debug("cannot look yet: %s", error)  # the watch does, once heartbeats stay away
            return
        if change.did == "created":
            self._start_over()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
