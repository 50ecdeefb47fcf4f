"""What can be asked and ordered of triggers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.delivery import Delivery
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import InvalidInput, NotFound, ParacleError, Unavailable, quote
from paracle_domain.machine import EventRecord
from paracle_domain.messages import JsonObject, Message
from paracle_domain.trigger.commands import (
    Cause,
    FireTrigger,
    GetTrigger,
    ListTriggers,
    PauseTrigger,
    ResumeTrigger,
    TriggerPage,
    TriggerView,
)
from paracle_domain.trigger.scope import Scope, message_scope, schedule_scope
from paracle_orchestrator.beside import Beside
from paracle_orchestrator.orders import run_id_for
from paracle_orchestrator.outgoing import SOURCE
from paracle_orchestrator.ports import Clock
from paracle_orchestrator.triggers.following import Follower
from paracle_orchestrator.triggers.learning import calendar_of, paused_by, resumed
from paracle_orchestrator.triggers.ports import Trigger, TriggerStore
from paracle_orchestrator.triggers.schedules import start_of
from paracle_orchestrator.triggers.starter import LEASE, Starter
from paracle_orchestrator.triggers.views import LAST_RUNS, summary_of, view_of

ENTITY: Final = "trigger_state"
"""Whose events these are; those of entity `trigger` are about revisions, and the registry's."""


class Triggers:
    """Commands and queries about triggers; `verbs` are the commands, `beside` is a resource."""

    def __init__(self, store: TriggerStore, follower: Follower, starter: Starter, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._follower = follower
        self._starter = starter
        self._bus = bus
        self._clock = clock
        self.verbs = frozenset((PauseTrigger.verb, ResumeTrigger.verb, FireTrigger.verb))
        self.beside = Beside()
        self._verbs: Mapping[str, Callable[[Delivery], Awaitable[None]]] = {
            PauseTrigger.verb: self._pause,
            ResumeTrigger.verb: self._resume,
            FireTrigger.verb: self._fire_beside,
        }

    async def obey(self, delivery: Delivery) -> None:
        """Do what a command says, and answer it."""
        try:
            await self._verbs[delivery.subject.rpartition(".")[2]](delivery)
        except ParacleError as error:
            if error.retryable:
                raise
            await delivery.refuse(error)

    async def get_trigger(self, request: GetTrigger, call: Context) -> TriggerView:
        """One trigger; one that was just applied is there."""
        return await self._view(await self._need(call.tenant, request.name))

    async def list_triggers(self, request: ListTriggers, call: Context) -> TriggerPage:
        """Triggers, by name."""
        await self._follower.follow_if_possible(call.tenant)
        found = await self._store.page(call.tenant, request.cursor or "", request.limit + 1)
        page = found[: request.limit]
        now = self._clock()
        return TriggerPage(
            triggers=tuple(summary_of(trigger, now) for trigger in page),
            next_cursor=page[-1].name if len(found) > len(page) else None,
        )

    async def _view(self, trigger: Trigger) -> TriggerView:
        return view_of(trigger, await self._store.last(*trigger.key, LAST_RUNS), self._clock())

    async def _need(self, tenant: str, name: str) -> Trigger:
        """The trigger, as the registry has it now if it can be asked."""
        followed = await self._follower.follow_if_possible(tenant)
        found = await self._store.get(tenant, name)
        if found is not None:
            return found
        if not followed:
            raise Unavailable(f"whether there is a trigger {quote(name)} cannot be told while the registry is away")
        raise NotFound(f"there is no trigger {quote(name)}; `paracle triggers ls` lists those there are", path="name")

    async def _pause(self, delivery: Delivery) -> None:
        command = delivery.decode(PauseTrigger)
        who, now = delivery.envelope.context.principal, self._clock()

        def pause(trigger: Trigger) -> Trigger:
            return paused_by(trigger, who, now, command.reason)

        data: JsonObject = {} if command.reason is None else {"reason": command.reason}
        await delivery.reply(await self._change(delivery, command.name, pause, "paused", data))

    async def _resume(self, delivery: Delivery) -> None:
        command = delivery.decode(ResumeTrigger)
        now = self._clock()

        def resume(trigger: Trigger) -> Trigger:
            return resumed(trigger, now) if trigger.paused else trigger

        await delivery.reply(await self._change(delivery, command.name, resume, "resumed", {}))

    async def _fire_beside(self, delivery: Delivery) -> None:
        """Fire beside the mailbox: the start is a command, too, and comes after this one in the same mailbox."""
        command = delivery.decode(FireTrigger)
        _ = self.beside.take(delivery, lambda: self._fire(delivery, command))

    async def _fire(self, delivery: Delivery, command: FireTrigger) -> Message:
        """Start a run; the same command again is answered with the same run."""
        trigger = await self._need(delivery.tenant, command.name)
        if trigger.spec.subject is None and command.message is not None:
            raise InvalidInput(f"trigger {trigger.name!r} goes by a schedule, and takes no message", path="message")
        message_id, now = delivery.envelope.id, self._clock()
        origin = f"{trigger.tenant}\x1ftrigger\x1f{trigger.name}\x1ffired"
        run_id = run_id_for(origin, message_id)
        wanted = start_of(trigger, run_id, _scope(trigger, command, message_id, now), Cause.COMMAND, now)
        start = await self._store.add(wanted, now + LEASE)
        if start.error is not None:
            raise InvalidInput(f"trigger {trigger.name!r}: {start.error.message}", path=start.error.path)
        accepted = await self._starter.settle(start, delivery.envelope.context.caused_by(message_id))
        with suppress(NotFound):  # deleted meanwhile: its run is under way nevertheless
            await self._change(delivery, trigger.name, _as_it_is, "fired", {"run_id": accepted.run_id})
        return accepted

    async def _change(
        self, delivery: Delivery, name: str, edit: Callable[[Trigger], Trigger], what: str, data: JsonObject
    ) -> TriggerView:
        """Change a trigger once for each command, and tell of it each time that the command comes."""
        command_id = delivery.envelope.id

        def once(trigger: Trigger) -> Trigger:
            known = trigger.number_of(command_id) is not None
            return trigger if known else edit(trigger).after_command(command_id)

        changed = await self._store.change(delivery.tenant, name, once)
        if changed is None:  # perhaps it is only not known yet
            await self._need(delivery.tenant, name)
            changed = await self._store.change(delivery.tenant, name, once)
        if changed is None:
            raise NotFound(f"there is no trigger {quote(name)} any more", path="name")
        await self._bus.publish([_event(changed, delivery, what, data, self._clock())])
        return await self._view(changed)


def _as_it_is(trigger: Trigger) -> Trigger:
    return trigger


def _scope(trigger: Trigger, command: FireTrigger, message_id: str, now: datetime) -> Scope:
    if trigger.spec.subject is not None:
        return message_scope(trigger.name, trigger.spec.subject.topic, message_id, command.message)
    calendar, _ = calendar_of(trigger)
    return schedule_scope(trigger.name, now, UTC if calendar is None else calendar.zone)


def _event(trigger: Trigger, delivery: Delivery, what: str, data: JsonObject, now: datetime) -> Outgoing:
    command_id = delivery.envelope.id
    context = delivery.envelope.context
    number = trigger.number_of(command_id)
    assert number is not None
    record = EventRecord(
        entity=ENTITY, id=trigger.name, seq=number, type=f"trigger.{what}", at=now, cause=command_id, data=data
    )
    envelope = Envelope.wrap(
        record.type_name, SOURCE, context.caused_by(command_id), id=record.message_id(trigger.tenant)
    )
    return Outgoing(subjects.evt(trigger.tenant, ENTITY, trigger.name, what), record, envelope)
