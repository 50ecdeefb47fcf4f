"""The shape of a pure state machine: decide, then evolve.

`decide(state, message)` says what happened (events) and what is to be done (directives); `evolve(state, event)` is the
state after an event. Neither does I/O, reads a clock or draws randomness: time and ids arrive in messages.
A state is a fold of its events, so replaying them gives it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from paracle_domain.envelope import rfc3339
from paracle_domain.ids import is_id
from paracle_domain.messages import JsonObject, Message


@dataclass(frozen=True, slots=True)
class Decision[E, D]:
    """What a message led to: events to keep, directives to carry out once they are kept.

    Two empty tuples mean that the message changed nothing (a duplicate, or something that came too late).
    """

    events: tuple[E, ...] = ()
    directives: tuple[D, ...] = ()


class EventRecord(Message, type_name="event"):
    """One event of an actor's history, as it is published and streamed.

    `seq` counts an actor's events from 1 without a gap.
    """

    entity: str
    id: str
    seq: int
    type: str
    at: datetime
    cause: str | None = None
    correlation_id: str | None = None
    data: JsonObject = {}

    def message_id(self, tenant: str) -> str:
        """The id that it is published under: `{id}.{seq}` for what has an id of its own (runs, tasks).

        What has a name is not the only one so called: there the tenant and the entity belong to the id.
        """
        own = f"{self.id}.{self.seq}"
        return own if is_id(self.id) else f"{tenant}.{self.entity}.{own}"


def encode_record(
    entity: str, actor_id: str, seq: int, type_name: str, at: datetime, cause: str, correlation_id: str, event: bytes
) -> bytes:
    """The body of an `EventRecord` around a stored event, assembled without parsing the event.

    Histories hold events as JSON, and every one of them is published: this is the hot path.
    """
    head = (
        f'{{"entity":"{entity}","id":"{actor_id}","seq":{seq},"type":"{type_name}",'
        f'"at":"{rfc3339(at)}","cause":{json.dumps(cause)},'
        f'"correlation_id":"{correlation_id}","data":'
    )
    return b"%b%b}" % (head.encode(), event)


def fold[S, E](evolve: Callable[[S, E], S], state: S, events: Iterable[E]) -> S:
    """The state after all `events`."""
    for event in events:
        state = evolve(state, event)
    return state
