"""Tools that change nothing and ask nobody: they may be called again at will, so nothing of them is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from paracle_agent_runtime.entries import Entry
from paracle_agent_runtime.results import failed
from paracle_agent_runtime.tools.workers import Caller
from paracle_agent_runtime.workshop import Workshop
from paracle_domain.envelope import Context
from paracle_domain.errors import DeadlineExceeded, InputInvalid
from paracle_domain.inference.usage import Usage
from paracle_domain.plan import PlannedTool
from paracle_domain.task.messages import Task, TaskResult, TaskStatus
from paracle_domain.task.state import Job

_ONE_CALL: Final = Usage(tool_calls=1)
MOMENT_S: Final = 5.0
"""With the time between two signs of life, well below that after which a run hands out again what is silent."""


class OwnedElsewhereError(Exception):
    """A live process of the runtime works on the task."""


class DoneBeforeError(Exception):
    """The task's run does not want it done any more."""


def long_at_work(entries: Iterable[Entry]) -> list[str]:
    """Those of which no journal says that they are at work here, but for what is done before anybody would ask."""
    before = time.monotonic() - MOMENT_S
    return [entry.name for entry in entries if entry.plain and entry.started < before]


async def look_elsewhere(shop: Workshop, entry: Entry) -> None:
    """Raise if a task that came more than once is at work elsewhere, or done, and so is not to be done here."""
    if await shop.leases.elsewhere(entry.name):
        raise OwnedElsewhereError
    await look_whether_wanted(shop, entry)


async def look_whether_wanted(shop: Workshop, entry: Entry) -> None:
    """Raise if its run does not want the task any more: it is done, or a cancel that answers for it is on its way."""
    if not await shop.wanted.still(entry.task, entry.context.tenant):
        raise DoneBeforeError


async def done_plainly(shop: Workshop, job: Job, tool: PlannedTool, context: Context) -> TaskResult:
    """The result of a task that is one call of such a tool."""
    task = job.task
    if not isinstance(task.input, dict):
        return failed(task, InputInvalid("a tool takes named arguments; give an object", path="input"))
    remaining = None
    if task.deadline_at is not None:
        remaining = (task.deadline_at - shop.clock()).total_seconds()
        if remaining <= 0:
            return _late(task)
    call = shop.toolbox.call(tool, task.input, Caller(task, context))
    try:
        end = await call if remaining is None else await asyncio.wait_for(call, remaining)
    except TimeoutError:
        return _late(task)
    if end.error is not None:
        return failed(task, end.error, usage=_ONE_CALL)
    return TaskResult(
        task_id=task.task_id,
        run_id=task.run_id,
        step=task.step,
        attempt=task.attempt,
        status=TaskStatus.COMPLETED,
        output=end.output,
        usage=_ONE_CALL,
    )


def _late(task: Task) -> TaskResult:
    assert task.deadline_at is not None
    error = DeadlineExceeded(f"the task was not done by {task.deadline_at.isoformat()}")
    return failed(task, error, status=TaskStatus.TIMED_OUT)
