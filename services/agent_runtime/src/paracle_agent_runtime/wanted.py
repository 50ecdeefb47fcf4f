"""Whether what comes once more, or comes late, is still to be done: asked of its run, many tasks at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from paracle_agent_runtime.ports import Runs
from paracle_chassis import outages
from paracle_chassis.batching import Batches
from paracle_domain.errors import ParacleError
from paracle_domain.task.messages import Task

_log = logging.getLogger(__name__)


class Wanted:
    """Asks about tasks of which no history says here whether they are done, or stopped."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._ask = Batches(self._ask_all)

    async def still(self, task: Task, tenant: str) -> bool:
        """Whether its run still wants it done; raises what makes it impossible to say just now."""
        found = await self._ask((tenant, task))
        if isinstance(found, Exception):
            if outages.is_outage(found) or not isinstance(found, ParacleError):
                raise found
            _log.warning("run %s cannot say what it wants done: %s", task.run_id, found)
            return True
        return found

    async def _ask_all(self, asked: Sequence[tuple[str, Task]]) -> Sequence[bool | Exception]:
        by_run: dict[tuple[str, str], list[Task]] = {}
        for tenant, task in asked:
            by_run.setdefault((tenant, task.run_id), []).append(task)
        answers = (self._runs.waits_for(tenant, run_id, tasks) for (tenant, run_id), tasks in by_run.items())
        found = dict(zip(by_run, await asyncio.gather(*answers, return_exceptions=True), strict=True))
        return [_of(task, found[tenant, task.run_id]) for tenant, task in asked]


def _of(task: Task, answer: frozenset[str] | BaseException) -> bool | Exception:
    if isinstance(answer, frozenset):
        return task.task_id in answer
    if isinstance(answer, Exception):
        return answer
    raise answer
