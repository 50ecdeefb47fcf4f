"""Whether a task that has been on its way for a while, or was handed out more than once, is still to be done."""

from __future__ import annotations

from pydantic import Field

from paracle_domain.ids import RunId, TaskId
from paracle_domain.messages import Message, Request, Value


class TaskPlace(Value):
    """A task of a run, and which attempt of which step it is."""

    task_id: TaskId
    step: str
    attempt: int


class WantedTasks(Message, type_name="task.wanted"):
    """Tasks that a run wants done."""

    task_ids: tuple[TaskId, ...]


class ListWantedTasks(
    Request[WantedTasks], service="orchestrator", method="list_wanted_tasks", answer=WantedTasks, query=True
):
    """Those of the `tasks` of a run that it still wants done; for the agent runtime.

    A run hands out again what is silent: what leaves no history would else be done as often as it came. And it may have
    been cancelled while nobody was there to hear of it.
    """

    run_id: RunId
    tasks: tuple[TaskPlace, ...] = Field(max_length=1_000)
