"""Asking over core NATS; `rpc_server` answers.

Whoever answers a `long` request says every two seconds that it still works on it. A caller that is cancelled hangs up
on it.

A query that is not answered soon is asked again: a replica that hangs goes on being sent its share of the questions
until the server cuts it off.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any, Final, cast

from nats.errors import Error as NatsError

from paracle_chassis import codec, frames, telemetry
from paracle_chassis.claims import Claims
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import NO_RESPONDERS, Link, status_of
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import DeadlineExceeded, InternalError, MalformedMessage, Unavailable
from paracle_domain.messages import Message, Request

ASK_AGAIN_S: Final = 0.5
_PING_S: Final = 5.0  # NATS is away if it takes longer
_LATE_S: Final = 0.1  # by which a timer is late if we stood still
_MOMENT_S: Final = 0.5  # for those who stood still with us


class _Call:
    """One question under way: its answer, and when its answerer was last heard."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turn: asyncio.Future[None] | None = None
        self.answer: Incoming | None = None
        self.asked_at = self.last_heard = loop.time()
        self.times = 0
        self.hang_up = ""

    async def wait_until(self, moment: float) -> None:
        """Wait for the answer, at most till `moment` (of the loop's time)."""
        if self.answer is not None:
            return
        self._turn = self._loop.create_future()
        timer = self._loop.call_at(moment, self._wake)
        try:
            await self._turn
        finally:
            timer.cancel()

    def on_message(self, _more: str, message: Incoming) -> None:
        if self.times > 1 and status_of(message) == NO_RESPONDERS:
            return  # whoever was asked first may still answer
        self.last_heard = self._loop.time()
        if message.headers and message.headers.get(codec.PROGRESS_HEADER) == codec.WORKING:
            self.hang_up = message.reply if subjects.takes_answers(message.reply) else ""
        elif self.answer is None:
            self.answer = message
            self._wake()

    def _wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)


class RpcClient:
    """Asks other services."""

    def __init__(self, link: Link, claims: Claims, source: str) -> None:
        self._link = link
        self._claims = claims
        self._source = source

    async def call[R: Message](
        self, request: Request[R], context: Context, *, timeout_s: float, idle_s: float | None
    ) -> R:
        subject = subjects.rpc(context.tenant, request.service, request.method)
        headers = Envelope.wrap(request.type_name, self._source, context).headers()
        with telemetry.client_span(request.service, request.method, headers):
            message = await self._ask(subject, request, headers, timeout_s, idle_s)
            self._refuse_status(message, request)
            body = await self._claims.check_out(message.data, message.headers)
            if (error := codec.decode_error(body, message.headers)) is not None:
                raise error
            return self._decode(request, body)

    async def _ask(
        self, subject: str, request: Request[Any], headers: dict[str, str], timeout_s: float, idle_s: float | None
    ) -> Incoming:
        body = await self._claims.check_in(request.encode(), headers)
        call = _Call(asyncio.get_running_loop())
        reply = self._link.inbox.expect(call.on_message)
        try:
            while True:
                call.times += 1
                await self._link.voice.say(subject, body, reply, headers)
                again_s = call.times * ASK_AGAIN_S if request.query else math.inf
                if (answer := await self._await(call, request, timeout_s, idle_s, again_s)) is not None:
                    return answer
        except (NatsError, OSError) as error:
            raise Unavailable(f"cannot ask {request.service}: NATS is not connected; trying again may help") from error
        finally:
            self._link.inbox.forget(reply)
            if call.hang_up and call.answer is None:
                await self._hang_up(call)

    async def _await(
        self, call: _Call, request: Request[Any], timeout_s: float, idle_s: float | None, again_s: float
    ) -> Incoming | None:
        """The answer; `None` if it is time to ask again."""
        loop = asyncio.get_running_loop()
        deadline = call.asked_at + timeout_s
        again = loop.time() + again_s
        while True:
            until = deadline if idle_s is None else min(deadline, call.last_heard + idle_s)
            moment = min(until, again)
            await call.wait_until(moment)
            if call.answer is None and loop.time() >= moment + _LATE_S:
                await self._catch_up(call)
            if call.answer is not None:
                return call.answer
            if again <= loop.time() < deadline:
                return None
            if loop.time() >= deadline:
                asked = f"{request.service}.{request.method}"
                raise DeadlineExceeded(f"{asked} did not answer within {timeout_s:g} s; trying again may help")
            overdue = idle_s is not None and loop.time() >= call.last_heard + idle_s
            if overdue and await self._is_silent(call, deadline - loop.time()):
                raise Unavailable(f"{request.service} fell silent for {idle_s:g} s while it worked; ask again")

    async def _catch_up(self, call: _Call) -> None:
        """We stood still: hear what was said meanwhile, and what whoever stood still with us says now.

        Else a machine that is too busy would have everything asked again.
        """
        with suppress(NatsError, OSError):  # NATS is away
            await frames.flushed(self._link.client, _MOMENT_S)
        await call.wait_until(asyncio.get_running_loop().time() + _MOMENT_S)

    async def _is_silent(self, call: _Call, patience_s: float) -> bool:
        """Whether nothing was said, rather than not heard yet: a loop that is late runs its timers before it reads.

        Once NATS answers a PING, all that it had sent before was heard.
        """
        heard = call.last_heard
        await frames.flushed(self._link.client, min(patience_s, _PING_S))
        return call.last_heard == heard

    async def _hang_up(self, call: _Call) -> None:
        with suppress(NatsError, OSError):
            await self._link.voice.say(call.hang_up, b"")

    def _refuse_status(self, message: Incoming, request: Request[Any]) -> None:
        if status_of(message) == NO_RESPONDERS:
            raise Unavailable(
                f"no {request.service} is running that could answer {request.method}; start one, as `paracle up` does"
            )

    def _decode[R: Message](self, request: Request[R], body: bytes) -> R:
        try:
            return cast("R", request.answer.decode(body))
        except MalformedMessage as error:
            raise InternalError(f"{request.service}.{request.method} answered something else: {error}") from error
