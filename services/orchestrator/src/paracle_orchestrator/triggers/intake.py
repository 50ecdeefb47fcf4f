"""Messages of users: each is looked at by every trigger on its topic, and starts a run of those that take it.

A message stays in its stream until that is done, so the message is what keeps a start from being lost, and the id of
its run, which follows from the message's id, what keeps it from being done twice. Whoever sent it is answered then.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from pydantic import JsonValue

from paracle_chassis.delivery import Delivery
from paracle_domain.errors import Conflict, InvalidInput, MalformedMessage, ParacleError, quote
from paracle_domain.strict_json import parse_json
from paracle_domain.subjects import Subject
from paracle_domain.trigger.commands import Cause, FireStatus, MessageTaken, Taker, TriggerCounts
from paracle_domain.trigger.scope import dedupe_key, message_scope, takes, topic_matches
from paracle_domain.trigger.spec import SubjectSpec
from paracle_orchestrator import telemetry
from paracle_orchestrator.orders import run_id_for
from paracle_orchestrator.ports import Clock
from paracle_orchestrator.triggers.following import Follower
from paracle_orchestrator.triggers.ports import MessageKey, Start, Trigger, TriggerKey, TriggerStore
from paracle_orchestrator.triggers.schedules import start_of
from paracle_orchestrator.triggers.starter import Starter


@dataclass(slots=True, eq=False)
class _Taken:
    """A message that a trigger takes."""

    delivery: Delivery
    start: Start
    key: MessageKey | None
    double: bool = False
    error: ParacleError | None = None

    @property
    def later(self) -> bool:
        """Whether it could not be started now."""
        return self.error is not None and self.error.retryable

    @property
    def refused(self) -> bool:
        """Whether it never can be started."""
        return self.error is not None and not self.error.retryable


@dataclass(slots=True)
class _Findings:
    """What a batch came to, besides runs."""

    errors: defaultdict[int, list[tuple[str, ParacleError]]] = field(default_factory=lambda: defaultdict(list))
    """By the delivery's place in the batch: which triggers could not take it, and why."""
    counts: defaultdict[TriggerKey, TriggerCounts] = field(default_factory=lambda: defaultdict(TriggerCounts))

    def count(self, trigger: TriggerKey, field_: str) -> None:
        before = self.counts[trigger]
        self.counts[trigger] = before.model_copy(update={field_: getattr(before, field_) + 1})


class Intake:
    """The mailbox of messages."""

    def __init__(self, store: TriggerStore, follower: Follower, starter: Starter, clock: Clock) -> None:
        self._store = store
        self._follower = follower
        self._starter = starter
        self._clock = clock

    async def take_in(self, batch: Sequence[Delivery]) -> None:
        """Start what the triggers want; a message that some trigger cannot take is a dead letter, with the reason.

        What was applied before a message was published takes it: the registry is asked first.
        """
        tenants = sorted({delivery.tenant for delivery in batch})
        await self._follower.follow_all(tenants)
        watching: defaultdict[str, list[Trigger]] = defaultdict(list)
        for trigger in await self._store.on_messages(tenants):
            watching[trigger.tenant].append(trigger)
        findings = _Findings()
        taken: dict[str, _Taken] = {}  # by run: a message that came twice is one
        takers = [
            [
                taken.setdefault(item.start.run_id, item)
                for item in self._look(place, delivery, watching[delivery.tenant], findings)
            ]
            for place, delivery in enumerate(batch)
        ]
        await self._record(await self._start(list(taken.values()), findings), findings)
        await self._settle(batch, takers, findings)

    def _look(self, place: int, delivery: Delivery, triggers: Sequence[Trigger], findings: _Findings) -> list[_Taken]:
        topic = ".".join(Subject.parse(delivery.subject).tail)
        try:
            message = _read(delivery)
        except MalformedMessage as error:
            findings.errors[place].append(("", error))
            return []
        found = []
        for trigger in triggers:
            spec = trigger.spec.subject
            if spec is None or not topic_matches(spec.topic, topic):
                continue
            if trigger.paused:
                findings.count(trigger.key, "dropped")
                continue
            try:
                item = self._take(trigger, spec, delivery, topic, message)
            except ParacleError as error:
                findings.errors[place].append((trigger.name, error))
                findings.count(trigger.key, "failed")
            else:
                found += [item] if item is not None else []
        return found

    def _take(
        self, trigger: Trigger, spec: SubjectSpec, delivery: Delivery, topic: str, message: JsonValue
    ) -> _Taken | None:
        """What `trigger` makes of a message on its topic; none if its filter lets that pass by."""
        message_id = delivery.envelope.id
        scope = message_scope(trigger.name, topic, message_id, message)
        if not takes(spec, scope):
            return None
        now = self._clock()
        run_id = run_id_for(f"{trigger.tenant}\x1ftrigger\x1f{trigger.name}", message_id)
        value = dedupe_key(spec, scope)
        start = start_of(trigger, run_id, scope, Cause.MESSAGE, now)
        if start.error is not None:
            raise InvalidInput(start.error.message, path=start.error.path)
        expires_at = now + timedelta(seconds=spec.dedupe_window_s)
        key = None if value is None else MessageKey(trigger.tenant, trigger.name, value, run_id, expires_at)
        return _Taken(delivery, start, key)

    async def _start(self, taken: Sequence[_Taken], findings: _Findings) -> list[_Taken]:
        """Start those whose key no earlier message had. The key of one that is refused is that of the next one."""
        started: set[_Taken] = set()
        left = taken
        while left:
            own = await self._with_own_keys(left)
            await asyncio.gather(*map(self._begin, own))
            started |= set(own)
            refused = [item.key for item in own if item.refused and item.key is not None]
            if refused:
                await self._store.release_keys(refused)
            free = {key.place for key in refused}
            left = [one for one in left if one.key is not None and one.key.place in free and one not in started]
        for item in taken:
            if item not in started:
                item.double = True
                findings.count(item.start.key, "duplicates")
        return [item for item in taken if not item.double]

    async def _with_own_keys(self, taken: Sequence[_Taken]) -> list[_Taken]:
        keys = [item.key for item in taken if item.key is not None]
        own = await self._store.take_keys(keys, self._clock()) if keys else set()
        return [item for item in taken if item.key is None or item.start.run_id in own]

    async def _begin(self, item: _Taken) -> None:
        context = item.delivery.envelope.context.caused_by(item.delivery.envelope.id)
        try:
            await self._starter.begin(item.start, context)
        except Conflict as error:
            if error.path != "run_id":  # else it began before the trigger was edited, and the message came again
                item.error = error
        except ParacleError as error:
            item.error = error

    async def _record(self, started: Sequence[_Taken], findings: _Findings) -> None:
        """Keep what was started and what was refused for good."""
        starts = [
            replace(item.start, command=None, status=FireStatus.STARTED)
            if item.error is None
            else replace(item.start, command=None, status=FireStatus.FAILED, error=item.error.to_info())
            for item in started
            if not item.later
        ]
        for start in starts:
            telemetry.TRIGGERED.add(1, {"cause": Cause.MESSAGE.value, "outcome": start.status.value})
        if starts or findings.counts:
            await self._store.record(starts, findings.counts)

    async def _settle(self, batch: Sequence[Delivery], takers: Sequence[Sequence[_Taken]], findings: _Findings) -> None:
        """Answer; park what some trigger could not take; leave to the mailbox what could not be started now."""
        later = [item.error for items in takers for item in items if item.later]
        for place, (delivery, items) in enumerate(zip(batch, takers, strict=True)):
            if any(item.later for item in items):
                continue
            errors = findings.errors[place] + [(one.start.trigger, one.error) for one in items if one.error is not None]
            if errors:
                await delivery.term(_reason(errors))
                continue
            await delivery.reply(MessageTaken(runs=tuple(_taker(item.start) for item in items if not item.double)))
            if later:
                await delivery.ack()
        if later and later[0] is not None:
            raise later[0]


def _taker(start: Start) -> Taker:
    return Taker(trigger=start.trigger, run_id=start.run_id)


def _read(delivery: Delivery) -> JsonValue:
    try:
        return parse_json(delivery.body.decode())
    except ValueError as error:
        raise MalformedMessage(
            f"messages on {quote(delivery.subject)} are JSON, for expressions to look into; this one is not: {error}"
        ) from None


def _reason(errors: Sequence[tuple[str, ParacleError]]) -> ParacleError:
    """Why a message is a dead letter: what each trigger that could not take it says."""
    told = [f"trigger {name!r}: {error.message}" if name else error.message for name, error in errors]
    kind = type(errors[0][1]) if len(errors) == 1 else InvalidInput
    return kind("; ".join(told), path=errors[0][1].path)
