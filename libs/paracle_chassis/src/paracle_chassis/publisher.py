"""Publishing to streams: many messages in flight, their acknowledgements awaited together, repeated until stored.

Several messages to one stream go as one atomic batch, which costs the server a handful of fsyncs instead of one each. A
batch that is refused (one of its ids is stored already, say) goes again message by message: stored ids change nothing.

Streams that are written behind take no batches. There a server handles what comes over one connection in order, so the
acknowledgement of the last message of a window stands for all of it, unless the connection broke in between.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Sequence
from typing import Final

from nats.errors import Error as NatsError

from paracle_chassis import bundles, frames, topology
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import NO_RESPONDERS, Link, status_of
from paracle_chassis.portions import portions
from paracle_chassis.streams import Streams
from paracle_chassis.topology import StreamSpec
from paracle_chassis.wires import Wire
from paracle_domain.errors import Unavailable

_log = logging.getLogger(__name__)

WINDOW: Final = 500
ACK_TIMEOUT_S: Final = 5.0
DEADLINE_S: Final = 30.0
_RETRY_S: Final = 0.1
_WORTH_A_BATCH: Final = 3
_END: Final = "end"


class _Window:
    """Some messages in flight: which are not stored yet, and why the last one was refused."""

    def __init__(self, messages: Sequence[Wire], *, in_order: bool) -> None:
        self.messages = messages
        self.missing = set(range(len(messages)))
        self.in_order = in_order
        self.refusal = ""
        self.homeless = False
        self.changed = asyncio.Event()

    def on_ack(self, more: str, message: Incoming) -> None:
        """An acknowledgement, or a refusal, of the message numbered `more`."""
        if status_of(message) is not None:
            self.refusal = "no stream takes this subject"
            self.homeless = True
        elif b'"error"' in message.data:
            self.refusal = json.loads(message.data).get("error", {}).get("description", "refused")
        else:
            self._store(int(more))
            if not self.missing:
                self.changed.set()
            return
        self.changed.set()

    def _store(self, index: int) -> None:
        if self.in_order:
            self.missing = {later for later in self.missing if later > index}
        else:
            self.missing.discard(index)


class Publisher:
    """Publishes until everything is stored, or the deadline passes."""

    def __init__(self, link: Link, streams: Streams) -> None:
        self._link = link
        self._streams = streams

    async def publish(self, messages: Sequence[Wire], *, deadline_s: float = DEADLINE_S) -> None:
        """Store all `messages`, in order within their subjects unless some travel in bundles or the connection breaks.

        What somebody is to work on goes first, since a run waits for that and not for what is told of it. A stream that
        takes nothing keeps no other from storing its own; on return, or after an error, nothing is under way any more.

        Raises
        ------
        Unavailable
            If some are not stored within `deadline_s`.
        """
        deadline = asyncio.get_running_loop().time() + deadline_s
        groups: dict[StreamSpec | None, list[Wire]] = {}
        for wire in messages:
            groups.setdefault(topology.stream_of_subject(wire.subject), []).append(wire)
        ordered = sorted(groups.items(), key=lambda group: not _waited_for(group[0]))
        work = (self._publish_group(spec, wires, deadline) for spec, wires in ordered)
        for error in await asyncio.gather(*work, return_exceptions=True):
            if error is not None:
                raise error

    async def _publish_group(self, spec: StreamSpec | None, messages: Sequence[Wire], deadline: float) -> None:
        if spec is not None and spec.no_ack:
            await self._publish_unconfirmed(messages, deadline)
            return
        batches = self._takes_batches(spec)
        for chunk in portions(bundles.together(messages), WINDOW):
            if not (batches and len(chunk) >= _WORTH_A_BATCH and await self._publish_batch(chunk)):
                in_order = not batches and self._link.durability.replicas == 1
                await self._publish_window(_Window(chunk, in_order=in_order), deadline)

    def _takes_batches(self, spec: StreamSpec | None) -> bool:
        return spec is not None and bool(spec.config(self._link.durability).get("allow_atomic"))

    async def _publish_batch(self, messages: Sequence[Wire]) -> bool:
        """Store all `messages` or none; whether they are stored. Not being sure is no."""
        committed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def conclude(*, stored: bool) -> None:
            if not committed.done():
                committed.set_result(stored)

        def on_word(more: str, message: Incoming) -> None:
            refused = status_of(message) is not None or b'"error"' in message.data
            if refused or more == "last":
                conclude(stored=not refused)

        reply = self._link.inbox.expect(on_word)
        unhook = self._link.on_reconnect(lambda: conclude(stored=False))
        try:
            await self._send_batch(messages, reply)
            async with asyncio.timeout(ACK_TIMEOUT_S):
                return await committed
        except (NatsError, OSError):  # TimeoutError among them
            return False
        finally:
            unhook()
            self._link.inbox.forget(reply)

    async def _send_batch(self, messages: Sequence[Wire], reply: str) -> None:
        batch = uuid.uuid4().hex
        last = len(messages)
        found: list[bytes] = []
        for number, wire in enumerate(messages, 1):
            marks = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            answer = ""
            if number == 1:
                answer = f"{reply}.first"
            elif number == last:
                answer = f"{reply}.last"
                marks["Nats-Batch-Commit"] = "1"
            found.append(frames.hpub(wire.subject, answer, frames.head_of({**wire.headers, **marks}), wire.body))
        await frames.send(self._link.client, found)

    async def _publish_unconfirmed(self, messages: Sequence[Wire], deadline: float) -> None:
        """Send what its stream confirms to nobody (its service may answer, but need not be there); the server has it.

        It is on disk a moment later: whoever must be sure sends it again until he sees its effect.
        """
        homeless: set[str] = set()
        through = asyncio.Event()

        def on_word(more: str, message: Incoming) -> None:
            if more == _END:
                through.set()
            elif status_of(message) == NO_RESPONDERS:
                homeless.add(messages[int(more)].subject)

        reply = self._link.inbox.expect(on_word)
        try:
            while not await self._hand_over(messages, reply, through) or homeless:
                if asyncio.get_running_loop().time() >= deadline:
                    raise Unavailable(f"{len(messages)} commands could not be handed to NATS; trying again may help")
                await self._streams.make_for(homeless)
                homeless.clear()
                await asyncio.sleep(_RETRY_S)
        finally:
            self._link.inbox.forget(reply)

    async def _hand_over(self, messages: Sequence[Wire], reply: str, through: asyncio.Event) -> bool:
        """Whether the server has read all `messages`: it has when a word to ourselves, sent after them, comes back."""
        client, connection = self._link.client, self._link.connections
        through.clear()
        try:
            for index, wire in enumerate(messages):
                await client.publish(wire.subject, wire.body, f"{reply}.{index}", dict(wire.headers))
            await client.publish(f"{reply}.{_END}")
            async with asyncio.timeout(ACK_TIMEOUT_S):
                await through.wait()
        except (NatsError, OSError) as error:  # TimeoutError among them
            _log.debug("commands wait: %s", error)
            return False
        return self._link.connections == connection

    async def _publish_window(self, window: _Window, deadline: float) -> None:
        unhook = self._link.on_reconnect(window.changed.set)  # what was in flight may be lost: send it again at once
        try:
            while window.missing:
                await self._try_window(window, deadline)
        finally:
            unhook()

    async def _try_window(self, window: _Window, deadline: float) -> None:
        """Send what is missing, and wait for its acknowledgements; they do not count if the connection broke."""
        before, connection = frozenset(window.missing), self._link.connections
        reply = self._link.inbox.expect(window.on_ack)
        window.changed.clear()
        try:
            await self._send(window, reply)
            await self._await_acks(window, deadline)
        finally:
            self._link.inbox.forget(reply)
            if window.in_order and self._link.connections != connection:
                window.missing = set(before)

    async def _send(self, window: _Window, reply: str) -> None:
        left = sorted(window.missing)
        spoken = {left[-1]} if window.in_order else window.missing
        wires = ((index, window.messages[index]) for index in left)
        try:
            await frames.send(
                self._link.client,
                [_frame(wire, f"{reply}.{index}" if index in spoken else "") for index, wire in wires],
            )
        except (NatsError, OSError) as error:
            window.refusal = f"NATS is not connected ({type(error).__name__})"
            window.changed.set()

    async def _await_acks(self, window: _Window, deadline: float) -> None:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(deadline, now + ACK_TIMEOUT_S)):
                await window.changed.wait()
        except TimeoutError:
            window.refusal = window.refusal or "NATS does not acknowledge"
        if not window.missing:
            return
        if asyncio.get_running_loop().time() >= deadline:
            count = len(window.missing)
            raise Unavailable(f"{count} of {len(window.messages)} messages could not be stored: {window.refusal}")
        if window.homeless:
            await self._streams.make_for({window.messages[index].subject for index in window.missing})
            window.homeless = False
        if window.refusal:
            await asyncio.sleep(_RETRY_S)


def _waited_for(spec: StreamSpec | None) -> bool:
    return spec is not None and spec.work_queue


def _frame(wire: Wire, reply: str) -> bytes:
    return frames.hpub(wire.subject, reply, wire.head, wire.body)
