"""Cancelling a task in its journal, whoever works on it, and even before it has come."""

from __future__ import annotations

import logging
from typing import Final

from paracle_agent_runtime.actor import LostTaskError, TaskActor, Workshop, facts_of, records_of
from paracle_agent_runtime.outbox import Parcel
from paracle_agent_runtime.plans import PlanCache
from paracle_agent_runtime.results import failed
from paracle_chassis.event_store import Append, Loaded, Page
from paracle_domain.envelope import Context
from paracle_domain.errors import Cancelled, Conflict
from paracle_domain.task.events import TaskAccepted, TaskCancelled, dump_event, load_event
from paracle_domain.task.messages import CancelTask, Task, TaskResult, TaskStatus
from paracle_domain.task.state import Job

_log = logging.getLogger(__name__)
_TRIES: Final = 20


class Canceller:
    """Appends `task.cancelled`; from then on nobody else can append to that task."""

    def __init__(self, shop: Workshop, plans: PlanCache) -> None:
        self._shop = shop
        self._plans = plans

    async def cancel(self, command: CancelTask, context: Context) -> TaskResult:
        """How the task ended: cancelled, unless it had ended before.

        Raises
        ------
        Conflict
            If the task keeps moving on between reading and writing.
        """
        for _ in range(_TRIES):
            history = await self._shop.journal.load(command.task_id)
            if history is not None and history.tenant != context.tenant:
                return _cancelled(command)
            done = await (self._bury(command, context) if history is None else self._end(command, context, history))
            if done is not None:
                return done
        raise Conflict(f"task {command.task_id} moves on faster than it can be cancelled; cancel it again")

    async def _bury(self, command: CancelTask, context: Context) -> TaskResult | None:
        """The task has no history: it has not come yet, or leaves none. A tombstone stops it if it still comes."""
        event = TaskCancelled(reason=command.reason)
        page = Page(1, context.causation_id or command.task_id, self._shop.clock(), (dump_event(event),))
        stone = _task(command)
        written = await self._shop.journal.append(
            Append(
                id=command.task_id,
                tenant=context.tenant,
                expected=0,
                pages=(page,),
                status=TaskStatus.CANCELLED,
                finished_at=page.at,
                facts=facts_of(stone, None),
            )
        )
        if not written:
            return None
        self._shop.outbox.put(Parcel(records_of(stone, page, [event], context)))
        return _cancelled(command)

    async def _end(self, command: CancelTask, context: Context, history: Loaded) -> TaskResult | None:
        first = load_event(history.pages[0].events[0])
        if not isinstance(first, TaskAccepted):
            page = history.pages[0]
            self._shop.outbox.put(Parcel(records_of(_task(command), page, [first], context)))
            return _cancelled(command)
        plan = await self._plans.get(first.task.plan, context)
        cause = context.causation_id or command.task_id
        actor = TaskActor.restore(self._shop, Job.of(first.task, plan), context, cause, history)
        before = actor.state
        try:
            result = await actor.cancel(command.reason)
        except LostTaskError:
            return None
        if before.wants_model:  # whoever made the call may be dead, or may not hear of this
            await self._shop.models.abort(before.model_call_id, context)
        return result


def _cancelled(command: CancelTask) -> TaskResult:
    return failed(command, Cancelled(command.reason), status=TaskStatus.CANCELLED)


def _task(command: CancelTask) -> Task:
    """What is known of a task that has not come."""
    return Task(
        task_id=command.task_id,
        run_id=command.run_id,
        step=command.step,
        attempt=command.attempt,
        plan="",
        target_kind="tool",
        target="",
        effect_scope="",
    )
