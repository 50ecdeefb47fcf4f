"""The actor host of runs: load, decide, append, publish. Everything that changes a run goes through `RunHost.handle`.

    mail ──► decide (pure) ──► append: one statement, one fsync ──► publish ──► (the mailbox acks)

Batches overlap: while one is appended, the next one is decided from the states that the first one will have led to.
Appends go one after the other, and what was decided from a state that did not come to be is decided again. What
happened to a run is published in its order.

A crash before the append leaves nothing; the mail comes again. A crash after it leaves history without its messages;
the mail comes again, is found to change nothing, and what it had caused is published again under the same ids. A run
that another replica moved on in between is loaded anew, from the event that this one knew on, and decided again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from paracle_chassis import outages
from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.event_store import Append, EventStore, Loaded, Page, Wake
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, ParacleError
from paracle_domain.run.directives import RunDirective, ShowApproval
from paracle_domain.run.events import RunEvent, decode_event
from paracle_domain.run.folding import evolve
from paracle_domain.run.inbox import Begin, Decide, Pause, Resume, RunMessage, Signal, Tick
from paracle_domain.run.machine import RunMachine
from paracle_domain.run.state import RunState
from paracle_orchestrator import telemetry
from paracle_orchestrator.outgoing import message_of
from paracle_orchestrator.pages import told
from paracle_orchestrator.plans import Pinned, Plans
from paracle_orchestrator.ports import Approvals, Clock, Shown

_ROUNDS: Final = 20
_OBEYED: Final[Mapping[type[object], str]] = {
    Pause: "run.paused",
    Resume: "run.resumed",
    Signal: "signal.received",
    Decide: "approval.decided",
}
"""What happens to a run that does as it is told. Ids of messages are their senders' choice, and may be used twice."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mail:
    """A message for a run. `cause` is its id; `pinned` and `facts` come with a `Begin`."""

    run_id: str
    cause: str
    message: RunMessage
    context: Context
    redelivered: bool = False
    pinned: Pinned | None = None
    facts: Mapping[str, Any] | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether it may have been handled before, if it changes nothing now. Most ticks simply come too early."""
        return self.redelivered or not isinstance(self.message, Tick)


@dataclass(slots=True)
class Entry:
    """A run as this replica knows it; another one may have moved it on.

    `stored`: whether the store has had it so. One that is still being appended may never be so.
    """

    id: str
    tenant: str
    machine: RunMachine
    state: RunState
    facts: Mapping[str, Any]
    wake_at: datetime | None = None
    stored: bool = True


@dataclass(slots=True)
class _Turn:
    """One run's share of a batch: from `entry` on. `ahead` is what it leads to, if it is to be appended.

    `told` is done once what was appended has been published, or cannot be; `after` is that of the turn before it.
    """

    entry: Entry
    state: RunState
    wake_at: datetime | None
    pages: list[Page] = field(default_factory=list)
    outbox: list[Outgoing] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    repeats: list[Mail] = field(default_factory=list)
    refused: dict[str, ParacleError] = field(default_factory=dict)
    ahead: Entry | None = None
    told: asyncio.Future[None] | None = None
    after: asyncio.Future[None] | None = None

    def carry_out(self, directives: Iterable[RunDirective], context: Context, now: datetime) -> None:
        """Take in what is to be done once the turn is committed."""
        tenant = self.entry.tenant
        for directive in directives:
            if isinstance(directive, ShowApproval):
                self.shown.append(Shown(tenant, directive.approval, directive.version))
            else:
                self.outbox.append(message_of(tenant, directive, context, now))

    @property
    def idle(self) -> bool:
        """Whether there is mail, and none of it changed anything.

        That may only seem so: what is cached may have been moved on elsewhere, and what is not stored yet (this very
        mail may have led to it, in a try that failed) may never be. Where something is appended, that shows.
        """
        return bool(self.repeats) and not self.pages


@dataclass(slots=True)
class Handled:
    """What became of a batch: the runs that its mail was for, what mail began one, and what they would not do.

    `broken`: runs that cannot be read, or decided upon, and why. Nothing happened to them, and their mail is to fail.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    begun: set[tuple[str, str]] = field(default_factory=set)
    refused: dict[tuple[str, str], ParacleError] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)

    def note(self, turns: Iterable[_Turn]) -> None:
        for turn in turns:
            self.entries[turn.entry.id] = turn.ahead or replace(turn.entry, wake_at=turn.wake_at)
            if turn.pages and turn.entry.state.seq == 0:
                self.begun.add((turn.entry.id, turn.pages[0].cause))
            self.refused |= {(turn.entry.id, cause): error for cause, error in turn.refused.items()}

    def refusal(self, mail: Mail) -> ParacleError | None:
        """Why the run would not do what `mail` said, if so."""
        return self.refused.get((mail.run_id, mail.cause))


class RunHost:
    """Runs in hand: a bounded cache of states over the event store.

    `queue_moved` is called when a run joined the queue of those that wait for a slot, or may have left a slot.
    """

    def __init__(
        self, store: EventStore, plans: Plans, approvals: Approvals, bus: Bus, clock: Clock, *, cached: int
    ) -> None:
        self._store = store
        self._plans = plans
        self._approvals = approvals
        self._bus = bus
        self._clock = clock
        self._cached = cached
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._appending = asyncio.Lock()  # whoever waits for it gets it in turn
        self._telling: dict[str, asyncio.Future[None]] = {}  # of the runs of which something is yet to be published
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
        handled = Handled()
        sure: set[str] = set()
        loaded: dict[str, Entry] = {}
        for _ in range(_ROUNDS):
            entries = await self._entries_for(waiting, loaded, sure, handled.broken)
            turns = self._decide_all(entries, waiting, handled.broken)
            idle = [turn for turn in turns if turn.idle]
            ahead = [turn for turn in idle if not turn.entry.stored]
            again = {turn.entry.id for turn in idle if turn.entry.stored and turn.entry.id not in sure}
            try:
                again |= await self._commit([turn for turn in turns if turn.pages])
                again |= await self._unsettled(ahead)
                kept = [turn for turn in turns if turn.entry.id not in again]
                await self._publish(kept)
            finally:
                self._have_told(turns)
            handled.note(kept)
            if not again:
                return handled
            async with self._appending:
                pass  # what this was decided from is stored now, or is not to be
            loaded = await self._load(again, handled.broken)
            sure = again  # also of those that are not there, for they begin in this batch
            waiting = {run_id: waiting[run_id] for run_id in again if run_id not in handled.broken}
        raise Conflict(f"{len(waiting)} runs changed {_ROUNDS} times while they were being changed; try again")

    async def read(self, run_id: str) -> Entry | None:
        """The run as it is stored now."""
        broken: dict[str, Exception] = {}
        found = (await self._load([run_id], broken)).get(run_id)
        if run_id in broken:
            raise broken[run_id]
        return found

    async def _unsettled(self, ahead: Sequence[_Turn]) -> set[str]:
        """Runs of turns that came to nothing because of what was still being appended, and then was not stored."""
        if not ahead:
            return set()
        async with self._appending:
            pass  # that was there first
        return {turn.entry.id for turn in ahead if not turn.entry.stored}

    async def _entries_for(
        self,
        waiting: Mapping[str, Sequence[Mail]],
        loaded: Mapping[str, Entry],
        sure: set[str],
        broken: dict[str, Exception],
    ) -> dict[str, Entry]:
        """Entries of the runs with mail: from the cache, from the store (these are `sure`), or new for a `Begin`.

        What is cached may be older than what was just `loaded`: what was taken back left it behind.
        """
        found: dict[str, Entry] = {}
        missing: list[str] = []
        for run_id, mails in waiting.items():
            known, newer = self._entries.get(run_id), loaded.get(run_id)
            if newer is not None and (known is None or known.state.seq < newer.state.seq):
                known = newer
            if known is not None:
                found[run_id] = known
            elif isinstance(mails[0].message, Begin) and not mails[0].redelivered:
                found[run_id] = _fresh(mails[0])
            else:
                missing.append(run_id)
        if missing:
            found |= await self._load(missing, broken)
            sure.update(missing)
            for run_id in missing:
                first = waiting[run_id][0]
                if run_id not in found and run_id not in broken and isinstance(first.message, Begin):
                    found[run_id] = _fresh(first)
        return found

    async def _load(self, run_ids: Iterable[str], broken: dict[str, Exception]) -> dict[str, Entry]:
        """Entries as they are stored, read on from what is cached; those that cannot be read are `broken`."""
        ids = list(run_ids)
        known = {run_id: entry for run_id in ids if (entry := self._entries.get(run_id)) and entry.stored}
        loaded = await self._store.load(ids, {run_id: entry.state.seq for run_id, entry in known.items()})
        if dropped := [name for name, entry in known.items() if _is_gone(entry, loaded.get(name))]:
            for name in dropped:
                del known[name]
                self._entries.pop(name, None)
            loaded |= await self._store.load([name for name in dropped if name in loaded])
        found: dict[str, Entry] = {}
        for run_id, row in loaded.items():
            try:
                found[run_id] = await self._catch_up(known.get(run_id), row)
            except Exception as error:  # a history that cannot be read holds up no other; an outage holds up all
                if outages.is_outage(error):
                    raise
                broken[run_id] = error
        return found

    async def _catch_up(self, known: Entry | None, row: Loaded) -> Entry:
        if known is None:
            pinned = await self._plans.get(row.tenant, row.facts["plan"])
            known = Entry(row.id, row.tenant, pinned.machine, pinned.machine.new(), row.facts)
        state = known.state
        for page in row.pages:
            state = evolve(state, map(decode_event, page.events), page.at)
        entry = Entry(row.id, row.tenant, known.machine, state, row.facts, row.wake_at)
        cached = self._entries.get(row.id)
        if cached is None or (cached.stored and cached.state.seq <= state.seq):
            self._remember(entry)
        return entry

    def _decide_all(
        self, entries: Mapping[str, Entry], waiting: Mapping[str, Sequence[Mail]], broken: dict[str, Exception]
    ) -> list[_Turn]:
        turns: list[_Turn] = []
        now = self._clock()  # one for all, which is then spelled out once
        for run_id, entry in entries.items():
            try:
                turns.append(self._decide(entry, waiting[run_id], now))
            except Exception as error:  # noqa: BLE001  # a run that cannot be decided upon holds up no other
                broken[run_id] = error
        return turns

    def _decide(self, entry: Entry, mails: Sequence[Mail], now: datetime) -> _Turn:
        turn = _Turn(entry, entry.state, entry.wake_at)
        for mail in mails:
            if mail.context.tenant != entry.tenant:
                continue  # a run is nobody's but its tenant's: for others it is not there
            if (refusal := entry.machine.objection(turn.state, mail.message)) is not None:
                turn.refused[mail.cause] = refusal
            made = entry.machine.decide(turn.state, mail.message, now, turn.wake_at)
            if made.events:
                self._note(turn, mail, made.events, now)
            else:
                turn.repeats.append(mail)
            turn.state, turn.wake_at = made.state, made.wake_at
            turn.carry_out(made.directives, mail.context.caused_by(mail.cause, entry.id), now)
        return turn

    @staticmethod
    def _note(turn: _Turn, mail: Mail, events: Sequence[RunEvent], now: datetime) -> None:
        page = Page(turn.state.seq + 1, mail.cause, now, tuple(event.encode() for event in events))
        turn.pages.append(page)
        turn.outbox += told(turn.entry.tenant, turn.entry.id, page, [event.type for event in events], mail.context)

    async def _commit(self, turns: Sequence[_Turn]) -> set[str]:
        """Append what was decided; the runs that somebody else had moved on meanwhile."""
        if not turns:
            return set()
        self._go_ahead(turns)
        lost = {turn.entry.id for turn in turns}
        try:
            async with self._appending:
                ready = [turn for turn in turns if turn.entry.stored]
                refused = await self._store.append([_append(turn) for turn in ready]) if ready else set()
            lost -= {turn.entry.id for turn in ready} - refused
            self._will_tell([turn for turn in ready if turn.entry.id not in lost])
        finally:
            for turn in turns:
                if turn.entry.id in lost:
                    self._take_back(turn)
                else:
                    self._settle(turn)
        telemetry.COMMITTED.record(len(turns) - len(lost))
        telemetry.CONFLICTS.add(len(lost))
        return lost

    def _go_ahead(self, turns: Sequence[_Turn]) -> None:
        """Let the next batch decide from what `turns` lead to, before that is stored."""
        for turn in turns:
            before = turn.entry
            turn.ahead = Entry(
                before.id, before.tenant, before.machine, turn.state, before.facts, turn.wake_at, stored=False
            )
            self._remember(turn.ahead)

    def _settle(self, turn: _Turn) -> None:
        assert turn.ahead is not None
        turn.ahead.stored = True
        if turn.state.terminal and self._entries.get(turn.entry.id) is turn.ahead:
            del self._entries[turn.entry.id]  # mail for it is rare, and room for those that live is not
        _count(turn.entry.state, turn.state)
        if turn.wake_at is not None and (self.soonest_wake is None or turn.wake_at < self.soonest_wake):
            self.soonest_wake = turn.wake_at
        if turn.state.queued or (turn.state.terminal and turn.entry.facts["waits"]):
            self.queue_moved()

    def _take_back(self, turn: _Turn) -> None:
        """What `turn` leads to was not stored: nobody is to build on it any more."""
        if self._entries.get(turn.entry.id) is not turn.ahead:
            return
        if turn.entry.stored and turn.entry.state.seq:
            self._entries[turn.entry.id] = turn.entry
        else:
            del self._entries[turn.entry.id]

    def _will_tell(self, turns: Sequence[_Turn]) -> None:
        """What these turns led to is published next, for each run in the order of its turns."""
        told = asyncio.get_running_loop().create_future()
        for turn in turns:
            turn.after, turn.told = self._telling.get(turn.entry.id), told
            self._telling[turn.entry.id] = told

    def _have_told(self, turns: Iterable[_Turn]) -> None:
        for turn in turns:
            if turn.told is None:
                continue
            if not turn.told.done():
                turn.told.set_result(None)
            if self._telling.get(turn.entry.id) is turn.told:
                del self._telling[turn.entry.id]

    async def _publish(self, turns: Sequence[_Turn]) -> None:
        """Send out what was committed, and once more what earlier deliveries of the same mail had caused.

        Publishing overlaps as well, but not that of one run: who follows it hears what happened in its order.
        """
        if before := {turn.after for turn in turns if turn.after is not None}:
            await asyncio.wait(before)
        await self._reschedule([turn for turn in turns if not turn.pages and turn.wake_at != turn.entry.wake_at])
        await self._say_again(turns)
        if shown := [one for turn in turns for one in turn.shown]:
            await self._approvals.show(shown)
        if outbox := [message for turn in turns for message in turn.outbox]:
            await self._bus.publish(outbox)

    async def _reschedule(self, turns: Sequence[_Turn]) -> None:
        """Keep new wake-ups of runs to which nothing happened, unless something did meanwhile."""
        if not turns:
            return
        await self._store.reschedule([Wake(turn.entry.id, turn.state.seq, turn.wake_at) for turn in turns])
        for turn in turns:
            known = self._entries.get(turn.entry.id)
            if known is not None and known.state.seq == turn.state.seq:
                known.wake_at = turn.wake_at

    async def _say_again(self, turns: Sequence[_Turn]) -> None:
        """Add to `turns` what mail that was handled before led to then. What was obeyed then is not refused now."""
        repeating = [(turn, mails) for turn in turns if (mails := [mail for mail in turn.repeats if mail.may_repeat])]
        if not repeating:
            return
        telemetry.REPEATS.add(sum(len(mails) for _, mails in repeating))
        loaded = await self._store.load({turn.entry.id for turn, _ in repeating})
        for turn, mails in repeating:
            pages = {page.cause: page for page in loaded[turn.entry.id].pages} if turn.entry.id in loaded else {}
            for mail in mails:
                if (page := pages.get(mail.cause)) is not None:
                    _say_again(turn, page, mail)

    def _remember(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._entries.move_to_end(entry.id)
        while len(self._entries) > self._cached:
            self._entries.popitem(last=False)


def _nobody_cares() -> None:
    """Where nothing is admitted."""


def _is_gone(known: Entry, row: Loaded | None) -> bool:
    """Whether the run that is cached was dropped; its id may have begun another one since."""
    return row is None or row.created_at != known.state.created_at


def _say_again(turn: _Turn, page: Page, mail: Mail) -> None:
    """What `mail` led to when it came first: the events of `page`, and those of its directives that still matter."""
    entry, events = turn.entry, [decode_event(event) for event in page.events]
    if any(event.type == _OBEYED.get(type(mail.message)) for event in events):
        turn.refused.pop(mail.cause, None)
    turn.outbox += told(entry.tenant, entry.id, page, [event.type for event in events], mail.context)
    turn.carry_out(entry.machine.again(turn.state, events), mail.context.caused_by(mail.cause, entry.id), page.at)


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


def _append(turn: _Turn) -> Append:
    before, state = turn.entry, turn.state
    return Append(
        id=before.id,
        tenant=before.tenant,
        expected=before.state.seq,
        pages=tuple(turn.pages),
        status=state.status.value,
        wake_at=turn.wake_at,
        finished_at=state.finished_at,
        facts=before.facts if before.state.seq == 0 else None,
    )
