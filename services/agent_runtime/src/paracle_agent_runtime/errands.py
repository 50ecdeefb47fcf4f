"""What the directives of a task come to: each is carried out, and answered with what its machine is to be told.

Every failure that a machine knows how to bear is in the answer; anything else is raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from paracle_agent_runtime.checking import Checks
from paracle_agent_runtime.tools.workers import Caller
from paracle_agent_runtime.workshop import Workshop
from paracle_chassis.outages import outlast
from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.inference.request import Complete
from paracle_domain.inference.retrying import Retried, Retrying
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task.directives import AskForRaise, AskPeople, CallModel, InvokeTool, ProbeEffect
from paracle_domain.task.output import BudgetProgress, Progress, SummaryProgress, ToolProgress
from paracle_domain.task.probes import probe_arguments
from paracle_domain.task.state import Job

_WORTH_TELLING: Final = timedelta(seconds=1)
"""What takes less has not been told to wait, neither by the gateway nor here."""


# Less than a lease: whoever comes to a call sooner after it was decided has not lost the task.
_SURE: Final = timedelta(seconds=2)


class LostTaskError(Exception):
    """Someone else has moved the task on: whatever this process wanted to add is void."""


class Errands:
    """Those of one task."""

    def __init__(self, shop: Workshop, job: Job, context: Context, checks: Checks) -> None:
        self._shop = shop
        self._job = job
        self._context = context
        self._checks = checks
        self._in_air: set[str] = set()
        self._watched = job.agent is not None

    async def abort(self) -> None:
        """Have the gateway close the model calls that nobody waits for any more."""
        calls, self._in_air = self._in_air, set()
        for call_id in calls:
            await self._shop.models.abort(call_id, self._context)

    async def _until(self, moment: datetime | None) -> None:
        if moment is not None:
            await asyncio.sleep(max(0.0, (moment - self._shop.clock()).total_seconds()))

    async def call_model(self, directive: CallModel, request: Callable[[], Complete]) -> told.TaskInput:
        await self._until(directive.not_before)
        asked, began = request(), self._shop.clock()
        await self._say_summary(directive, "started")
        self._in_air.add(directive.call_id)
        try:
            completion = await self._shop.models.complete(asked, self._context)
        except ParacleError as error:
            self._in_air.discard(directive.call_id)
            await self._say_summary(directive, "ended", error.code)
            return told.ModelFailed(self._shop.clock(), directive.call_id, error.to_info())
        self._in_air.discard(directive.call_id)
        await self._say_summary(directive, "ended")
        if directive.not_before is not None or self._shop.clock() - began >= _WORTH_TELLING:
            await self._say_above(directive.call_id)
        return told.ReplyCame(self._shop.clock(), directive.call_id, completion, self._checks.refused(completion))

    async def _say_summary(
        self, directive: CallModel, stage: Literal["started", "ended"], error: str | None = None
    ) -> None:
        if directive.sums_up:
            await self.say(SummaryProgress(call_id=directive.call_id, stage=stage, error=error))

    async def invoke_tool(self, directive: InvokeTool, decided: datetime) -> told.TaskInput:
        if directive.key is not None:
            await self._make_sure(decided)
        tool = self._job.tools[directive.tool]
        caller = Caller(self._job.task, self._context)
        await self.say(ToolProgress(call_id=directive.call_id, tool=directive.tool, stage="started"))
        end = await self._shop.toolbox.call(tool, directive.arguments, caller, key=directive.key)
        code = None if end.error is None else end.error.code
        await self.say(
            ToolProgress(
                call_id=directive.call_id, tool=directive.tool, stage="ended", duration_s=end.duration_s, error=code
            )
        )
        at = self._shop.clock()
        if end.error is None:
            return told.ToolSucceeded(at, directive.call_id, end.output, end.duration_s)
        return told.ToolFailed(at, directive.call_id, end.error, end.duration_s, end.outcome)

    async def _make_sure(self, decided: datetime) -> None:
        """Raise `LostTaskError` if this process hung so long that somebody else took the task, and the call, up.

        They know that it was to be made, and find out whether it was, or make it themselves.
        """
        if self._shop.clock() - decided > _SURE:
            task = self._job.task
            if not await outlast(lambda: self._shop.leases.claim(task.root or task.task_id), "a lease"):
                raise LostTaskError(task.task_id)

    async def probe_effect(self, directive: ProbeEffect) -> told.TaskInput:
        await self._until(directive.not_before)
        probe = self._job.probes[directive.tool]
        asked = probe_arguments(probe.spec, directive.arguments, directive.key)
        end = await self._shop.toolbox.call(probe, asked, Caller(self._job.task, self._context), key=directive.key)
        answer, error = self._checks.probed(directive, end)
        return told.Probed(
            self._shop.clock(),
            directive.call_id,
            directive.tried,
            answer.outcome,
            end.duration_s,
            answer.output,
            error,
            answer.reason,
        )

    async def say(self, progress: Progress) -> None:
        """Tell whoever watches a step's agent; a tool that is a step is watched once it waits for people."""
        if self._watched:
            await self._shop.outlet.say(self._job.task.task_id, progress, self._context)

    async def say_retries(self, events: Sequence[ev.TaskEvent], tried: int) -> None:
        """Tell whoever watches that a model call failed and when it is made again, if that is among `events`."""
        for event in events:
            if not isinstance(event, ev.ModelCallFailed | ev.CompactionFailed):
                continue
            if event.retry_at is None:
                await self._say_above(event.call_id, event.error.code)
            elif event.error.retryable:  # what was too long is summed up first, and that is told
                retrying = Retrying(call_id=event.call_id, error=event.error, tried=tried, at=event.retry_at)
                await self.say(retrying)
                if (root := self._job.task.root) is not None:
                    theirs = retrying.model_copy(update={"agent": self._job.task.target})
                    await self._shop.outlet.say(root, theirs, self._context)

    async def _say_above(self, call_id: str, error: str | None = None) -> None:
        """Tell who watches the step that a model call of its delegate, which may have been waited for, has ended."""
        if (root := self._job.task.root) is not None:
            ended = Retried(call_id=call_id, agent=self._job.task.target, error=error)
            await self._shop.outlet.say(root, ended, self._context)

    async def ask_for_raise(self, directive: AskForRaise) -> told.TaskInput:
        approval_id, budget = directive.request.approval_id, directive.short.budget
        await self.say(BudgetProgress(approval_id=approval_id, budget=budget, stage="held"))
        view, error = await self._shop.decisions.raised(directive, self._context)
        await self.say(BudgetProgress(approval_id=approval_id, budget=budget, stage="ended"))
        at = self._shop.clock()
        return told.BudgetLifted(at, approval_id) if view is None else told.RaiseDecided(at, view, error)

    async def ask_people(self, directive: AskPeople) -> told.TaskInput:
        request = directive.request
        self._watched = True
        await self.say(
            ToolProgress(call_id=directive.call_id, tool=request.tool, stage="held", approval_id=request.approval_id)
        )
        view = await self._shop.decisions.decision(request, self._context)
        return told.CallDecided(self._shop.clock(), directive.call_id, view)
