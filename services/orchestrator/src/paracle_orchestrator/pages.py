"""Pages of a run's history as they are told: published when they are kept, and read by whoever asks.

What happens together can be more than fits into one message: a map of large items begins, a fork keeps large outputs.
Such a page is told in several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from paracle_chassis.bus import Outgoing
from paracle_chassis.event_store import Page
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.machine import EventRecord, encode_page
from paracle_domain.messages import Encoded
from paracle_domain.run.events import RunEvent, decode_event
from paracle_domain.run.nodes import MOST_BYTES
from paracle_orchestrator.outgoing import SOURCE

_FRAME: Final = 200
"""What surrounds an event in a message has about so many bytes, its type and number included."""
ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Of events that are read together: more takes longer than a reader waits."""


def told(tenant: str, run_id: str, page: Page, types: Sequence[str], context: Context) -> list[Outgoing]:
    """The events of `page`, of these `types`, as one message on the subject of the last of them; seldom, as several.

    `context`: that of what the page's cause leads to.
    """
    found: list[Outgoing] = []
    first = page.first_seq
    for events in _messages(list(zip(types, page.events, strict=True))):
        last, kind = first + len(events) - 1, events[-1][0]
        body = encode_page("run", run_id, first, events, at=page.at, cause=page.cause, correlation_id=run_id)
        envelope = Envelope(f"{run_id}.{last}", kind, SOURCE, context, page.at)
        found.append(Outgoing(subjects.evt(tenant, "run", run_id, kind.replace(".", "_")), Encoded(body), envelope))
        first = last + 1
    return found


def _messages(events: list[tuple[str, bytes]]) -> Iterable[list[tuple[str, bytes]]]:
    """`events` as they fit into messages: nearly always into one."""
    if sum([len(body) for _, body in events]) + len(events) * _FRAME <= MOST_BYTES:
        return (events,)
    return _portions(events, lambda event: len(event[1]), MOST_BYTES)


def _portions[T](items: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """`items` in their order, in portions of at most `most` bytes; what has more is alone."""
    portion: list[T] = []
    room = most
    for item in items:
        size = size_of(item) + _FRAME
        if portion and size > room:
            yield portion
            portion, room = [], most
        portion.append(item)
        room -= size
    if portion:
        yield portion


def records_of(run_id: str, pages: Iterable[Page], *, after: int, limit: int) -> list[EventRecord]:
    """The first events of `pages` whose number is above `after`: at most `limit`, and as many as fit together."""
    numbered = ((page, seq, body) for page in pages for seq, body in enumerate(page.events, start=page.first_seq))
    wanted = islice((item for item in numbered if item[1] > after), limit)
    first = next(_portions(wanted, lambda item: len(item[2]), ANSWER_BYTES), [])
    return [_record(run_id, page, seq, decode_event(body)) for page, seq, body in first]


def _record(run_id: str, page: Page, seq: int, event: RunEvent) -> EventRecord:
    return EventRecord(
        entity="run",
        id=run_id,
        seq=seq,
        type=event.type,
        at=page.at,
        cause=page.cause,
        correlation_id=run_id,
        data=event.model_dump(mode="json", exclude_none=True),
    )
