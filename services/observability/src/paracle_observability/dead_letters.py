"""Use cases of dead letters: keep them, show them, send them out again or give them up.

What becomes of a letter goes by these steps, so that a crash between any two of them leaves it where it was, to be
settled again:

    redriven: the message is published again    its run is told    gone from the stream    gone here, into the audit log
    dropped:                                    its run is told    gone from the stream    gone here, into the audit log

So a message may come twice when a redrive is repeated after a crash, as any message may; it keeps its id (`ce-id`).
Who asks again for what was done already, since the answer was lost, gets the same answer: the audit log knows.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.dead_letters import Letter
from paracle_chassis.delivery import Delivery
from paracle_domain import subjects
from paracle_domain.cursors import read_cursor, write_cursor
from paracle_domain.dead_letters import (
    SHOWN_BYTES,
    DeadLetter,
    DeadLetterPage,
    DeadLettersSettled,
    DeadLetterView,
    DropDeadLetter,
    DropDeadLetters,
    GetDeadLetter,
    LetterGone,
    ListDeadLetters,
    RedriveDeadLetter,
    RedriveDeadLetters,
    Refusal,
)
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import NotFound, ParacleError, quote
from paracle_domain.ids import parse_id
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Encoded
from paracle_observability import telemetry
from paracle_observability.ports import EventLog, Place, Shelf, StreamCopies
from paracle_observability.projections import EventRow

SOURCE: Final = "paracle/observability"
EXPIRY: Final = Context(tenant="", principal="service:observability")
_AT_ONCE: Final = 100
_ENTITY: Final = "dead_letter"

type Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of a real service."""
    return datetime.now(UTC)


class DeadLetters:
    """Everything that can be done with dead letters."""

    def __init__(self, shelf: Shelf, log: EventLog, copies: StreamCopies, bus: Bus, clock: Clock = utc_now) -> None:
        self._shelf = shelf
        self._log = log
        self._copies = copies
        self._bus = bus
        self._clock = clock

    async def take_in(self, batch: Sequence[Delivery]) -> None:
        """Keep what was buried; whatever it is, it is kept."""
        telemetry.BURIED.add(await self._shelf.keep([Letter.read(delivery) for delivery in batch]))

    async def list(self, request: ListDeadLetters, call: Context) -> DeadLetterPage:
        """A page, newest first; one more than asked for is read, to know whether there is a next one."""
        before = _place(request.cursor, "cursor")
        found = await self._shelf.newest(call.tenant, request.which, before, request.limit + 1)
        page = tuple(found[: request.limit])
        return DeadLetterPage(letters=page, next_cursor=_cursor(page[-1]) if len(found) > len(page) else None)

    async def get(self, request: GetDeadLetter, call: Context) -> DeadLetterView:
        """One, with the beginning of its body in a form that can be read."""
        letter = await self._shelf.get(call.tenant, request.id)
        if letter is None:
            raise _none(request.id, await self._fate(call.tenant, request.id))
        shown = letter.body[:SHOWN_BYTES]
        cut = len(shown) < len(letter.body)
        text = _text(shown, cut=cut)
        return DeadLetterView(
            letter=letter.about,
            headers=dict(letter.headers),
            text=text,
            base64=base64.b64encode(shown).decode() if text is None else None,
            truncated=cut,
        )

    async def redrive(self, request: RedriveDeadLetter, call: Context) -> DeadLettersSettled:
        """Send one out again."""
        await self._redrive(request.id, call)
        return DeadLettersSettled(settled=(request.id,))

    async def redrive_many(self, request: RedriveDeadLetters, call: Context) -> DeadLettersSettled:
        """Send out those that fit, in the order in which they came; one that cannot be is left and named."""

        async def one(id: str) -> None:
            await self._redrive(id, call)

        return await self._each(request, call, one)

    async def drop(self, request: DropDeadLetter, call: Context) -> DeadLettersSettled:
        """Give one up."""
        await self._drop(request.id, call, request.reason)
        return DeadLettersSettled(settled=(request.id,))

    async def drop_many(self, request: DropDeadLetters, call: Context) -> DeadLettersSettled:
        """Give up those that fit."""

        async def one(id: str) -> None:
            await self._drop(id, call, request.reason)

        return await self._each(request, call, one)

    async def expire(self, keep_s: float) -> None:
        """Give up those that nobody looked after for `keep_s`: one round."""
        before = self._clock() - timedelta(seconds=keep_s)
        more = True
        while more:
            expired = await self._shelf.older(before, _AT_ONCE)
            for tenant, name in expired:
                letter = await self._shelf.get(tenant, name)
                if letter is not None:
                    await self._give_up(letter, "expired", EXPIRY, f"nobody looked after it for {keep_s:g} s")
            more = len(expired) == _AT_ONCE

    # ── one letter ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _redrive(self, id: str, call: Context) -> None:
        letter = await self._unless(id, "redriven", call)
        if letter is None:
            return
        envelope = letter.redriven()
        assert letter.about.subject is not None
        message = Outgoing(letter.about.subject, Encoded(letter.body), envelope)
        await self._bus.publish([message])
        await self._give_up(letter, "redriven", call, None)

    async def _drop(self, id: str, call: Context, why: str) -> None:
        letter = await self._unless(id, "dropped", call)
        if letter is not None:
            await self._give_up(letter, "dropped", call, why)

    async def _unless(self, id: str, what: str, call: Context) -> Letter | None:
        """The letter; nothing, if it has become `what` already."""
        letter = await self._shelf.get(call.tenant, id)
        if letter is None:
            await self._require(call.tenant, id, what)
        return letter

    async def _require(self, tenant: str, id: str, what: str) -> None:
        """A letter that is not on the shelf has become `what`.

        Raises
        ------
        NotFound
            If it never was there, or something else became of it.
        """
        fate = await self._fate(tenant, id)
        if fate is None or fate.type != _event(what):
            raise _none(id, fate)

    async def _fate(self, tenant: str, id: str) -> EventRecord | None:
        """What became of a letter, as far as the audit log goes back."""
        found = await self._log.of_entity(tenant, _ENTITY, id, 0, 1)
        return found[0].event if found else None

    async def _give_up(self, letter: Letter, what: str, call: Context, why: str | None) -> None:
        """Take it off the shelf; the audit log keeps who did that, and why."""
        about = letter.about
        if about.run_id is not None:
            await self._bus.publish([_gone(letter.tenant, about.run_id, about)])
        await self._copies.delete(letter)
        record = _record(about, what, call.principal, why, self._clock())
        event = EventRow.of(letter.tenant, (record,), call.principal)
        if not await self._shelf.remove(letter.tenant, about.id, event):
            await self._require(letter.tenant, about.id, what)  # somebody else did so meanwhile
            return
        telemetry.SETTLED.add(1, {"how": what})
        context = Context(letter.tenant, call.principal, correlation_id=about.run_id)
        envelope = Envelope(record.message_id(letter.tenant), record.type, SOURCE, context, record.at)
        await self._bus.publish([Outgoing(event.subject, record, envelope)])

    async def _each(
        self,
        request: RedriveDeadLetters | DropDeadLetters,
        call: Context,
        one: Callable[[str], Awaitable[None]],
    ) -> DeadLettersSettled:
        """Do it to those that fit, and were there when this was asked for the first time."""
        until = request.which.until or self._clock()
        which = request.which.model_copy(update={"until": until})
        found = await self._shelf.oldest(call.tenant, which, _place(request.after, "after"), request.limit)
        settled: list[str] = []
        refused: list[Refusal] = []
        for about in found:
            try:
                await one(about.id)
            except ParacleError as error:
                if error.retryable:
                    raise
                refused.append(Refusal(id=about.id, message=error.message))
            else:
                settled.append(about.id)
        return DeadLettersSettled(
            settled=tuple(settled),
            refused=tuple(refused),
            more=len(found) == request.limit,
            until=until,
            after=_cursor(found[-1]) if found else request.after,
        )


def _none(id: str, fate: EventRecord | None) -> NotFound:
    """That there is no such letter, and what became of it, if that is known."""
    if fate is None:
        return NotFound(
            f"there is no dead letter {quote(id)} (any more); `paracle dlq ls` lists those there are", path="id"
        )
    how, at = fate.type.removeprefix(f"{_ENTITY}."), f"{fate.at:%Y-%m-%d %H:%M:%S} UTC"
    return NotFound(f"dead letter {quote(id)} is no more: it was {how} by {fate.data['by']} at {at}", path="id")


def _event(what: str) -> str:
    return f"{_ENTITY}.{what}"


def _gone(tenant: str, run_id: str, about: DeadLetter) -> Outgoing:
    message = LetterGone(run_id=run_id, dead_letter=about.id)
    context = Context(tenant, EXPIRY.principal, correlation_id=run_id)
    envelope = Envelope.wrap(LetterGone.type_name, SOURCE, context, id=f"{about.id}.gone")
    return Outgoing(subjects.result(tenant, run_id), message, envelope)


def _record(about: DeadLetter, what: str, principal: str, why: str | None, at: datetime) -> EventRecord:
    kept = about.model_dump(mode="json", exclude_none=True, exclude={"id"})
    why_ = {} if why is None else {"why": why}
    return EventRecord(
        entity=_ENTITY,
        id=about.id,
        seq=1,
        type=_event(what),
        at=at,
        correlation_id=about.run_id,
        data={**kept, "by": principal, **why_},
    )


def _text(body: bytes, *, cut: bool) -> str | None:
    """`body` as text, if it is text; the end of one that was cut may be half a character."""
    for end in range(len(body), max(len(body) - (3 if cut else 0), 0) - 1, -1):
        try:
            return body[:end].decode()
        except UnicodeDecodeError:
            continue
    return None


def _cursor(last: DeadLetter) -> str:
    return write_cursor(last.at, last.id)


def _place(cursor: str | None, path: str) -> Place | None:
    return None if cursor is None else read_cursor(cursor, _read, path=path)


def _read(at: datetime, words: Sequence[str]) -> Place:
    (name,) = words
    return Place(at, parse_id(name, "dead"))
