"""Histories of tasks, for those who missed an event of one."""

from __future__ import annotations

from typing import Final

from paracle_chassis.beginnings import list_begun
from paracle_chassis.event_store import EventStore, Page
from paracle_domain.envelope import Context
from paracle_domain.errors import NotFound, quote
from paracle_domain.histories import Beginnings, ListTasksBegun
from paracle_domain.machine import EventRecord
from paracle_domain.task.events import event_record, load_event
from paracle_domain.task.messages import GetTaskEvents, TaskEvents, TaskStatus

_BEYOND: Final = 2**31 - 1  # the number of no event: asks for a task without its pages


class Histories:
    """What happened to tasks, as the journal has it."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def list_tasks_begun(self, request: ListTasksBegun, call: Context) -> Beginnings:
        """See `list_begun`."""
        return await list_begun(self._store, request, call)

    async def get_task_events(self, request: GetTaskEvents, call: Context) -> TaskEvents:
        """A task's events after number `after`.

        Raises
        ------
        NotFound
            If no such task is journaled for the tenant. Those of tools that change nothing never are.
        """
        name = request.task_id
        task = (await self._store.load([name], {name: _BEYOND})).get(name)
        if task is None or task.tenant != call.tenant:
            raise NotFound(f"there is no history of a task {quote(name)}", path="task_id")
        pages = await self._store.read(name, request.after, request.limit)
        events = [event for page in pages for event in _records(name, task.facts["run_id"], page)]
        wanted = [event for event in events if event.seq > request.after][: request.limit]
        last = wanted[-1].seq if wanted else request.after
        ended = TaskStatus(task.status).terminal and last >= task.version
        return TaskEvents(events=tuple(wanted), terminal=ended)


def _records(task_id: str, run_id: str, page: Page) -> list[EventRecord]:
    return [
        event_record(task_id, run_id, load_event(body), seq=seq, at=page.at, cause=page.cause)
        for seq, body in enumerate(page.events, start=page.first_seq)
    ]
