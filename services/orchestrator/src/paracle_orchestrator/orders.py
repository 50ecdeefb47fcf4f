"""Commands on `cmd.orchestrator.*`: read into mail for runs, and answered once that is committed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from pydantic import JsonValue

from paracle_chassis.delivery import Delivery
from paracle_domain.envelope import Context
from paracle_domain.errors import (
    Conflict,
    InvalidInput,
    MalformedMessage,
    ParacleError,
    PayloadTooLarge,
    quote,
)
from paracle_domain.ids import derive_id, id_from_key, is_id
from paracle_domain.messages import CATALOG, Command
from paracle_domain.names import suggest
from paracle_domain.records import record
from paracle_domain.run.commands import (
    CancelRun,
    DecideApproval,
    ForkRun,
    PauseRun,
    ResumeRun,
    RunAccepted,
    SignalRun,
    StartRun,
)
from paracle_domain.run.forking import kept_steps
from paracle_domain.run.inbox import Begin, Cancel, Decide, Pause, Resume, RunMessage, Signal
from paracle_domain.run.nodes import require_levels
from paracle_domain.task.conversation import session_in
from paracle_orchestrator.admission import Limits
from paracle_orchestrator.call_approvals import CallApprovals
from paracle_orchestrator.facts import facts_of
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.mail import Entry, Handled, Mail
from paracle_orchestrator.plans import Pinned, PlanBatch, Plans
from paracle_orchestrator.ports import Approvals
from paracle_orchestrator.refusals import no_approval, no_run

MAX_INPUT_BYTES: Final = 4 * 1024 * 1024
_PLACE: Final = re.compile(r"\w+\.\d+\.(\d{1,19})", re.ASCII)
"""What a bare message is named by: its stream, its number there, and when it was stored (`Delivery.envelope`)."""


@record
class Order:
    """A command that was understood: the mail for its run, and whom to answer."""

    delivery: Delivery
    mail: Mail


type Read = Order | BaseException | None
"""What became of reading a command: an order; why it cannot be read now; or nothing, for it was refused or obeyed."""


class Orders:
    """Reads commands. Starts need the registry; while it is away, they cannot be read."""

    def __init__(self, host: RunHost, plans: Plans, approvals: Approvals, calls: CallApprovals, limits: Limits) -> None:
        self._host = host
        self._limits = limits
        self._plans = plans
        self._approvals = approvals
        self._calls = calls
        self._readers: Mapping[str, Callable[[Delivery, PlanBatch], Awaitable[Mail | None]]] = {
            StartRun.verb: self._start,
            ForkRun.verb: self._fork,
            CancelRun.verb: _cancel,
            PauseRun.verb: _pause,
            ResumeRun.verb: _resume,
            SignalRun.verb: _signal,
            DecideApproval.verb: self._decide,
        }

    async def read(self, batch: Sequence[Delivery]) -> list[Read]:
        """What each of `batch` orders, in the same order."""
        plans = self._plans.batch()
        return await asyncio.gather(*(self._read(delivery, plans) for delivery in batch), return_exceptions=True)

    async def _read(self, delivery: Delivery, plans: PlanBatch) -> Order | None:
        verb = delivery.subject.rpartition(".")[2]
        try:
            reader = self._readers.get(verb)
            if reader is None:
                raise MalformedMessage(f"the orchestrator knows no command {quote(verb)}{suggest(verb, _verbs())}")
            mail = await reader(delivery, plans)
            return None if mail is None else Order(delivery, mail)
        except ParacleError as error:
            if error.retryable:
                raise
            await delivery.refuse(error)
            return None

    async def _start(self, delivery: Delivery, plans: PlanBatch) -> Mail:
        command = delivery.decode(StartRun)
        if (command.workflow is None) == (command.agent is None):
            raise InvalidInput("give exactly one of workflow and agent", path="workflow")
        _check_value(delivery, "input", command.input)
        context = delivery.envelope.context
        pinned = await plans.resolve(command, context)
        pinned.check_input(command.input)
        run_id = begun_by(delivery)
        queued = self._limits.hold(pinned.plan, context.tenant)
        begin = Begin(run_id, context.tenant, context.principal, command, queued=queued)
        facts = facts_of(
            pinned.plan,
            principal=context.principal,
            request=request_digest(command),
            labels=command.labels,
            priority=command.priority,
            session=session_in(command.input) if command.agent is not None else None,
            waits=queued,
        )
        return mail_of(delivery, run_id, begin, pinned=pinned, facts=facts)

    async def _fork(self, delivery: Delivery, plans: PlanBatch) -> Mail:
        command = delivery.decode(ForkRun)
        _check_value(delivery, "input", command.input)
        context = delivery.envelope.context
        old = await self._host.read(command.run_id)
        if old is None or old.tenant != context.tenant:
            raise no_run(command.run_id)
        pinned = await self._plan_of_fork(old, command, context, plans)
        begun = old.state.started_event
        start = StartRun(
            workflow=begun.workflow,
            input=begun.input if command.input is None else command.input,
            labels=begun.labels if command.labels is None else command.labels,
            priority=begun.priority,
        )
        pinned.check_input(start.input)
        before, machine = old.machine.plan, pinned.machine
        kept = kept_steps(old.state, before, pinned.plan, machine.graph, command.from_step, start.input)
        run_id = begun_by(delivery)
        queued = self._limits.hold(pinned.plan, context.tenant)
        begin = Begin(run_id, context.tenant, context.principal, start, forked_from=old.id, kept=kept, queued=queued)
        facts = facts_of(
            pinned.plan,
            principal=context.principal,
            request=request_digest(command, besides="new_run_id"),
            labels=start.labels,
            priority=start.priority,
            forked_from=old.id,
            session=session_in(start.input) if old.facts["revision"] == 0 else None,
            waits=queued,
        )
        return mail_of(delivery, run_id, begin, pinned=pinned, facts=facts)

    async def _plan_of_fork(self, old: Entry, command: ForkRun, context: Context, plans: PlanBatch) -> Pinned:
        """What the old run pinned, or the asked-for revision of its workflow."""
        whole, bracket, _ = command.from_step.partition("[")
        if bracket:
            message = f"a fork starts from a whole step: {quote(whole)}, not a part of it"
            raise InvalidInput(message, path="from_step")
        if command.revision is None:
            return await self._plans.to_pin(context.tenant, old.facts["plan"])
        if old.facts["revision"] == 0:
            message = f"run {old.id} is of an agent, not of a workflow; fork it without a revision"
            raise InvalidInput(message, path="revision")
        return await plans.resolve(StartRun(workflow=old.facts["workflow"], revision=command.revision), context)

    async def _decide(self, delivery: Delivery, _: PlanBatch) -> Mail | None:
        """A decision for the run that asked. One about a tool call is no run's, and is obeyed at once."""
        command, context = delivery.decode(DecideApproval), delivery.envelope.context
        found = await self._approvals.get(context.tenant, command.approval_id)
        if found is not None and found.task_id is not None:
            said = await self._calls.decide(delivery, command)
            await (delivery.refuse(said) if isinstance(said, ParacleError) else delivery.reply(said))
            return None
        run_id = command.run_id or (found.run_id if found is not None else None)
        if run_id is None:
            raise no_approval(command.approval_id)
        message = Decide(
            context.principal,
            context.roles,
            command.approval_id,
            command.digest,
            command.decision,
            command.reason,
        )
        return mail_of(delivery, run_id, message)


def is_start(delivery: Delivery) -> bool:
    """Whether `delivery` begins a run, for which more has to be there than for what is ordered of one."""
    return delivery.subject.rpartition(".")[2] in {StartRun.verb, ForkRun.verb}


def begun_by(delivery: Delivery) -> str:
    """The id of the run that a start or a fork begins: the one that it names, or else one that follows from its own."""
    if delivery.subject.endswith(f".{ForkRun.verb}"):
        named = delivery.decode(ForkRun).new_run_id
    else:
        named = delivery.decode(StartRun).run_id
    return named or run_id_for(delivery.tenant, delivery.envelope.id)


def _verbs() -> Iterator[str]:
    """What can be ordered of this service, by whichever part of it."""
    commands = (kind for kind in CATALOG.values() if issubclass(kind, Command))
    return (kind.verb for kind in commands if kind.service == StartRun.service)


async def _cancel(delivery: Delivery, _: PlanBatch) -> Mail:
    command = delivery.decode(CancelRun)
    return mail_of(delivery, command.run_id, Cancel(delivery.envelope.context.principal, command))


async def _pause(delivery: Delivery, _: PlanBatch) -> Mail:
    command = delivery.decode(PauseRun)
    return mail_of(delivery, command.run_id, Pause(delivery.envelope.context.principal, command.reason))


async def _resume(delivery: Delivery, _: PlanBatch) -> Mail:
    command = delivery.decode(ResumeRun)
    return mail_of(delivery, command.run_id, Resume(delivery.envelope.context.principal, command.reason))


async def _signal(delivery: Delivery, _: PlanBatch) -> Mail:
    command, envelope = delivery.decode(SignalRun), delivery.envelope
    _check_value(delivery, "payload", command.payload)
    signal = Signal(envelope.id, command.signal, command.payload, envelope.context.principal)
    return mail_of(delivery, command.run_id, signal)


def _check_value(delivery: Delivery, path: str, value: JsonValue) -> None:
    """Refuse what a command brings for a run, if it is more than a history should hold, or whoever reads one can read.

    Raises
    ------
    PayloadTooLarge, InvalidInput
    """
    size = len(delivery.body)
    if size > MAX_INPUT_BYTES:
        raise PayloadTooLarge(
            f"a command may have {MAX_INPUT_BYTES:,} bytes, and this one has {size:,}; "
            "put large data where a tool can read it, and pass its place",
            path=path,
        )
    require_levels(delivery.body, value, path)


def mail_of(delivery: Delivery, run_id: str, message: RunMessage, **more: Any) -> Mail:
    """The mail for a run that `delivery` brings."""
    envelope = delivery.envelope
    return Mail(run_id, envelope.id, message, envelope.context, redelivered=delivery.again, **more)


def run_id_for(tenant: str, message_id: str) -> str:
    """The id of the run that the start command `message_id` begins: one command, one run, however often it comes.

    An id of ours keeps its time. A bare client's message without one is named by its place in the stream and the time
    at which it was stored there; a dead letter that goes out again is stored anew, and keeps that name. A key that a
    client chose has no time.
    """
    if is_id(message_id, "msg"):
        return derive_id("run", message_id, tenant)
    place = _PLACE.fullmatch(message_id)
    return id_from_key("run", f"{tenant}/{message_id}", 0 if place is None else int(place[1]) // 1_000_000)


def request_digest(command: Command, *, besides: str = "run_id") -> str:
    """What makes two commands the same request: all `besides` the new run's id, whatever the order of keys."""
    wanted = command.model_dump(mode="json", exclude={besides})
    return sha256(json.dumps(wanted, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def answer(order: Order, handled: Handled) -> None:
    """Say what became of `order`."""
    mail = order.mail
    entry = handled.entries.get(mail.run_id)
    foreign = entry is not None and entry.tenant != mail.context.tenant
    if entry is None or (foreign and mail.facts is None):
        await order.delivery.refuse(no_run(mail.run_id))
        return
    if (refusal := handled.refusal(mail)) is not None:
        await order.delivery.refuse(refusal)
        return
    if mail.facts is not None and (foreign or entry.facts["request"] != mail.facts["request"]):
        taken = f"run {mail.run_id} exists already, from another request; choose another id, or send the same request"
        await order.delivery.refuse(Conflict(taken, path="run_id"))
        return
    created = mail.facts is not None and (mail.run_id, mail.cause) in handled.begun
    await order.delivery.reply(RunAccepted(run_id=mail.run_id, status=entry.state.status, created=created))


async def leave(batch: Sequence[Delivery], read: Sequence[Read], broken: Mapping[str, Exception]) -> None:
    """If some of `batch` could not be read now, or their runs are broken, settle the others and raise why.

    What is left is the mailbox's.
    """
    left = [_failure(found, broken) for found in read]
    failure = next((error for error in left if error is not None), None)
    if failure is None:
        return
    for delivery, error in zip(batch, left, strict=True):
        if error is None:
            await delivery.ack()
    raise failure


def _failure(read: Read, broken: Mapping[str, Exception]) -> BaseException | None:
    return broken.get(read.mail.run_id) if isinstance(read, Order) else read
