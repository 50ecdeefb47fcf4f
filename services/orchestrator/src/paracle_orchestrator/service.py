"""Use cases of the orchestrator: obey commands, take in results, answer questions."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from paracle_chassis.delivery import Delivery
from paracle_chassis.event_store import EventStore
from paracle_domain.envelope import Context
from paracle_domain.errors import (
    Conflict,
    InvalidInput,
    MalformedMessage,
    NotFound,
    ParacleError,
    PayloadTooLarge,
    quote,
)
from paracle_domain.ids import derive_id, id_from_key, is_id
from paracle_domain.plan import Plan
from paracle_domain.run.commands import (
    CancelRun,
    GetPlan,
    GetRun,
    GetRunEvents,
    ListRuns,
    RunAccepted,
    RunEvents,
    RunPage,
    RunView,
    StartRun,
)
from paracle_domain.run.machine import Begin, Cancel, Tick
from paracle_domain.task.messages import TaskResult
from paracle_orchestrator.host import Entry, Handled, Mail, RunHost, records_of
from paracle_orchestrator.plans import Pinned, PlanBatch, Plans
from paracle_orchestrator.ports import RunIndex
from paracle_orchestrator.ticks import RunTick
from paracle_orchestrator.views import view_of

MAX_INPUT_BYTES: Final = 4 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Order:
    """A command that was understood: the mail for its run, and whom to answer."""

    delivery: Delivery
    mail: Mail


class Orchestrator:
    """Everything that can be asked of runs."""

    def __init__(self, host: RunHost, plans: Plans, store: EventStore, index: RunIndex) -> None:
        self._host = host
        self._plans = plans
        self._store = store
        self._index = index

    async def obey(self, batch: Sequence[Delivery]) -> None:
        """Commands on `cmd.orchestrator.*`: each is answered once what it led to is committed.

        Starts need the registry. While it is away they are left to the mailbox, and nothing else waits for them.
        """
        plans = self._plans.batch()
        read = await asyncio.gather(*(self._read(delivery, plans) for delivery in batch), return_exceptions=True)
        orders = [order for order in read if isinstance(order, _Order)]
        handled = await self._host.handle([order.mail for order in orders])
        for order in orders:
            await _answer(order, handled)
        await _leave(batch, read)

    async def take_in(self, batch: Sequence[Delivery]) -> None:
        """What comes for runs on `result.*`: results of tasks, and ticks."""
        mail: list[Mail] = []
        for delivery in batch:
            item = _result_mail(delivery)
            if isinstance(item, ParacleError):
                await delivery.term(item)
            else:
                mail.append(item)
        await self._host.handle(mail)

    async def get_run(self, request: GetRun, call: Context) -> RunView:
        return view_of(await self._entry(request.run_id, call))

    async def list_runs(self, request: ListRuns, call: Context) -> RunPage:
        return await self._index.page(call.tenant, request)

    async def get_run_events(self, request: GetRunEvents, call: Context) -> RunEvents:
        entry = await self._entry(request.run_id, call)
        pages = await self._store.read(entry.id, request.after, request.limit)
        events = records_of(entry.id, pages, after=request.after, limit=request.limit)
        last = events[-1].seq if events else request.after
        return RunEvents(events=tuple(events), terminal=entry.state.terminal and last >= entry.state.seq)

    async def get_plan(self, request: GetPlan, call: Context) -> Plan:
        return (await self._plans.get(call.tenant, request.digest)).plan

    async def _entry(self, run_id: str, call: Context) -> Entry:
        entry = await self._host.read(run_id)
        if entry is None or entry.tenant != call.tenant:
            raise NotFound(f"there is no run {quote(run_id)}; `paracle runs` lists those there are", path="run_id")
        return entry

    async def _read(self, delivery: Delivery, plans: PlanBatch) -> _Order | None:
        """The order in `delivery`; one that cannot be obeyed is refused here, and none is returned."""
        try:
            mail = await self._command_mail(delivery, plans)
        except ParacleError as error:
            if error.retryable:
                raise
            await _refuse(delivery, error)
            return None
        return _Order(delivery, mail)

    async def _command_mail(self, delivery: Delivery, plans: PlanBatch) -> Mail:
        verb = delivery.subject.rpartition(".")[2]
        if verb == StartRun.verb:
            return await self._start_mail(delivery, delivery.decode(StartRun), plans)
        if verb == CancelRun.verb:
            command = delivery.decode(CancelRun)
            message = Cancel(delivery.envelope.context.principal, command)
            return _mail(delivery, command.run_id, message)
        raise MalformedMessage(f"the orchestrator knows no command {quote(verb)}; known are start_run and cancel_run")

    async def _start_mail(self, delivery: Delivery, command: StartRun, plans: PlanBatch) -> Mail:
        if (command.workflow is None) == (command.agent is None):
            raise InvalidInput("give exactly one of workflow and agent", path="workflow")
        if len(delivery.body) > MAX_INPUT_BYTES:
            raise PayloadTooLarge(
                f"a start command may have {MAX_INPUT_BYTES:,} bytes, and this one has {len(delivery.body):,}; "
                "put large data where a tool can read it, and pass its place",
                path="input",
            )
        context = delivery.envelope.context
        pinned = await plans.resolve(command, context)
        pinned.check_input(command.input)
        run_id = command.run_id or run_id_for(context.tenant, delivery.envelope.id, delivery.stored_ns)
        begin = Begin(run_id, context.tenant, context.principal, command)
        return _mail(delivery, run_id, begin, pinned=pinned, facts=_facts(command, pinned, context))


def run_id_for(tenant: str, message_id: str, stored_ns: int) -> str:
    """The id of the run that the start command `message_id` begins: one command, one run, however often it comes.

    An id of ours keeps its time. A bare client's message without one is named by its place in the stream, and then
    the time at which it was stored belongs to that name. A key that a client chose has no time.
    """
    if is_id(message_id, "msg"):
        return derive_id("run", message_id, tenant)
    bare = message_id.endswith(f".{stored_ns}")
    return id_from_key("run", f"{tenant}/{message_id}", stored_ns // 1_000_000 if bare else 0)


def _facts(command: StartRun, pinned: Pinned, context: Context) -> Mapping[str, Any]:
    plan = pinned.plan
    return {
        "workflow": plan.workflow.name,
        "revision": plan.workflow.revision,
        "plan": plan.digest,
        "principal": context.principal,
        "request": request_digest(command),
        "labels": json.dumps(command.labels),
    }


def request_digest(command: StartRun) -> str:
    """What makes two start commands the same request: all but the run's id, whatever the order of keys."""
    wanted = command.model_dump(mode="json", exclude={"run_id"})
    return sha256(json.dumps(wanted, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _mail(delivery: Delivery, run_id: str, message: Begin | Cancel | TaskResult | Tick, **more: Any) -> Mail:
    envelope = delivery.envelope
    return Mail(run_id, envelope.id, message, envelope.context, redelivered=delivery.again, **more)


def _result_mail(delivery: Delivery) -> Mail | ParacleError:
    kind = delivery.envelope.type
    try:
        if kind == RunTick.type_name:
            return _mail(delivery, delivery.decode(RunTick).run_id, Tick())
        if kind in {TaskResult.type_name, "result"} or is_id(kind, "run"):
            result = delivery.decode(TaskResult)
            return _mail(delivery, result.run_id, result)
    except ParacleError as error:
        return error
    return MalformedMessage(f"a message of type {quote(kind)} is nothing that a run understands; it is parked")


async def _answer(order: _Order, handled: Handled) -> None:
    mail = order.mail
    entry = handled.entries.get(mail.run_id)
    foreign = entry is not None and entry.tenant != mail.context.tenant
    if entry is None or (foreign and mail.facts is None):
        await _refuse(order.delivery, NotFound(f"there is no run {quote(mail.run_id)}", path="run_id"))
        return
    if mail.facts is not None and (foreign or entry.facts["request"] != mail.facts["request"]):
        taken = f"run {mail.run_id} exists already, from another request; choose another id, or send the same request"
        await _refuse(order.delivery, Conflict(taken, path="run_id"))
        return
    created = mail.run_id in handled.begun
    await order.delivery.reply(RunAccepted(run_id=mail.run_id, status=entry.state.status, created=created))


async def _leave(batch: Sequence[Delivery], read: Sequence[_Order | BaseException | None]) -> None:
    """If some of `batch` could not be read now, settle the others and raise why: those are the mailbox's."""
    failure = next((found for found in read if isinstance(found, BaseException)), None)
    if failure is None:
        return
    for delivery, found in zip(batch, read, strict=True):
        if not isinstance(found, BaseException):
            await delivery.ack()
    raise failure


async def _refuse(delivery: Delivery, error: ParacleError) -> None:
    """Tell whoever sent the command; if he cannot be known, also park it where somebody will look.

    Parking answers too. Answering twice would leave an answer behind for the next one who sends the same.
    """
    if delivery.envelope.reply_to is None:
        await delivery.term(error)
    else:
        await delivery.reply(error)
