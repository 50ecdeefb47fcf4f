"""The ledger of effects: entered by tasks, read by people, and resolved by them where it is in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from paracle_agent_runtime.journal import Journal
from paracle_agent_runtime.ports import Attempts, Clock, Effects
from paracle_agent_runtime.records import record_message
from paracle_chassis.batching import Batches
from paracle_chassis.bus import Bus
from paracle_chassis.delivery import Delivery
from paracle_chassis.outages import outlast
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, InvalidInput, NotFound, quote
from paracle_domain.machine import EventRecord
from paracle_domain.run.nodes import require_levels
from paracle_domain.task.effects import (
    EffectPage,
    EffectState,
    EffectView,
    GetEffect,
    ListEffects,
    Resolution,
    ResolveEffect,
)
from paracle_domain.task.events import EarlierEffect, load_event
from paracle_domain.task.ledger import Entry, believing, earlier_effects, inherited
from paracle_domain.task.messages import Task


class Ledger:
    """What tasks write into the ledger, and what they read there before they begin."""

    def __init__(self, effects: Effects, attempts: Attempts, journal: Journal) -> None:
        self._effects = effects
        self._attempts = attempts
        self._journal = journal
        self._enter = Batches(self._enter_all)

    async def enter(self, tenant: str, entries: Sequence[Entry]) -> None:
        """Keep what a task says of its effects; outages are waited out, since the task has not acted on it yet."""
        await asyncio.gather(*(self._enter((tenant, entry)) for entry in entries))

    async def _enter_all(self, entries: Sequence[tuple[str, Entry]]) -> Sequence[None]:
        await outlast(lambda: self._effects.enter(entries), "the list of effects")
        return [None] * len(entries)

    async def before(self, task: Task, tenant: str) -> tuple[EarlierEffect, ...]:
        """What earlier attempts of the step, or the step of the run that this one is forked from, left behind."""
        found: tuple[EarlierEffect, ...] = ()
        if task.attempt > 1:
            found = await self._of_attempts(task, tenant)
        if task.forked_from is not None:
            theirs = inherited(task, await self._effects.doubtful(tenant, task.forked_from, task.step))
            known = {effect.key for effect in found}
            found += tuple(effect for effect in theirs if effect.key not in known)
        return found

    async def _of_attempts(self, task: Task, tenant: str) -> tuple[EarlierEffect, ...]:
        ids = await self._attempts.before(task, tenant)
        histories = await asyncio.gather(*(self._journal.load(task_id) for task_id in ids))
        found = earlier_effects(
            [load_event(body) for page in history.pages for body in page.events] for history in histories if history
        )
        doubtful = [effect.key for effect in found if not effect.done]
        return believing(found, await self._effects.resolutions(tenant, doubtful)) if doubtful else found


class EffectDesk:
    """Answers what people ask about effects, and takes what they found out."""

    def __init__(self, effects: Effects, bus: Bus, clock: Clock) -> None:
        self._effects = effects
        self._bus = bus
        self._clock = clock

    async def list_effects(self, request: ListEffects, call: Context) -> EffectPage:
        """Effects of the tenant, the newest first."""
        return await self._effects.page(request, call.tenant)

    async def get_effect(self, request: GetEffect, call: Context) -> EffectView:
        """One of them.

        Raises
        ------
        NotFound
            If the tenant has none with that key.
        """
        return await self._found(call.tenant, request.key)

    async def obey(self, delivery: Delivery) -> None:
        """Resolve what is in doubt. Told once more, what was found out is answered again."""
        await delivery.answer(self._resolved(delivery))

    async def _resolved(self, delivery: Delivery) -> EffectView:
        command = delivery.decode(ResolveEffect)
        if command.outcome == "not_done" and command.output is not None:
            raise InvalidInput("what was not done has answered nothing; leave output out", path="output")
        require_levels(delivery.body, command.output, "output")
        context = delivery.envelope.context.caused_by(delivery.envelope.id)
        found = Resolution(
            outcome=command.outcome,
            output=command.output,
            reason=command.reason,
            principal=context.principal,
            at=self._clock(),
        )
        changed = await self._effects.resolve(context.tenant, command.key, found)
        view = await self._found(context.tenant, command.key)
        if not changed and view.probe is not None and view.probe.open:
            raise Conflict(f"effect {command.key} is being probed by {view.probe.tool}; wait for it, or cancel the run")
        if not changed and not _says(view, found):
            raise Conflict(f"effect {command.key} is {view.state}, not in doubt, so there is nothing to resolve")
        await self._bus.publish([record_message(_record(view, found), context)])
        return view

    async def _found(self, tenant: str, key: str) -> EffectView:
        view = await self._effects.get(tenant, key)
        if view is None:
            raise NotFound(f"there is no effect {quote(key)}", path="key")
        return view


def _says(view: EffectView, found: Resolution) -> bool:
    """Whether the same person has resolved it so already."""
    if view.state is not EffectState.RESOLVED or view.resolution is None:
        return False
    return view.resolution.model_copy(update={"at": found.at}) == found


def _record(view: EffectView, found: Resolution) -> EventRecord:
    """What the audit log has of it: who said what, and why."""
    return EventRecord(
        entity="effect",
        id=view.key,
        seq=view.resolved,
        type="effect.resolved",
        at=view.changed_at,
        correlation_id=view.run_id,
        data={
            **(view.resolution or found).model_dump(mode="json", exclude_none=True),
            "tool": view.tool,
            "step": view.step,
        },
    )
