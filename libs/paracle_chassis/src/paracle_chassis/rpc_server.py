"""Answering over core NATS.

Handlers are declared in the routing table and documented through FastStream (`asyncapi.py`), but answered over the
broker's own connection: FastStream's per-message machinery answers 2,600 requests a second where this answers ten
times as many, and every CRUD call, query and model call goes through here.

A handler declared `long` has its caller told every two seconds that it is worked on, so that he may wait for minutes
and still notice within seconds that nobody works on it any more. What he is told carries an address for hanging up: a
caller that is cancelled uses it, and one that is gone altogether is noticed by NATS saying so.

A question that is asked again while it is worked on is not worked on twice: what takes long because there is much to do
would take ever longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from nats.errors import Error as NatsError

from paracle_chassis import codec, telemetry
from paracle_chassis.claims import Claims
from paracle_chassis.heartbeats import Heartbeats, Unheard
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import NO_RESPONDERS, Heard, Link, status_of
from paracle_chassis.logging import envelope_story, story
from paracle_chassis.outages import is_outage
from paracle_chassis.routes import RpcRoute
from paracle_domain import subjects
from paracle_domain.envelope import CE_ID, Context, Envelope
from paracle_domain.errors import DeadlineExceeded, InternalError, NotFound, ParacleError, Unavailable, quote
from paracle_domain.exactness import require_known
from paracle_domain.messages import Message, Request

_log = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 2.0
MOST_IN_FLIGHT: Final = 512
MOST_LONG: Final = 20_000
"""Most `long` requests in hand. They wait for others most of the time, and nobody else is to wait for them."""

type _Question = tuple[str, str, str]
"""What is asked, where the answer goes, and its id: the same when it is asked again."""


class _Desk:
    """Requests of one kind: at most `room` in hand, the others in their order behind."""

    def __init__(self, room: int) -> None:
        self._room = room
        self.in_hand: set[asyncio.Task[None]] = set()
        self._behind: deque[Coroutine[Any, Any, None]] = deque()

    def take(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self.in_hand) < self._room:
            self._begin(work)
        else:
            self._behind.append(work)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.in_hand.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.in_hand.discard(task)
        if self._behind:
            self._begin(self._behind.popleft())


class RpcServer:
    """Answers every request of a service, each in a task of its own."""

    def __init__(self, service: str, routes: Sequence[RpcRoute], link: Link, claims: Claims) -> None:
        self._service = service
        self._routes = {route.method: route for route in routes}
        self._link = link
        self._claims = claims
        self._short, self._long = _Desk(MOST_IN_FLIGHT), _Desk(MOST_LONG)
        self._heartbeats = Heartbeats(link.voice, KEEP_ALIVE_S)
        self._in_hand: set[_Question] = set()
        self._heard: Heard | None = None

    async def start(self) -> None:
        subject = subjects.rpc(subjects.ANY, self._service, subjects.ANY)
        self._heard = await self._link.hear(subject, self._receive, queue=self._service)

    async def drain(self, deadline_s: float) -> None:
        """Take no more requests; finish those in hand, and cut off what is not done in time."""
        if self._heard is not None:
            await self._heard.drain()
            self._heard = None
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while tasks := self._short.in_hand | self._long.in_hand:
                    await asyncio.wait(tasks)
        while late := self._short.in_hand | self._long.in_hand:
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _receive(self, message: Incoming) -> None:
        if message.reply and not subjects.takes_answers(message.reply):
            _log.warning("refused a question on %s: no answer may go to %s", message.subject, quote(message.reply))
            return
        question = (message.subject, message.reply, message.headers.get(CE_ID, ""))
        if all(question) and question in self._in_hand:
            return
        self._in_hand.add(question)
        route = self._routes.get(message.subject.rpartition(".")[2])
        desk = self._long if route is not None and route.long else self._short
        desk.take(self._serve(message, question))

    async def _serve(self, message: Incoming, question: _Question) -> None:
        try:
            await self._respond(message, *await self._answer(message))
        except asyncio.CancelledError:
            problem = codec.encode_error(Unavailable(f"{self._service} is shutting down; ask again"))
            await self._respond(message, *problem)  # who was answered already hears no more of it
            raise
        finally:
            self._in_hand.discard(question)

    async def _respond(self, message: Incoming, body: bytes, headers: dict[str, str]) -> None:
        if not message.reply:
            return
        try:
            body = await self._claims.check_in(body, headers)
            await self._link.voice.say(message.reply, body, headers=headers)
        except ParacleError as error:
            _log.warning("cannot answer %s: %s", message.subject, error)
            problem, marks = codec.encode_error(error)
            await self._link.voice.say(message.reply, problem, headers=marks)
        except (NatsError, OSError) as error:
            _log.warning("cannot answer %s: %s", message.subject, error)

    async def _answer(self, message: Incoming) -> tuple[bytes, dict[str, str]]:
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

    async def _handle(self, method: str, message: Incoming, context: Context) -> Message:
        route = self._routes.get(method)
        if route is None:
            known = ", ".join(sorted(self._routes))
            raise NotFound(f"{self._service} has no method {method!r}; it has {known}")
        body = await self._claims.check_out(message.data, message.headers)
        request = cast("Request[Any]", route.request.decode(body))
        if route.exact:
            require_known(body, request)
        if route.long and message.reply:
            return await _Overheard(self._link).run(route.handler(request, context), self._heartbeats, message.reply)
        answer: Message = await route.handler(request, context)
        return answer


class _Overheard:
    """Runs a handler while its caller is told that it is being worked on, and stops it when he hangs up."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unheard = Unheard()
        self._task: asyncio.Task[Any] | None = None
        self._hung_up = False

    async def run(self, handler: Awaitable[Message], heartbeats: Heartbeats, caller: str) -> Message:
        self._task = asyncio.current_task()
        address = self._link.inbox.expect(self._on_word)
        stop = heartbeats.start(address, caller)
        try:
            return await handler
        except asyncio.CancelledError:
            if not self._hung_up or self._task is None or self._task.uncancel():
                raise
            raise DeadlineExceeded("the caller no longer waits for an answer") from None
        finally:
            self._task = None
            stop()
            self._link.inbox.forget(address)

    def _on_word(self, sign: str, message: Incoming) -> None:
        """The caller hangs up, or NATS says that nobody listened to that sign of life."""
        if status_of(message) == NO_RESPONDERS and not self._unheard.add(int(sign)):
            return
        if not self._hung_up and self._task is not None:
            self._hung_up = True
            self._task.cancel()
