"""What comes for runs on `result.*`: results of tasks, ticks, and what other runs tell them, read into mail."""

from __future__ import annotations

from paracle_chassis.delivery import Delivery
from paracle_domain.dead_letters import LetterGone
from paracle_domain.errors import (
    ErrorInfo,
    InputInvalid,
    MalformedMessage,
    OutputInvalid,
    ParacleError,
    PayloadTooLarge,
    quote,
)
from paracle_domain.ids import is_id
from paracle_domain.run.commands import StartRun
from paracle_domain.run.inbox import Begin, Tick
from paracle_domain.run.messages import ChildCancel, ChildEnded, ChildStart
from paracle_domain.run.nodes import MOST_BYTES, MOST_LEVELS
from paracle_domain.strict_json import is_deep_in
from paracle_domain.task.messages import TaskResult, TaskStatus
from paracle_orchestrator.admission import Limits
from paracle_orchestrator.facts import facts_of
from paracle_orchestrator.mail import Mail
from paracle_orchestrator.orders import mail_of
from paracle_orchestrator.plans import Plans
from paracle_orchestrator.ticks import RunTick


async def read_result(delivery: Delivery, plans: Plans, limits: Limits) -> Mail | LetterGone:
    """The mail in `delivery`, or that a dead letter of a run is gone.

    Raises
    ------
    MalformedMessage
        If it is nothing that a run understands.
    NotFound
        If it starts a run of a plan that nobody pinned.
    """
    kind = delivery.envelope.type
    if kind in {TaskResult.type_name, "result"} or is_id(kind, "run"):
        result = _fitting(delivery.decode(TaskResult), delivery.body)
        return mail_of(delivery, result.run_id, result)
    if kind == RunTick.type_name:
        return mail_of(delivery, delivery.decode(RunTick).run_id, Tick())
    if kind == ChildEnded.type_name:
        ended = delivery.decode(ChildEnded)
        return mail_of(delivery, ended.run_id, ended)
    if kind == ChildStart.type_name:
        return await _child_mail(delivery, delivery.decode(ChildStart), plans, limits)
    if kind == ChildCancel.type_name:
        cancel = delivery.decode(ChildCancel)
        return await _child_mail(delivery, cancel.start, plans, limits, cancelled=cancel.reason)
    if kind == LetterGone.type_name:
        return delivery.decode(LetterGone)
    raise MalformedMessage(f"a message of type {quote(kind)} is nothing that a run understands; it is parked")


def _fitting(result: TaskResult, body: bytes) -> TaskResult:
    """`result`, which came as `body`; one that is too large or too deep for whatever comes after it is a failure."""
    error: ParacleError
    if len(body) > MOST_BYTES:
        error = PayloadTooLarge(
            f"the task's result has {len(body):,} bytes, and at most {MOST_BYTES:,} fit into a run; "
            "let it put large data where others can read it, and give its place"
        )
    elif is_deep_in(body, result.output, MOST_LEVELS):
        error = OutputInvalid(
            f"the task's output nests more than {MOST_LEVELS} levels deep, and what holds it could not be read; "
            "let it give it flatter, or as a text"
        )
    else:
        return result
    return result.model_copy(update={"status": TaskStatus.FAILED, "output": None, "error": error.to_info()})


async def _child_mail(
    delivery: Delivery, start: ChildStart, plans: Plans, limits: Limits, cancelled: str | None = None
) -> Mail:
    """The start of a child run. One that is cancelled starts too, if it has not yet: so it has ended for good."""
    tenant = delivery.tenant
    pinned = await plans.get(tenant, start.plan)
    refused: ErrorInfo | None = None
    try:
        pinned.check_input(start.input)
    except InputInvalid as error:
        refused = error.to_info()
    command = StartRun(workflow=start.workflow, input=start.input, labels=start.labels, priority=start.priority)
    begins = refused is None and cancelled is None
    queued = begins and limits.hold(pinned.plan, tenant, child=True)
    begin = Begin(
        start.run_id,
        tenant,
        start.principal,
        command,
        parent=start.parent,
        deadline_at=start.deadline_at,
        refused=refused,
        cancelled=cancelled,
        queued=queued,
    )
    facts = facts_of(
        pinned.plan,
        principal=start.principal,
        request=start.run_id,
        labels=start.labels,
        priority=start.priority,
        parent=start.parent.run_id,
        waits=queued,
    )
    return mail_of(delivery, start.run_id, begin, pinned=pinned, facts=facts)
