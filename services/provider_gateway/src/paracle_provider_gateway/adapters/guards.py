"""Guards over NATS: processes of tenants that are asked."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta

from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from paracle_chassis import telemetry
from paracle_chassis.codec import PROGRESS_HEADER, WORKING, decode_error
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import NO_RESPONDERS, Link, status_of
from paracle_domain.envelope import Context
from paracle_domain.errors import DeadlineExceeded, MalformedMessage, PayloadTooLarge, Unavailable
from paracle_domain.guard.messages import SERVICE, GuardAnswer, GuardQuestion, subject_of
from paracle_domain.tool.calls import ToolCall
from paracle_provider_gateway.guards.asked import Telling
from paracle_provider_gateway.retelling import LOOK_AGAIN_S, WORTH_TELLING_S


class NatsAsker:
    """`Asker`: whoever listens on the guard's subject. While nobody does, somebody may be about to."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(
        self, guard: str, question: GuardQuestion, context: Context, timeout_s: float, tell: Telling
    ) -> GuardAnswer:
        """See `Asker.ask`."""
        headers = _headers(guard, question, context, timeout_s)
        subject, body = subject_of(guard, context.tenant), question.encode()
        absent, tell_at = "", _now() + WORTH_TELLING_S
        try:
            async with asyncio.timeout(timeout_s):
                with telemetry.client_span(SERVICE, guard, headers):
                    while (answer := await self._asked(subject, body, headers)) is None:
                        absent = f"nobody listens on {subject}: start a worker that serves it"
                        if _now() >= tell_at:
                            tell_at = math.inf
                            await tell(absent)
                        await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError as error:
            why = f"; {absent}" if absent else ""
            raise DeadlineExceeded(f"{guard!r} did not answer within {timeout_s:g} s{why}") from error
        return _read(answer, len(question.passages))

    async def _asked(self, subject: str, body: bytes, headers: dict[str, str]) -> Incoming | None:
        """The answer; `None` if nobody is there to give one."""
        answered: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()

        def hear(_more: str, message: Incoming) -> None:
            if message.headers.get(PROGRESS_HEADER) != WORKING and not answered.done():
                answered.set_result(message)

        reply = self._link.inbox.expect(hear)
        try:
            await self._link.voice.say(subject, body, reply, headers)
            answer = await answered
        except MaxPayloadError as error:
            limit = self._link.client.max_payload
            raise PayloadTooLarge(f"{len(body):,} bytes of text; NATS takes messages of {limit:,}") from error
        except (NatsError, OSError) as error:
            raise Unavailable(f"NATS is not connected ({type(error).__name__})") from error
        finally:
            self._link.inbox.forget(reply)
        return None if status_of(answer) == NO_RESPONDERS else answer


def _headers(guard: str, question: GuardQuestion, context: Context, timeout_s: float) -> dict[str, str]:
    """Those of a call of a tool: whoever serves guards serves tools, too."""
    call = ToolCall(
        tool=guard,
        tenant=context.tenant,
        task_id=question.task_id,
        run_id=question.run_id,
        deadline_at=datetime.now(UTC) + timedelta(seconds=timeout_s),
        principal=context.principal,
    )
    return call.headers()


def _read(message: Incoming, passages: int) -> GuardAnswer:
    if (error := decode_error(message.data, message.headers)) is not None:
        raise error
    try:
        answer = GuardAnswer.decode(message.data)
    except MalformedMessage as wrong:  # which quotes what it is about
        raise MalformedMessage("what it answered is no guard.answer", path=wrong.path) from None
    assert isinstance(answer, GuardAnswer)
    if answer.texts is not None and len(answer.texts) != passages:
        raise MalformedMessage(f"{len(answer.texts)} texts in the places of {passages}", path="texts")
    return answer


def _now() -> float:
    return asyncio.get_running_loop().time()
