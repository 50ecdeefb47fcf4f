"""What is to be done for a run, once what led to it is kept."""

from __future__ import annotations

from paracle_domain.machine import EventRecord
from paracle_domain.records import record
from paracle_domain.run.commands import ApprovalView
from paracle_domain.run.messages import ChildCancel, ChildEnded, ChildStart
from paracle_domain.subjects import DEFAULT_POOL
from paracle_domain.task.messages import CancelTask, Task


@record
class DispatchTask:
    """Hand `task` to the worker pool.

    `again` counts repeated dispatches of the same attempt: 0 for the first one. It keeps their message ids apart, since
    a repetition that looked like the original would be dropped as a duplicate. `light`: it may be handed out, and done
    again, together with others.
    """

    task: Task
    again: int = 0
    pool: str = DEFAULT_POOL
    light: bool = False

    @property
    def message_id(self) -> str:
        return self.task.task_id if self.again == 0 else f"{self.task.task_id}.again.{self.again}"


@record
class StopTask:
    """Tell the worker pool to stop a task."""

    command: CancelTask
    again: int = 0

    @property
    def message_id(self) -> str:
        suffix = f".{self.again}" if self.again else ""
        return f"{self.command.task_id}.cancel{suffix}"


@record
class StartChild:
    """Begin a child run, or ask it again how it ended."""

    message: ChildStart
    again: int = 0

    @property
    def message_id(self) -> str:
        suffix = f".again.{self.again}" if self.again else ""
        return f"{self.message.run_id}.start{suffix}"


@record
class CancelChild:
    """Tell a child run to end."""

    message: ChildCancel
    again: int = 0

    @property
    def message_id(self) -> str:
        suffix = f".{self.again}" if self.again else ""
        return f"{self.message.start.run_id}.cancel{suffix}"


@record
class TellParent:
    """Tell the parent how this run ended. `again` names the question that this answers, if it was asked again."""

    message: ChildEnded
    again: str = ""

    @property
    def message_id(self) -> str:
        suffix = f".{self.again}" if self.again else ""
        return f"{self.message.child_run_id}.ended{suffix}"


@record
class ShowApproval:
    """Show an approval, as it stands now, in the list of approvals. `version` is the run's: the highest is right."""

    approval: ApprovalView
    version: int


@record
class PublishEvent:
    """Publish what an `emit` step says, as `evt.emit.{run_id}.{event}`: the record's entity is `emit`."""

    record: EventRecord

    @property
    def message_id(self) -> str:
        return f"{self.record.id}.emit.{self.record.seq}"


type RunDirective = DispatchTask | StopTask | StartChild | CancelChild | TellParent | ShowApproval | PublishEvent
