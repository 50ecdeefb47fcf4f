"""Commands on `cmd.orchestrator.*`: read into mail for runs, and answered once that is committed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from paracle_chassis.delivery import Delivery
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
from paracle_domain.run.commands import CancelRun, RunAccepted, StartRun
from paracle_domain.run.inbox import Begin, Cancel, RunMessage
from paracle_orchestrator.facts import facts_of
from paracle_orchestrator.host import Handled, Mail
from paracle_orchestrator.plans import Pinned, PlanBatch, Plans

MAX_INPUT_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """A command that was understood: the mail for its run, and whom to answer."""

    delivery: Delivery
    mail: Mail


type Read = Order | BaseException | None
"""What became of reading a command: an order; why it cannot be read now; or nothing, for it was refused."""


class Orders:
    """Reads commands. Starts need the registry; while it is away, they cannot be read."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._readers: Mapping[str, Callable[[Delivery, PlanBatch], Awaitable[Mail]]] = {
            StartRun.verb: _start,
            CancelRun.verb: _cancel,
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
                known = ", ".join(self._readers)
                raise MalformedMessage(f"the orchestrator knows no command {quote(verb)}; known are {known}")
            return Order(delivery, await reader(delivery, plans))
        except ParacleError as error:
            if error.retryable:
                raise
            await refuse(delivery, error)
            return None


async def _start(delivery: Delivery, plans: PlanBatch) -> Mail:
    command = delivery.decode(StartRun)
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
    return mail_of(delivery, run_id, begin, pinned=pinned, facts=_facts(command, pinned, context))


async def _cancel(delivery: Delivery, _: PlanBatch) -> Mail:
    command = delivery.decode(CancelRun)
    return mail_of(delivery, command.run_id, Cancel(delivery.envelope.context.principal, command))


def mail_of(delivery: Delivery, run_id: str, message: RunMessage, **more: Any) -> Mail:
    """The mail for a run that `delivery` brings."""
    envelope = delivery.envelope
    return Mail(run_id, envelope.id, message, envelope.context, redelivered=delivery.again, **more)


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
    return facts_of(
        pinned.plan,
        principal=context.principal,
        request=request_digest(command),
        labels=command.labels,
        priority=command.priority,
    )


def request_digest(command: StartRun) -> str:
    """What makes two start commands the same request: all but the run's id, whatever the order of keys."""
    wanted = command.model_dump(mode="json", exclude={"run_id"})
    return sha256(json.dumps(wanted, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def answer(order: Order, handled: Handled) -> None:
    """Say what became of `order`."""
    mail = order.mail
    entry = handled.entries.get(mail.run_id)
    foreign = entry is not None and entry.tenant != mail.context.tenant
    if entry is None or (foreign and mail.facts is None):
        await refuse(order.delivery, NotFound(f"there is no run {quote(mail.run_id)}", path="run_id"))
        return
    if mail.facts is not None and (foreign or entry.facts["request"] != mail.facts["request"]):
        taken = f"run {mail.run_id} exists already, from another request; choose another id, or send the same request"
        await refuse(order.delivery, Conflict(taken, path="run_id"))
        return
    created = mail.run_id in handled.begun
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


async def refuse(delivery: Delivery, error: ParacleError) -> None:
    """Tell whoever sent the command; if he cannot be known, also park it where somebody will look.

    Parking answers too. Answering twice would leave an answer behind for the next one who sends the same.
    """
    if delivery.envelope.reply_to is None:
        await delivery.term(error)
    else:
        await delivery.reply(error)
