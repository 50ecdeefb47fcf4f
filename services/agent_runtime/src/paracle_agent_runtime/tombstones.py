"""Tombstones: the history of a task that was cancelled before it began, so that it never begins."""

from __future__ import annotations

from datetime import datetime

from paracle_agent_runtime.journal import Journal
from paracle_agent_runtime.outbox import Outbox, Parcel
from paracle_agent_runtime.records import facts_of, records_of
from paracle_chassis.event_store import Append, Page
from paracle_domain.envelope import Context
from paracle_domain.task.events import TaskCancelled, dump_event
from paracle_domain.task.messages import Task, TaskStatus


async def bury(journal: Journal, outbox: Outbox, task: Task, reason: str, at: datetime, context: Context) -> bool:
    """Put a tombstone where `task` would begin; false if it has a history already."""
    event = TaskCancelled(reason=reason)
    page = Page(1, context.causation_id or task.task_id, at, (dump_event(event),))
    written = await journal.append(
        Append(
            id=task.task_id,
            tenant=context.tenant,
            expected=0,
            pages=(page,),
            status=TaskStatus.CANCELLED,
            finished_at=page.at,
            facts=facts_of(task, None),
        )
    )
    if written:
        outbox.put(Parcel(records_of(task, page, [event], context)))
    return written
