"""Answers to commands and messages, also to whoever sent one with nothing but `nats req`.

JetStream does not keep the reply subject of a message. Our own clients send theirs in the header `paracle-reply-to`.
For everybody else each replica also hears what its service answers on core NATS (not durably, no queue group) and
remembers the reply subject by the message's fingerprint: its subject, ids and body. When the durable copy was handled,
by whichever replica, the answer goes to the remembered inbox, and the others are told to forget it.

JetStream may not deliver a second copy of a message that has an id. So all who sent it are remembered and answered
together, and one who sends it again later is given the answer of lately at once.

Two corners remain. What is refused before its core copy has come is a dead letter, though its sender is answered, too.
And identical messages without any id, sent at the same instant to a service of several replicas, are each answered
once, but it is not defined which run's answer goes to which of the senders.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from nats.errors import Error as NatsError

from paracle_chassis import codec
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import Heard, Link
from paracle_chassis.voice import frame_of
from paracle_domain.dead_letters import REDRIVEN_FROM
from paracle_domain.envelope import CE_ID, MSG_ID, REPLY_TO
from paracle_domain.errors import ParacleError
from paracle_domain.messages import JsonObject, Message
from paracle_domain.subjects import takes_answers

_log = logging.getLogger(__name__)

REMEMBER_S: Final = 60.0
ANSWERS_S: Final = 10.0
MOST_REMEMBERED: Final = 10_000
_ORIGIN: Final = "paracle-origin"
_IDS: Final = (MSG_ID.lower(), CE_ID)


@dataclass(slots=True)
class _Asked:
    """Inboxes that wait for the answer of one fingerprint, oldest first.

    `together`: the message has an id, so its senders mean the same and one answer is for all of them.
    """

    together: bool
    inboxes: list[tuple[float, str]] = field(default_factory=list)  # nearly always of one, and a deque has 760 bytes

    def next(self) -> Sequence[tuple[float, str]]:
        """Whom the next answer is for."""
        return self.inboxes if self.together else (self.inboxes[0],)


@dataclass(frozen=True, slots=True)
class _Answered:
    at: float
    body: bytes
    headers: dict[str, str]


class Replies:
    """The answers that one replica owes."""

    def __init__(self, service: str, link: Link) -> None:
        self._service = service
        self._link = link
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._answered: OrderedDict[str, _Answered] = OrderedDict()
        self._heard: list[Heard] = []
        self._origin = ""
        self._marks: list[str] = []

    async def start(self, answered: Iterable[str]) -> None:
        """Hear what comes on the subjects that the service answers, and what other replicas answered."""
        self._origin = self._link.client.new_inbox().rpartition(".")[2]
        for subject in answered:
            self._heard.append(await self._link.hear(subject, self._on_message))
        self._heard.append(await self._link.hear(self._told, self._on_answered_elsewhere))

    async def stop(self) -> None:
        heard, self._heard = self._heard, []
        for each in heard:
            await each.stop()

    async def answer(self, delivery: Delivery, answer: Message | JsonObject | ParacleError) -> None:
        """Answer whoever sent `delivery`. The answer also reads as JetStream's acknowledgement."""
        mark = fingerprint(delivery.subject, delivery.headers, delivery.body)
        inboxes = self._inboxes(mark, delivery)
        kept = not inboxes or _has_id(delivery.headers)
        if kept or any(inboxes):
            body, headers = codec.encode_answer(answer, stream=delivery.stream, seq=delivery.stream_seq)
            if kept:
                self._remember_answer(mark, _Answered(_now(), body, headers))
            for inbox in filter(None, inboxes):
                self._say(inbox, body, headers)
        self._tell(mark)

    def waited_for(self, delivery: Delivery) -> bool:
        """Whether somebody waits for what becomes of `delivery`, as far as is known here.

        Nobody does for one that was redriven, although whoever publishes has an inbox for what NATS says of it.
        """
        if REDRIVEN_FROM in delivery.headers:
            return False
        if delivery.envelope.reply_to is not None:
            return True
        asked = self._asked.get(fingerprint(delivery.subject, delivery.headers, delivery.body))
        return asked is not None and any(inbox for _, inbox in asked.next())

    @property
    def _told(self) -> str:
        return f"paracle.internal.answered.{self._service}"

    def _say(self, inbox: str, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            self._link.voice.put(frame_of(inbox, body, headers=headers))
        except (NatsError, OSError) as error:
            _log.warning("cannot answer a message: %s", error)  # it is done; its sender asks again

    def _tell(self, mark: str) -> None:
        """Let other replicas forget who waits for `mark`; what is answered in one turn of the loop is told at once."""
        if not self._marks:
            asyncio.get_running_loop().call_soon(self._tell_all)
        self._marks.append(mark)

    def _tell_all(self) -> None:
        marks, self._marks = self._marks, []
        self._say(self._told, " ".join(marks).encode(), {_ORIGIN: self._origin})

    def _on_message(self, message: Incoming) -> None:
        own, has_id = _inbox(message.headers.get(REPLY_TO)), _has_id(message.headers)
        mark = fingerprint(message.subject, message.headers, message.data)
        known = self._known_answer(mark, has_id=has_id)
        if own is not None and known is None and not has_id:
            return  # the durable copy says whom to answer
        if known is None:  # one that wants no answer stands in the queue too, or it would get another's
            self._asked.setdefault(mark, _Asked(has_id)).inboxes.append((_now(), own or _inbox(message.reply) or ""))
            self._forget_old()
        elif inbox := own or _inbox(message.reply):
            self._say(inbox, known.body, known.headers)

    def _on_answered_elsewhere(self, message: Incoming) -> None:
        if message.headers.get(_ORIGIN) != self._origin:
            for mark in message.data.decode("utf-8", "replace").split(" "):
                self._take(mark)

    def _known_answer(self, mark: str, *, has_id: bool) -> _Answered | None:
        """An answer given lately: to the same message by its id, or to one without whose core copy came late."""
        known = self._answered.get(mark) if has_id else self._answered.pop(mark, None)
        return known if known is not None and _now() - known.at < ANSWERS_S else None

    def _inboxes(self, mark: str, delivery: Delivery) -> set[str]:
        """Whom the answer of `delivery` is for; an empty name for a sender that wants none."""
        own = delivery.envelope.reply_to
        if own is not None and not _has_id(delivery.headers):
            return {own}
        return self._take(mark) | ({own} if own is not None else set())

    def _take(self, mark: str) -> set[str]:
        """The inbox that waits longest for `mark`, or all that wait for it together."""
        asked = self._asked.get(mark)
        if asked is None:
            return set()
        taken = {inbox for _, inbox in asked.next()}
        del asked.inboxes[: len(asked.next())]
        if not asked.inboxes:
            del self._asked[mark]
        return taken

    def _remember_answer(self, mark: str, answered: _Answered) -> None:
        self._answered[mark] = answered
        self._answered.move_to_end(mark)
        while self._answered:
            oldest = next(iter(self._answered.values()))
            if len(self._answered) <= MOST_REMEMBERED and _now() - oldest.at < ANSWERS_S:
                break
            self._answered.popitem(last=False)

    def _forget_old(self) -> None:
        while self._asked:
            mark, asked = next(iter(self._asked.items()))
            if len(self._asked) <= MOST_REMEMBERED and _now() - asked.inboxes[-1][0] < REMEMBER_S:
                break
            del self._asked[mark]


def _has_id(headers: Mapping[str, str] | None) -> bool:
    return any(name.lower() in _IDS for name in headers or ())


def _inbox(named: str | None) -> str | None:
    return named if named and takes_answers(named) else None


def fingerprint(subject: str, headers: Mapping[str, str] | None, body: bytes) -> str:
    """What a message and its durable copy have in common, and different messages do not."""
    digest = hashlib.blake2b(subject.encode(), digest_size=16)
    found = {name.lower(): value for name, value in (headers or {}).items()}
    for name in _IDS:
        digest.update(f"\x1f{found.get(name, '')}".encode())
    digest.update(b"\x1f" + body)
    return digest.hexdigest()


def _now() -> float:
    return asyncio.get_running_loop().time()
