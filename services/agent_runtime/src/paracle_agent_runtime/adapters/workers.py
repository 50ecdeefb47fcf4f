"""Workers over core NATS.

A worker may send signs of life while it works (`paracle-rpc: working`). One that has begun to, and stops, has died;
one that never does is waited for until the call's time is over. What comes for a call that nobody waits for any more
is answered by the inbox with hanging up.
"""

from __future__ import annotations

import asyncio
from typing import Final

from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from paracle_agent_runtime.ports import Answer
from paracle_agent_runtime.tools.outcome import OutcomeUnknownError
from paracle_chassis import codec, frames, telemetry
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import NO_RESPONDERS, Link, status_of
from paracle_domain.errors import PayloadTooLarge, ToolUnavailable
from paracle_domain.tool.calls import SERVICE, ToolCall

_IDLE_S: Final = 5.0


class _Asked:
    """A call under way: its answer, and when its worker was last heard, if it was."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.answer: asyncio.Future[Incoming] = loop.create_future()
        self.heard_at: float | None = None
        self.heard = asyncio.Event()

    def on_message(self, _more: str, message: Incoming) -> None:
        if message.headers and message.headers.get(codec.PROGRESS_HEADER) == codec.WORKING:
            self.heard_at = self._loop.time()
            self.heard.set()
        elif not self.answer.done():
            self.answer.set_result(message)
            self.heard.set()


class NatsWorkers:
    """`Workers`: whoever listens on the tool's subject."""

    def __init__(self, link: Link, *, idle_s: float = _IDLE_S) -> None:
        self._link = link
        self._idle_s = idle_s

    async def ask(self, call: ToolCall, body: bytes) -> Answer:
        """See `Workers.ask`."""
        asked = _Asked(asyncio.get_running_loop())
        reply = self._link.inbox.expect(asked.on_message)
        headers = call.headers()
        try:
            with telemetry.client_span(SERVICE, call.tool, headers):
                await self._send(call, body, reply, headers)
                message = await self._await(asked, call)
        finally:
            self._link.inbox.forget(reply)
        if status_of(message) == NO_RESPONDERS:
            raise ToolUnavailable(f"no worker answers {call.subject}; start one that serves {call.tool!r}")
        return Answer(message.data, message.headers or {})

    async def _send(self, call: ToolCall, body: bytes, reply: str, headers: dict[str, str]) -> None:
        try:
            if not self._link.connected:  # nats-py would keep it, and send it when nobody knows of it any more
                raise ToolUnavailable(f"cannot ask a worker for {call.tool!r}: NATS is not connected")
            await self._link.voice.say(call.subject, body, reply, headers)
        except MaxPayloadError as error:
            limit = self._link.client.max_payload
            message = f"arguments of {len(body):,} bytes for {call.tool!r}; NATS takes messages of {limit:,}"
            raise PayloadTooLarge(message) from error
        except (NatsError, OSError) as error:
            raise ToolUnavailable(f"cannot ask a worker for {call.tool!r}: {type(error).__name__}") from error

    async def _await(self, asked: _Asked, call: ToolCall) -> Incoming:
        await asked.heard.wait()
        loop = asyncio.get_running_loop()
        connections = self._link.connections
        while not asked.answer.done():
            assert asked.heard_at is not None
            left_s = asked.heard_at + self._idle_s - loop.time()
            if left_s > 0:
                await asyncio.wait((asked.answer,), timeout=left_s)
            elif not self._link.connected or self._link.connections != connections:
                connections = self._link.connections
                asked.heard_at = loop.time()  # nothing could be heard: its silence says nothing
            elif await self._is_silent(asked):
                silent = ToolUnavailable(f"the worker of {call.tool!r} fell silent for {self._idle_s:g} s")
                raise OutcomeUnknownError(silent)
        return asked.answer.result()

    async def _is_silent(self, asked: _Asked) -> bool:
        """Whether nothing was said, rather than not heard yet: once NATS answers, all that it had sent was heard."""
        heard_at, connections = asked.heard_at, self._link.connections
        try:
            await frames.flushed(self._link.client, self._idle_s)
        except (NatsError, OSError):  # nothing can be heard just now
            return False
        return asked.heard_at == heard_at and self._link.connections == connections
