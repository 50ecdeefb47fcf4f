"""What an event is to the audit log, and what is projected from it. Pure: bytes in, rows out.

A row is a message: the events that were decided together. Most are only kept: all that is read of them is their head,
and the body is stored as it came. Only what holds one of the few types in `_SPENDING` is decoded whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Self

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from paracle_domain import subjects
from paracle_domain.audit import ModelUsage, NamedUsage, StoredEvent, UsageReport
from paracle_domain.envelope import ANONYMOUS
from paracle_domain.errors import MalformedMessage, from_validation
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Value
from paracle_domain.records import record

ENDS: Final = {
    "run": ("run.completed", "run.degraded", "run.failed", "run.cancelled", "run.timed_out"),
    "task": ("task.completed", "task.failed", "task.cancelled", "task.timed_out"),
}
"""The last events of entities that end. The statements of `queries.sql` and an index name the same entities."""
LAST: Final = tuple(kind for kinds in ENDS.values() for kind in kinds)
_BIGINT_MAX: Final = 2**63 - 1

type EventKey = tuple[str, str, str, int]


_PLACES: Final = 2**20
"""Events that have their place in a row's position: more than any message has room for."""


class Earlier(Value):
    """What is read of an event that another one tells of."""

    seq: int


class Head(Value):
    """What is read of every event."""

    entity: str
    id: str
    seq: int = Field(ge=1, le=_BIGINT_MAX)
    type: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    at: AwareDatetime
    correlation_id: Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")] | None = None
    earlier: tuple[Earlier, ...] = ()

    @property
    def first_seq(self) -> int:
        return self.earlier[0].seq if self.earlier else self.seq

    @property
    def numbered(self) -> bool:
        """Whether its events follow one another."""
        seqs = [event.seq for event in self.earlier]
        return seqs == list(range(self.seq - len(seqs), self.seq)) and self.first_seq > 0


@record
class EventRow:
    """Events `first_seq` to `seq` as they are stored; `body` is the record as published, `type` that of `seq`."""

    tenant: str
    entity: str
    id: str
    first_seq: int
    seq: int
    type: str
    subject: str
    run_id: str | None
    principal: str
    time: datetime
    body: str

    @property
    def key(self) -> EventKey:
        """What makes it this message: publishing it again gives the same."""
        return (self.tenant, self.entity, self.id, self.seq)

    @property
    def events(self) -> int:
        """How many there are in it."""
        return self.seq - self.first_seq + 1

    @classmethod
    def read(cls, subject: str, principal: str, body: bytes) -> Self:
        """The row of a published message, whose `subject` has its id, or stands for many (as its stream keeps it).

        Raises
        ------
        MalformedMessage
            If it is no event record, or was published on the subject of another entity.
        """
        head = _head(body)
        tokens = subject.split(".")
        if len(tokens) != 7 or tokens[3:5] != ["evt", head.entity] or tokens[5] not in {head.id, subjects.UNNAMED}:
            raise MalformedMessage(f"event of {head.entity} {head.id} was published on {subject}")
        return cls(
            tenant=tokens[2],
            entity=head.entity,
            id=head.id,
            first_seq=head.first_seq,
            seq=head.seq,
            type=head.type,
            subject=subjects.evt(tokens[2], head.entity, head.id, tokens[6]),
            run_id=_run_of(head),
            principal=principal.replace("\x00", ""),
            time=head.at,
            body=_text(body),
        )

    @classmethod
    def of(cls, tenant: str, records: Sequence[EventRecord], principal: str) -> Self:
        """The row of events that were fetched from their owner since their message never came by itself."""
        whole = EventRecord.together(records)
        token = whole.type.replace(".", "_")
        body = whole.encode()
        return cls(
            tenant=tenant,
            entity=whole.entity,
            id=whole.id,
            first_seq=records[0].seq,
            seq=whole.seq,
            type=whole.type,
            subject=subjects.evt(tenant, whole.entity, whole.id, token),
            run_id=_run_of(_head(body)),
            principal=principal,
            time=whole.at,
            body=body.decode(),
        )


def messages(records: Iterable[EventRecord]) -> list[list[EventRecord]]:
    """`records` as they were published: those that were decided together, together."""
    found: list[list[EventRecord]] = []
    for one in records:
        before = found[-1][-1] if found else None
        if before is not None and one.cause is not None and (before.cause, before.at) == (one.cause, one.at):
            found[-1].append(one)
        else:
            found.append([one])
    return found


def stored(position: int, subject: str, principal: str, body: str) -> Iterator[StoredEvent]:
    """The events in the row at `position`. Each has a position of its own, in the order of rows and then of events."""
    for place, event in enumerate(EventRecord.model_validate_json(body).each()):
        yield StoredEvent(
            position=position * _PLACES + place, subject=subject, principal=principal, time=event.at, event=event
        )


def row_of(position: int) -> int:
    """The position of the row that holds the event at `position`."""
    return position // _PLACES


def who(records: Sequence[EventRecord]) -> str:
    """On whose behalf it happened, as far as the events themselves say: decisions, starts and orders name somebody."""
    named = (one.data.get("principal") for one in records)
    return next((name for name in named if isinstance(name, str)), ANONYMOUS)


def _head(body: bytes) -> Head:
    try:
        head = Head.model_validate_json(body)
    except ValidationError as error:
        wrong = from_validation(error, "event")
        raise MalformedMessage(wrong.message, path=wrong.path, problems=wrong.problems) from error
    if not head.numbered:
        raise MalformedMessage("event: those that it tells of are not numbered one by one", path="earlier")
    return head


def _run_of(head: Head) -> str | None:
    return head.id if head.entity == "run" else head.correlation_id


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"event: not UTF-8 at byte {error.start}") from error


@dataclass(frozen=True, slots=True)
class Spent:
    """What event `seq` of a task says was used. `provider` and `model` are empty for tool calls.

    `row` is the number of the last event in its row.
    """

    tenant: str
    run_id: str
    task_id: str
    row: int
    seq: int
    usage: Usage
    provider: str = ""
    model: str = ""
    agent: str | None = None
    step: str | None = None

    @property
    def key(self) -> EventKey:
        """The row that says so."""
        return (self.tenant, "task", self.task_id, self.row)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What calls of one model for one task used so far; `usage.cost_usd` is the known part."""

    task_id: str
    provider: str
    model: str
    agent: str | None
    step: str | None
    usage: Usage
    unpriced_calls: int

    @property
    def priced(self) -> Usage:
        """`usage`, with its cost unknown if any part of it is."""
        return self.usage.model_copy(update={"cost_usd": None}) if self.unpriced_calls else self.usage


def spending(rows: Iterable[EventRow]) -> tuple[list[Spent], list[tuple[EventRow, ValidationError]]]:
    """What `rows` say was used, and the rows that should say it but cannot be read."""
    spent: list[Spent] = []
    unread: list[tuple[EventRow, ValidationError]] = []
    for row in rows:
        if row.entity != "task" or row.run_id is None or not any(kind in row.body for kind in _SPENDING):
            continue
        for event in EventRecord.model_validate_json(row.body).each():
            read = _SPENDING.get(event.type)
            if read is None:
                continue
            try:
                found = read(row, event, row.run_id)
            except ValidationError as error:
                unread.append((row, error))
                continue
            if found is not None:
                spent.append(found)
    return spent, unread


class _Reply(Value):
    """What counts of a `ModelReplied` or `TaskCompacted`."""

    usage: Usage
    provider: str
    model: str
    agent: str | None = None
    step: str | None = None


def _model_call(row: EventRow, event: EventRecord, run_id: str) -> Spent:
    said = _Reply.model_validate(event.data)
    calls = 0 if said.usage == NOTHING else 1  # what used nothing came from the cache
    return Spent(
        row.tenant,
        run_id,
        row.id,
        row.seq,
        event.seq,
        said.usage.model_copy(update={"model_calls": calls, "tool_calls": 0}),
        said.provider,
        said.model,
        said.agent,
        said.step,
    )


class _NoSummary(Value):
    """What counts of a `CompactionFailed`: a summary may have come, and been of no use."""

    usage: Usage | None = None


def _no_summary(row: EventRow, event: EventRecord, run_id: str) -> Spent | None:
    return None if _NoSummary.model_validate(event.data).usage is None else _model_call(row, event, run_id)


def _tool_call(row: EventRow, event: EventRecord, run_id: str) -> Spent:
    return Spent(row.tenant, run_id, row.id, row.seq, event.seq, Usage(tool_calls=1))


_SPENDING: Final[Mapping[str, Callable[[EventRow, EventRecord, str], Spent | None]]] = {
    "task.model_replied": _model_call,
    "task.compacted": _model_call,
    "task.compaction_failed": _no_summary,
    "task.tool_returned": _tool_call,
}


def usage_report(run_id: str, rows: Iterable[UsageRow]) -> UsageReport:
    """The report of a run from its rows: in all, and by model, agent and step."""
    found = list(rows)
    agents = {row.task_id: row.agent for row in found if row.agent is not None}
    steps = {row.task_id: row.step for row in found if row.step is not None}
    models = _sums((row, (row.provider, row.model)) for row in found if row.model)
    return UsageReport(
        run_id=run_id,
        total=sum((row.priced for row in found), start=Usage()),
        known_cost_usd=sum((row.usage.cost_usd or Decimal(0) for row in found), start=Decimal(0)),
        unpriced_calls=sum(row.unpriced_calls for row in found),
        by_model=tuple(ModelUsage(provider=key[0], model=key[1], usage=usage) for key, usage in models),
        by_agent=_named(found, agents),
        by_step=_named(found, steps),
    )


def _named(rows: Iterable[UsageRow], names: Mapping[str, str]) -> tuple[NamedUsage, ...]:
    sums = _sums((row, names[row.task_id]) for row in rows if row.task_id in names)
    return tuple(NamedUsage(name=name, usage=usage) for name, usage in sums)


def _sums[K](rows: Iterable[tuple[UsageRow, K]]) -> list[tuple[K, Usage]]:
    sums: dict[Any, Usage] = {}
    for row, key in rows:
        sums[key] = sums.get(key, Usage()) + row.priced
    return sorted(sums.items())
