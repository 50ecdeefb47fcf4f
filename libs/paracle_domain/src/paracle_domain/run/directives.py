"""What is to be done for a run, once what led to it is kept."""

from __future__ import annotations

from dataclasses import dataclass

from paracle_domain.task.messages import CancelTask, Task


@dataclass(frozen=True, slots=True)
class DispatchTask:
    """Hand `task` to the worker pool.

    `again` counts repeated dispatches of the same attempt: 0 for the first one. It keeps their message ids apart, since
    a repetition that looked like the original would be dropped as a duplicate.
    """

    task: Task
    again: int = 0
    pool: str = "agents"

    @property
    def message_id(self) -> str:
        return self.task.task_id if self.again == 0 else f"{self.task.task_id}.again.{self.again}"


@dataclass(frozen=True, slots=True)
class StopTask:
    """Tell the worker pool to stop a task."""

    command: CancelTask
    again: int = 0

    @property
    def message_id(self) -> str:
        suffix = f".{self.again}" if self.again else ""
        return f"{self.command.task_id}.cancel{suffix}"


type RunDirective = DispatchTask | StopTask
