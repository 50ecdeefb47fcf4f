"""Cancelling a task in its journal, whoever works on it, and even before it has come."""

from __future__ import annotations

import logging

from paracle_agent_runtime.actor import CANCEL_TRIES, TaskActor
from paracle_agent_runtime.errands import LostTaskError
from paracle_agent_runtime.outbox import Parcel
from paracle_agent_runtime.plans import PlanCache
from paracle_agent_runtime.records import records_of
from paracle_agent_runtime.results import failed
from paracle_agent_runtime.tombstones import bury
from paracle_agent_runtime.workshop import Workshop
from paracle_chassis.event_store import Loaded
from paracle_domain.envelope import Context
from paracle_domain.errors import Cancelled, Conflict
from paracle_domain.task.events import TaskAccepted, load_event
from paracle_domain.task.messages import CancelTask, Task, TaskResult, TaskStatus
from paracle_domain.task.state import Job

_log = logging.getLogger(__name__)


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
        for _ in range(CANCEL_TRIES):
            history = await self._shop.journal.load(command.task_id)
            if history is not None and history.tenant != context.tenant:
                return _cancelled(command)
            done = await (self._bury(command, context) if history is None else self._end(command, context, history))
            if done is not None:
                return done
        raise Conflict(f"task {command.task_id} moves on faster than it can be cancelled; cancel it again")

    async def _bury(self, command: CancelTask, context: Context) -> TaskResult | None:
        """The task has no history: it has not come yet, or leaves none. A tombstone stops it if it still comes."""
        shop, stone = self._shop, _task(command)
        if await bury(shop.journal, shop.outbox, stone, command.reason, shop.clock(), context):
            return _cancelled(command)
        return None

    async def _end(self, command: CancelTask, context: Context, history: Loaded) -> TaskResult | None:
        first = load_event(history.pages[0].events[0])
        if not isinstance(first, TaskAccepted):
            page = history.pages[0]
            self._shop.outbox.put(Parcel(records_of(_task(command), page, [first], context)))
            return _cancelled(command)
        plan = await self._plans.get(first.task.plan, context)
        cause = context.causation_id or command.task_id
        job = Job.of(first.task, plan)
        if not TaskStatus(
            history.status
        ).terminal:  # its model call that is to be closed follows from what it began with
            job = await self._shop.sessions.recall(job, context.tenant)
        actor = TaskActor.restore(self._shop, job, context, cause, history)
        try:
            return await actor.cancel(command.reason)
        except LostTaskError:
            return None


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
