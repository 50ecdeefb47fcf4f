"""The actor host of runs: load, decide, append, publish. Everything that changes a run goes through `RunHost.handle`.

    mail ──► hold the runs ──► decide (pure) ──► append: one statement, one fsync ──► publish ──► (the mailbox acks)
                                            └──► prepare what is to be published ──┘

A batch has its runs for itself from the first to the last of these, so what happens to a run is decided, stored and
published in one order; batches without a run in common go on side by side.

A crash before the append leaves nothing; the mail comes again. A crash after it leaves history without its messages;
the mail comes again, is found to change nothing, and what it had caused is published again under the same ids. A run
that another replica moved on in between is loaded anew, from the event that this one knew on, and decided again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from paracle_chassis.bus import Bus
from paracle_chassis.event_store import EventStore, Wake
from paracle_domain.errors import Conflict
from paracle_domain.run.events import decode_event
from paracle_domain.run.inbox import Begin, Pause, Resume
from paracle_domain.run.state import RunState
from paracle_orchestrator import telemetry
from paracle_orchestrator.cache import RunCache
from paracle_orchestrator.mail import Entry, Handled, Mail
from paracle_orchestrator.plans import Plans
from paracle_orchestrator.ports import Approvals, Clock
from paracle_orchestrator.turns import Turn, was_obeyed
from paracle_orchestrator.turnstile import Turnstile

_ROUNDS: Final = 20


class RunHost:
    """Runs in hand.

    `queue_moved` is called when a run joined the queue of those that wait for a slot, or may have left a slot.
    """

    def __init__(
        self, store: EventStore, plans: Plans, approvals: Approvals, bus: Bus, clock: Clock, *, cached: int
    ) -> None:
        self._store = store
        self._cache = RunCache(store, plans, most=cached)
        self._approvals = approvals
        self._bus = bus
        self._clock = clock
        self._turnstile = Turnstile()
        self.soonest_wake: datetime | None = None
        self.queue_moved: Callable[[], None] = _nobody_cares

    async def handle(self, mail: Sequence[Mail]) -> Handled:
        """Do what `mail` says; on return it is committed and published.

        Mail of one run is handled in the order given, but for its start, which comes first. Mail for a run that is not
        there, or not its tenant's, does nothing. A run that breaks holds up no other (`Handled.broken`).

        Raises
        ------
        Conflict
            If other replicas moved a run on again and again; the mail is to be tried later.
        """
        waiting = _by_run(mail)
        async with self._turnstile.hold(waiting.keys()):
            return await self._handle(waiting)

    async def read(self, run_id: str) -> Entry | None:
        """The run as it is stored now."""
        broken: dict[str, Exception] = {}
        found = (await self._cache.load([run_id], broken)).get(run_id)
        if run_id in broken:
            raise broken[run_id]
        return found

    async def _handle(self, waiting: Mapping[str, Sequence[Mail]]) -> Handled:
        handled = Handled()
        loaded: dict[str, Entry] = {}
        sure: set[str] = set()  # what is stored of these was just read
        for _ in range(_ROUNDS):
            entries, read = await self._entries_for(waiting, loaded, handled.broken)
            done = await self._done(waiting, lost=bool(sure))  # after them: what they do not know yet is refused
            turns = self._decide(entries, waiting, done, handled.broken)
            again = {turn.entry.id for turn in turns if turn.idle} - sure - read
            stored = self._commit([turn for turn in turns if turn.pages])
            lost, _ = await asyncio.gather(stored, self._prepare(turns, handled.broken))
            again |= lost
            kept = [turn for turn in turns if turn.entry.id not in again | handled.broken.keys()]
            await self._publish(kept)
            _note(handled, kept)
            if not again:
                return handled
            loaded = await self._cache.load(again, handled.broken)
            sure = again  # also of those that are not there, for they begin in this batch
            waiting = {run_id: waiting[run_id] for run_id in again if run_id not in handled.broken}
        raise Conflict(f"{len(waiting)} runs changed {_ROUNDS} times while they were being changed; try again")

    async def _entries_for(
        self, waiting: Mapping[str, Sequence[Mail]], loaded: Mapping[str, Entry], broken: dict[str, Exception]
    ) -> tuple[dict[str, Entry], set[str]]:
        """Entries of the runs with mail, and which of them were looked for in the store: all but those that were just
        `loaded`, are cached, or begin with this mail.
        """
        found: dict[str, Entry] = {}
        missing: set[str] = set()
        for run_id, mails in waiting.items():
            if (known := loaded.get(run_id) or self._cache.get(run_id)) is not None:
                found[run_id] = known
            elif isinstance(mails[0].message, Begin) and not mails[0].redelivered:
                found[run_id] = _fresh(mails[0])
            else:
                missing.add(run_id)
        if missing:
            found |= await self._cache.load(missing, broken)
            for run_id in missing - found.keys() - broken.keys():
                if isinstance(waiting[run_id][0].message, Begin):
                    found[run_id] = _fresh(waiting[run_id][0])
        return found, missing

    async def _done(self, waiting: Mapping[str, Sequence[Mail]], *, lost: bool) -> list[Mail]:
        """Pauses and resumes that were obeyed before, here or (if these runs were `lost`) elsewhere.

        They must not undo what was ordered since. All else counts once by itself.
        """
        steering = [
            mail
            for mails in waiting.values()
            for mail in mails
            if (lost or mail.redelivered) and isinstance(mail.message, Pause | Resume)
        ]
        if not steering:
            return []
        loaded = await self._store.load({mail.run_id for mail in steering})
        return [
            mail
            for mail in steering
            if (row := loaded.get(mail.run_id)) is not None
            and any(page.cause == mail.cause and was_obeyed(mail, map(decode_event, page.events)) for page in row.pages)
        ]

    def _decide(
        self,
        entries: Mapping[str, Entry],
        waiting: Mapping[str, Sequence[Mail]],
        done: Sequence[Mail],
        broken: dict[str, Exception],
    ) -> list[Turn]:
        turns: list[Turn] = []
        now = self._clock()  # one for all, which is then spelled out once
        for run_id, entry in entries.items():
            try:
                turns.append(Turn.of(entry, waiting[run_id], now, done))
            except Exception as error:  # noqa: BLE001  # a run that cannot be decided upon holds up no other
                broken[run_id] = error
        return turns

    async def _commit(self, turns: Sequence[Turn]) -> set[str]:
        """Append what was decided; the runs that somebody else had moved on meanwhile."""
        if not turns:
            return set()
        lost = await self._store.append([turn.append for turn in turns])
        for turn in turns:
            if turn.entry.id not in lost:
                self._stored(turn)
        telemetry.COMMITTED.record(len(turns) - len(lost))
        telemetry.CONFLICTS.add(len(lost))
        return lost

    def _stored(self, turn: Turn) -> None:
        state = turn.state
        if state.terminal:
            self._cache.drop(turn.entry.id)  # mail for it is rare, and room for those that live is not
        else:
            self._cache.keep(turn.after)
        _count(turn.entry.state, state)
        if turn.wake_at is not None and (self.soonest_wake is None or turn.wake_at < self.soonest_wake):
            self.soonest_wake = turn.wake_at
        if state.queued or (state.terminal and turn.entry.facts["waits"]):
            self.queue_moved()

    async def _prepare(self, turns: Sequence[Turn], broken: dict[str, Exception]) -> None:
        """Put together what is to go out, while PostgreSQL writes."""
        await asyncio.sleep(0)  # what `_commit` has sent leaves this process when its loop comes round
        pack = self._bus.packer()
        for turn in turns:
            try:
                turn.prepare(pack)
            except Exception as error:  # noqa: BLE001  # nobody may go on, or go away, before what is written is stored
                broken[turn.entry.id] = error

    async def _publish(self, turns: Sequence[Turn]) -> None:
        """Send out what was committed, and once more what earlier deliveries of the same mail had caused."""
        await self._reschedule([turn for turn in turns if not turn.pages and turn.wake_at != turn.entry.wake_at])
        await self._say_again([turn for turn in turns if any(mail.may_repeat for mail in turn.repeats)])
        if shown := [one for turn in turns for one in turn.shown]:
            await self._approvals.show(shown)
        if outbox := [message for turn in turns for message in turn.outbox]:
            await self._bus.publish(outbox)

    async def _reschedule(self, turns: Sequence[Turn]) -> None:
        """Keep new wake-ups of runs to which nothing happened, unless something did meanwhile."""
        if not turns:
            return
        await self._store.reschedule([Wake(turn.entry.id, turn.state.seq, turn.wake_at) for turn in turns])
        for turn in turns:
            self._cache.keep(turn.after)

    async def _say_again(self, turns: Sequence[Turn]) -> None:
        if not turns:
            return
        telemetry.REPEATS.add(sum(mail.may_repeat for turn in turns for mail in turn.repeats))
        loaded = await self._store.load({turn.entry.id for turn in turns})
        for turn in turns:
            if (row := loaded.get(turn.entry.id)) is not None:
                turn.say_again({page.cause: page for page in row.pages})


def _nobody_cares() -> None:
    """Where nothing is admitted."""


def _note(handled: Handled, turns: Iterable[Turn]) -> None:
    for turn in turns:
        run_id = turn.entry.id
        handled.entries[run_id] = turn.after
        if turn.pages and turn.entry.state.seq == 0:
            handled.begun.add((run_id, turn.pages[0].cause))
        handled.refused |= {(run_id, cause): error for cause, error in turn.refused.items()}


def _count(before: RunState, after: RunState) -> None:
    if before.seq == 0:
        telemetry.RUNS_STARTED.add(1)
    if after.terminal and not before.terminal:
        telemetry.RUNS_ENDED.add(1, {"status": after.status.value})


def _by_run(mail: Sequence[Mail]) -> dict[str, list[Mail]]:
    """The mail of each run, its start first: an outage can bring a start behind the cancel that was sent after it."""
    found: dict[str, list[Mail]] = {}
    for item in sorted(mail, key=lambda item: not isinstance(item.message, Begin)):
        found.setdefault(item.run_id, []).append(item)
    return found


def _fresh(mail: Mail) -> Entry:
    assert mail.pinned is not None
    assert mail.facts is not None
    machine = mail.pinned.machine
    return Entry(mail.run_id, mail.context.tenant, machine, machine.new(), mail.facts)
