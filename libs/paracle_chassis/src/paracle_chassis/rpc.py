"""Asking and answering over core NATS.

Handlers are declared in the routing table and documented through FastStream (`asyncapi.py`), but answered over the
broker's own connection: FastStream's per-message machinery answers 2,600 requests a second where this answers ten
times as many, and every CRUD call, query and model call goes through here.

A handler declared `long` sends a keep-alive every second until it answers, so that its caller may wait for minutes and
still notice within seconds that nobody works on it any more. The keep-alive carries an address for hanging up: a caller
that is cancelled uses it, and one that is gone altogether is noticed by NATS saying so.

A query that is not answered soon is asked again: a replica that hangs goes on being sent its share of the questions
until the server cuts it off.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from paracle_chassis import codec, frames, telemetry
from paracle_chassis.claims import Claims
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import NO_RESPONDERS, Link, status_of
from paracle_chassis.logging import envelope_story, story
from paracle_chassis.outages import is_outage
from paracle_chassis.routes import RpcRoute
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import (
    DeadlineExceeded,
    InternalError,
    MalformedMessage,
    NotFound,
    ParacleError,
    Unavailable,
)
from paracle_domain.messages import Message, Request

_log = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 1.0
ABANDONED_AFTER: Final = 5  # keep-alives that reach nobody; a caller may just be reconnecting
MOST_IN_FLIGHT: Final = 512
MOST_LONG: Final = 20_000
"""Most `long` requests in hand. They wait for others most of the time, and nobody else is to wait for them."""
ASK_AGAIN_S: Final = 0.5
_PING_S: Final = 5.0  # NATS is away if it takes longer


class RpcServer:
    """Answers every request of a service, each in a task of its own."""

    def __init__(self, service: str, routes: Sequence[RpcRoute], link: Link, claims: Claims) -> None:
        self._service = service
        self._routes = {route.method: route for route in routes}
        self._link = link
        self._claims = claims
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._long_slots = asyncio.Semaphore(MOST_LONG)
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self._link.client.subscribe(
            subjects.rpc(subjects.ANY, self._service, subjects.ANY),
            queue=self._service,
            cb=self._receive,
            pending_msgs_limit=0,
            pending_bytes_limit=0,
        )

    async def drain(self, deadline_s: float) -> None:
        """Take no more requests; finish those in hand, and cut off what is not done in time."""
        if self._subscription is not None:
            with suppress(NatsError):
                await self._subscription.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it untyped
            self._subscription = None
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=deadline_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _receive(self, message: Msg) -> None:
        route = self._routes.get(message.subject.rpartition(".")[2])
        slots = self._long_slots if route is not None and route.long else self._slots
        await slots.acquire()
        task = asyncio.get_running_loop().create_task(self._serve(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: slots.release())

    async def _serve(self, message: Msg) -> None:
        try:
            body, headers = await self._answer(message)
        except asyncio.CancelledError:
            body, headers = codec.encode_error(Unavailable(f"{self._service} is shutting down; ask again"))
            await self._respond(message, body, headers)
            raise
        await self._respond(message, body, headers)

    async def _respond(self, message: Msg, body: bytes, headers: dict[str, str]) -> None:
        if not message.reply:
            return
        try:
            body = await self._claims.check_in(body, headers)
            await self._link.client.publish(message.reply, body, headers=headers)
        except ParacleError as error:
            _log.warning("cannot answer %s: %s", message.subject, error)
            problem, marks = codec.encode_error(error)
            await self._link.client.publish(message.reply, problem, headers=marks)
        except (NatsError, OSError) as error:
            _log.warning("cannot answer %s: %s", message.subject, error)

    async def _answer(self, message: Msg) -> tuple[bytes, dict[str, str]]:
        method = message.subject.rpartition(".")[2]
        envelope = Envelope.read(
            message.headers, tenant=subjects.tenant_of(message.subject), default_id="", default_type=method
        )
        with story(**envelope_story(envelope), method=method), telemetry.server_span(self._service, method, envelope):
            try:
                return (await self._handle(method, message, envelope.context)).encode(), {}
            except ParacleError as error:
                if isinstance(error, InternalError):
                    _log.exception("%s.%s failed", self._service, method)
                telemetry.mark_failed(error.code)
                return codec.encode_error(error)
            except Exception as error:  # noqa: BLE001  # a bug must become an answer too; its details stay in the log
                return codec.encode_error(self._unexpected(method, error))

    def _unexpected(self, method: str, error: Exception) -> ParacleError:
        telemetry.mark_failed("unavailable" if is_outage(error) else "internal")
        if is_outage(error):
            _log.warning("%s.%s: %s: %s", self._service, method, type(error).__name__, error)
            return Unavailable(f"{self._service} cannot reach what it needs just now; ask again")
        _log.exception("%s.%s failed unexpectedly", self._service, method)
        return codec.internal(self._service)

    async def _handle(self, method: str, message: Msg, context: Context) -> Message:
        route = self._routes.get(method)
        if route is None:
            known = ", ".join(sorted(self._routes))
            raise NotFound(f"{self._service} has no method {method!r}; it has {known}")
        body = await self._claims.check_out(message.data, message.headers)
        request = cast("Request[Any]", route.request.decode(body))
        if route.long and message.reply:
            return await _KeptAlive(self._link, message.reply).run(route.handler(request, context))
        answer: Message = await route.handler(request, context)
        return answer


class _KeptAlive:
    """Runs a handler while its caller is told every second that it is being worked on."""

    def __init__(self, link: Link, caller: str) -> None:
        self._link = link
        self._caller = caller
        self._unheard = 0  # keep-alives of which NATS said that nobody listens
        self._work: asyncio.Future[Message] | None = None
        self._hung_up = False

    async def run(self, handler: Awaitable[Message]) -> Message:
        self._work = asyncio.ensure_future(handler)
        address = self._link.inbox.expect(self._on_word)
        beat = asyncio.get_running_loop().create_task(self._beat(address))
        try:
            return await self._work
        except asyncio.CancelledError:
            if not self._hung_up:
                raise
            raise DeadlineExceeded("the caller no longer waits for an answer") from None
        finally:
            beat.cancel()
            self._work.cancel()
            self._link.inbox.forget(address)

    async def _beat(self, address: str) -> None:
        headers = {codec.PROGRESS_HEADER: codec.WORKING}
        while True:
            with suppress(NatsError, OSError):
                await self._link.client.publish(self._caller, b"", address, headers)
            await asyncio.sleep(KEEP_ALIVE_S)

    def _on_word(self, _more: str, message: Incoming) -> None:
        """The caller hangs up, or NATS says that there is no caller."""
        gone = status_of(message) == NO_RESPONDERS
        if gone:
            self._unheard += 1
        if not gone or self._unheard >= ABANDONED_AFTER:
            self._hung_up = True
            assert self._work is not None
            self._work.cancel()


class _Call:
    """One question under way: its answer, and when its answerer was last heard."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.answer: asyncio.Future[Incoming] = loop.create_future()
        self.asked_at = self.last_heard = loop.time()
        self.times = 0
        self.hang_up = ""

    def on_message(self, _more: str, message: Incoming) -> None:
        if self.times > 1 and status_of(message) == NO_RESPONDERS:
            return  # whoever was asked first may still answer
        self.last_heard = self._loop.time()
        if message.headers and message.headers.get(codec.PROGRESS_HEADER) == codec.WORKING:
            self.hang_up = message.reply
        elif not self.answer.done():
            self.answer.set_result(message)


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
                await self._link.client.publish(subject, body, reply, headers)
                again_s = call.times * ASK_AGAIN_S if request.query else math.inf
                if (answer := await self._await(call, request, timeout_s, idle_s, again_s)) is not None:
                    return answer
        except (NatsError, OSError) as error:
            raise Unavailable(f"cannot ask {request.service}: NATS is not connected; trying again may help") from error
        finally:
            self._link.inbox.forget(reply)
            if call.hang_up and not call.answer.done():
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
            await asyncio.wait((call.answer,), timeout=min(until, again) - loop.time())
            if call.answer.done():
                return call.answer.result()
            if again <= loop.time() < deadline:
                return None
            if loop.time() >= deadline:
                asked = f"{request.service}.{request.method}"
                raise DeadlineExceeded(f"{asked} did not answer within {timeout_s:g} s; trying again may help")
            overdue = idle_s is not None and loop.time() >= call.last_heard + idle_s
            if overdue and await self._is_silent(call, deadline - loop.time()):
                raise Unavailable(f"{request.service} fell silent for {idle_s:g} s while it worked; ask again")

    async def _is_silent(self, call: _Call, patience_s: float) -> bool:
        """Whether nothing was said, rather than not heard yet: a loop that is late runs its timers before it reads.

        Once NATS answers a PING, all that it had sent before was heard.
        """
        heard = call.last_heard
        await frames.flushed(self._link.client, min(patience_s, _PING_S))
        return call.last_heard == heard

    async def _hang_up(self, call: _Call) -> None:
        call.answer.cancel()
        with suppress(NatsError, OSError):
            await self._link.client.publish(call.hang_up)

    def _refuse_status(self, message: Incoming, request: Request[Any]) -> None:
        if status_of(message) == NO_RESPONDERS:
            raise Unavailable(f"no {request.service} is running that could answer {request.method}; start one")

    def _decode[R: Message](self, request: Request[R], body: bytes) -> R:
        try:
            return cast("R", request.answer.decode(body))
        except MalformedMessage as error:
            raise InternalError(f"{request.service}.{request.method} answered something else: {error}") from error
