"""What is kept and published of a task."""

from __future__ import annotations

from collections.abc import Sequence

from paracle_agent_runtime.telemetry import SOURCE
from paracle_chassis.bus import Outgoing
from paracle_chassis.event_store import Page
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.machine import EventRecord, encode_page
from paracle_domain.messages import Encoded, JsonObject
from paracle_domain.task.events import TaskEvent, untyped
from paracle_domain.task.messages import Task


def facts_of(task: Task, worker: str | None) -> JsonObject:
    """What the row of a task says of it for ever, and who works on it first."""
    return {
        "run_id": task.run_id,
        "step": task.step,
        "attempt": task.attempt,
        "target_kind": task.target_kind,
        "target": task.target,
        "owner": worker,
    }


def records_of(task: Task, page: Page, events: Sequence[TaskEvent], context: Context) -> list[Outgoing]:
    """The events of `page` as they are published: in one message, in which they stand as they are kept."""
    told = [(event.type, untyped(body)) for event, body in zip(events, page.events, strict=True)]
    task_id, run_id, last = task.task_id, task.run_id, told[-1][0]
    body = encode_page("task", task_id, page.first_seq, told, at=page.at, cause=page.cause, correlation_id=run_id)
    subject = subjects.evt(context.tenant, "task", task_id, last.replace(".", "_"))
    story = context.caused_by(page.cause, run_id)
    envelope = Envelope(f"{task_id}.{page.last_seq}", EventRecord.type_name, SOURCE, story, page.at)
    return [Outgoing(subject, Encoded(body), envelope)]


def record_message(record: EventRecord, context: Context) -> Outgoing:
    """`record` with its subject and its deterministic id."""
    subject = subjects.evt(context.tenant, record.entity, record.id, record.type.replace(".", "_"))
    story = context.caused_by(record.cause or record.id, record.correlation_id)
    return Outgoing(
        subject, record, Envelope.wrap(record.type_name, SOURCE, story, id=record.message_id(context.tenant))
    )
