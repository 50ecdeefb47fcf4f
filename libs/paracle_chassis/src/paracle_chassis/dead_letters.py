"""Dead letters on the wire: what a message becomes when it is given up, and how it goes out again.

Whoever buries a message (`receipts`) copies it with `dead_headers`; whoever keeps dead letters reads them with
`Letter.read`, which takes anything, since what comes to nothing here would have nowhere else to go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self, override

from paracle_domain.dead_letters import (
    DEAD_AGAIN,
    DEAD_CODE,
    DEAD_CONSUMER,
    DEAD_ID,
    DEAD_PREFIX,
    DEAD_REASON,
    DEAD_SEQ,
    DEAD_STREAM,
    DEAD_SUBJECT,
    DEAD_TOLD,
    DEAD_TRIES,
    REDRIVEN_FROM,
    DeadLetter,
    dead_letter_id,
)
from paracle_domain.envelope import CE_ID, CE_TYPE, CLAIM, MSG_ID, REPLY_TO, Context, Envelope
from paracle_domain.errors import InvalidInput, ParacleError
from paracle_domain.ids import is_id
from paracle_domain.records import record
from paracle_domain.subjects import DEADLETTERS, STREAM_OF, Subject

if TYPE_CHECKING:
    from paracle_chassis.delivery import Delivery
    from paracle_chassis.receipts import Place

UNKNOWN: Final = "unknown"
_REASON_LIMIT: Final = 1000
_MS: Final = 1_000_000
_SERVERS: Final = "nats-"  # what such headers say is about one publication: its id, its batch, its expectations
_FIRST_DEATH: Final = (DEAD_SUBJECT, DEAD_STREAM, DEAD_SEQ, DEAD_CONSUMER, DEAD_CODE, DEAD_TRIES, DEAD_ID)
_STAY: Final = (REDRIVEN_FROM, DEAD_TOLD)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def id_of(key: str) -> str:
    """The id of the dead letter whose message id in its stream is `key`."""
    return dead_letter_id(key, _time_ms(key))


def dead_headers(delivery: Delivery, place: Place, error: ParacleError) -> dict[str, str]:
    """The headers of a dead letter: its own, and what became of it.

    A dead letter that cannot be read itself still says where it came from at first. Headers that are too many to be
    handed on are left out.
    """
    was_dead = place.stream == DEADLETTERS
    found = {} if delivery.overloaded else delivery.headers
    first = found if was_dead else {}
    key = f"{place.stream}.{place.seq}.{place.stored_ns}.{place.consumer}"
    return {
        **{name: value for name, value in found.items() if _is_own(name) or name in _STAY},
        MSG_ID: key,
        DEAD_ID: key if delivery.overloaded else delivery.envelope.id,
        DEAD_SUBJECT: delivery.subject,
        DEAD_STREAM: place.stream,
        DEAD_SEQ: str(place.seq),
        DEAD_CONSUMER: place.consumer,
        DEAD_CODE: error.code,
        DEAD_REASON: " ".join(str(error).split())[:_REASON_LIMIT],
        DEAD_TRIES: str(place.deliveries),
        **{name: first[name] for name in _FIRST_DEATH if name in first},
        **({DEAD_AGAIN: "true"} if was_dead else {}),
    }


def is_hopeless(delivery: Delivery, place: Place) -> bool:
    """Whether its readers refuse it however often it is buried: it stays in the stream of dead letters as it is."""
    return place.stream == DEADLETTERS and DEAD_AGAIN in delivery.headers


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it is kept.

    Attributes
    ----------
    about
        What lists show of it.
    headers, body
        The message as it was, without what was added when it was given up.
    place
        Its number in the stream of dead letters.
    told
        Whether its run knows of the failure already.
    """

    tenant: str
    about: DeadLetter
    headers: Mapping[str, str]
    body: bytes
    place: int
    told: bool = False

    @classmethod
    def read(cls, delivery: Delivery) -> Self:
        """The dead letter in `delivery`, whatever it is: what is not said is unknown."""
        found = {name: _clean(value) for name, value in delivery.headers.items()}
        key = found.get(MSG_ID) or f"{delivery.stream}.{delivery.stream_seq}.{delivery.stored_ns}"
        subject = found.get(DEAD_SUBJECT)
        envelope = Envelope.read(found, tenant=delivery.tenant, default_id=key, default_type=UNKNOWN)
        from_letter = found.get(REDRIVEN_FROM, "")
        about = DeadLetter(
            id=id_of(key),
            service=delivery.subject.rpartition(".")[2],
            code=found.get(DEAD_CODE, UNKNOWN),
            reason=found.get(DEAD_REASON, "it was put here without a reason"),
            subject=subject,
            type=_header(found, CE_TYPE) or (subject or delivery.subject).rpartition(".")[2],
            message_id=found.get(DEAD_ID, envelope.id),
            principal=envelope.context.principal,
            run_id=_run_of(subject, envelope, delivery.body),
            stream=found.get(DEAD_STREAM),
            stream_seq=_number(found.get(DEAD_SEQ)),
            tries=_number(found.get(DEAD_TRIES)) or 0,
            size=len(delivery.body),
            at=_EPOCH + timedelta(microseconds=delivery.stored_ns // 1000),
            redriven_from=from_letter if is_id(from_letter, "dead") else None,
        )
        own = {name: value for name, value in found.items() if _is_own(name)}
        return cls(delivery.tenant, about, own, delivery.body, delivery.stream_seq, told=DEAD_TOLD in found)

    def redriven(self) -> Redriven:
        """The envelope under which it goes out again.

        Raises
        ------
        InvalidInput
            If nobody knows where it was published.
        """
        if not self._has_home():
            raise InvalidInput(
                f"dead letter {self.about.id} does not say on which subject of this tenant it was published, so it "
                "cannot be published again; drop it",
                path="id",
            )
        context = Context(self.tenant, self.about.principal, correlation_id=self.about.run_id)
        return Redriven(
            self.about.id, self.about.type, UNKNOWN, context, kept=self.headers, first=self.about.message_id
        )

    def _has_home(self) -> bool:
        """Whether its subject is one that a stream keeps, in its own tenant: a forged header reaches no other."""
        try:
            subject = Subject.parse(self.about.subject or "")
        except ParacleError:
            return False
        return subject.tenant == self.tenant and subject.kind in STREAM_OF and subject.kind != "dlq"


@record
class Redriven(Envelope):
    """A message that goes out again as it was: same headers, same id for whoever handles it (`ce-id`).

    JetStream gets another one, that of the dead letter, so that it does not take the message for the one that it
    has seen; redriving the same dead letter twice at once is one message again. Nobody waits for its answer any more.
    """

    kept: Mapping[str, str] = field(default_factory=dict)
    first: str = ""

    @override
    def headers(self) -> dict[str, str]:
        own = {name: value for name, value in self.kept.items() if name.lower() not in {REPLY_TO, CE_ID}}
        return {**own, CE_ID: self.first, MSG_ID: self.id, REDRIVEN_FROM: self.id}


def _is_own(name: str) -> bool:
    lower = name.lower()
    return not lower.startswith((_SERVERS, DEAD_PREFIX)) and lower not in {CLAIM, REDRIVEN_FROM}


def _header(headers: Mapping[str, str], wanted: str) -> str | None:
    return next((value for name, value in headers.items() if name.lower() == wanted), None)


def _clean(value: str) -> str:
    """`value` as PostgreSQL and JSON can have it."""
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _run_of(subject: str | None, envelope: Envelope, body: bytes) -> str | None:
    """The run that it is about: as its subject says, or its headers, or its body."""
    parts = (subject or "").split(".")
    if len(parts) == 5 and parts[3] == "result" and is_id(parts[4], "run"):
        return parts[4]
    story = envelope.context.correlation_id
    if story is not None and is_id(story, "run"):
        return story
    try:
        said = json.loads(body).get("run_id") if b'"run_id"' in body else None
    except (ValueError, AttributeError, RecursionError):
        return None
    return said if isinstance(said, str) and is_id(said, "run") else None


def _time_ms(key: str) -> int:
    """When what `key` names was stored first, if it says so: `{stream}.{seq}.{stored_ns}.{consumer}`."""
    parts = key.split(".")
    stored_ns = _number(parts[2]) if len(parts) > 2 else None
    return min((stored_ns or 0) // _MS, 2**48 - 1)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 20 else None
