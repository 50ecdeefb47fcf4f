"""The shape of a pure state machine: decide, then evolve.

`decide(state, message)` says what happened (events) and what is to be done (directives); `evolve(state, event)` is the
state after an event. Neither does I/O, reads a clock or draws randomness: time and ids arrive in messages.
A state is a fold of its events, so replaying them gives it again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import Field
from pydantic_core import to_json

from paracle_domain.envelope import rfc3339
from paracle_domain.ids import is_id
from paracle_domain.messages import JsonObject, Message, Value


@dataclass(frozen=True, slots=True)
class Decision[S, E, D]:
    """What a message led to: events to keep, directives to carry out once they are kept, the state after the events.

    Two empty tuples mean that the message changed nothing (a duplicate, or something that came too late).
    """

    state: S
    events: tuple[E, ...] = ()
    directives: tuple[D, ...] = ()


class EarlierEvent(Value):
    """An event that was kept together with a later one, which tells of it."""

    seq: int
    type: str
    data: JsonObject = {}


class EventRecord(Message, type_name="event"):
    """One event of an actor's history, as it is published and streamed.

    `seq` counts an actor's events from 1 without a gap. Events that were decided together are published as one message:
    that of the last of them, in which `earlier` are those before it, in order. They have its time, cause and story.
    """

    entity: str
    id: str
    seq: int
    type: str
    at: datetime
    cause: str | None = None
    correlation_id: str | None = None
    data: JsonObject = {}
    earlier: tuple[EarlierEvent, ...] = Field(default=(), exclude_if=operator.not_)

    @classmethod
    def together(cls, records: Sequence[EventRecord]) -> EventRecord:
        """One record for `records`, which were decided together and follow one another."""
        *before, last = records
        earlier = tuple(EarlierEvent(seq=one.seq, type=one.type, data=one.data) for one in before)
        return last.model_copy(update={"earlier": earlier})

    def each(self) -> tuple[EventRecord, ...]:
        """Every event that it tells of, as a record of its own, in order."""
        alone = self.model_copy(update={"earlier": ()})
        before = (alone.model_copy(update={"seq": one.seq, "type": one.type, "data": one.data}) for one in self.earlier)
        return (*before, alone)

    def message_id(self, tenant: str) -> str:
        """The id that it is published under: `{id}.{seq}` for what has an id of its own (runs, tasks).

        What has a name is not the only one so called: there the tenant and the entity belong to the id.
        """
        own = f"{self.id}.{self.seq}"
        return own if is_id(self.id) else f"{tenant}.{self.entity}.{own}"


def encode_page(
    entity: str,
    actor_id: str,
    first_seq: int,
    events: Sequence[tuple[str, bytes]],
    *,
    at: datetime,
    cause: str,
    correlation_id: str,
) -> bytes:
    """The body of the `EventRecord` that tells of `events`: types and JSON, numbered from `first_seq`.

    Histories hold events as JSON, and all of them are published: this is the hot path, so nothing is parsed.
    """
    *before, (last_type, last) = events
    head = (
        f'{{"entity":"{entity}","id":"{actor_id}","seq":{first_seq + len(before)},"type":"{last_type}",'
        f'"at":"{rfc3339(at)}","cause":{to_json(cause).decode()},'
        f'"correlation_id":"{correlation_id}","data":'
    ).encode()
    if not before:
        return b"%b%b}" % (head, last)
    earlier = b",".join(
        [
            b'{"seq":%d,"type":"%b","data":%b}' % (seq, type_name.encode(), body)
            for seq, (type_name, body) in enumerate(before, first_seq)
        ]
    )
    return b'%b%b,"earlier":[%b]}' % (head, last, earlier)


def fold[S, E](evolve: Callable[[S, E], S], state: S, events: Iterable[E]) -> S:
    """The state after all `events`."""
    for event in events:
        state = evolve(state, event)
    return state
