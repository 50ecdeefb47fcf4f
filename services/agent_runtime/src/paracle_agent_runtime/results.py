"""Results of tasks, as values and as messages."""

from __future__ import annotations

from paracle_agent_runtime.telemetry import SOURCE
from paracle_chassis.bus import Outgoing
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import ErrorInfo, ParacleError
from paracle_domain.inference.usage import Usage
from paracle_domain.task.messages import CancelTask, Task, TaskResult, TaskStatus


def failed(
    task: Task | CancelTask,
    error: ParacleError | ErrorInfo,
    *,
    status: TaskStatus = TaskStatus.FAILED,
    usage: Usage | None = None,
) -> TaskResult:
    """The result of a task that did not come to its end."""
    return TaskResult(
        task_id=task.task_id,
        run_id=task.run_id,
        step=task.step,
        attempt=task.attempt,
        status=status,
        error=error if isinstance(error, ErrorInfo) else error.to_info(),
        usage=usage or Usage(),
    )


def result_message(result: TaskResult, context: Context) -> Outgoing:
    """`result` for the orchestrator; its id makes telling it again harmless."""
    envelope = Envelope.wrap(result.type_name, SOURCE, context, id=f"{result.task_id}.result")
    tenant = context.tenant
    return Outgoing(subjects.result(tenant, result.run_id), result, envelope, subjects.results(tenant))
