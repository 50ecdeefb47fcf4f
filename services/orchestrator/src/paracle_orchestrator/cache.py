"""Runs in hand: a bounded cache of states over the event store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from paracle_chassis import outages
from paracle_chassis.event_store import EventStore, Loaded
from paracle_domain.run.events import decode_event
from paracle_domain.run.folding import evolve
from paracle_orchestrator.mail import Entry
from paracle_orchestrator.plans import Plans


class RunCache:
    """Entries of the runs that had mail lately, `most` of them. All of them have been stored so."""

    def __init__(self, store: EventStore, plans: Plans, *, most: int) -> None:
        self._store = store
        self._plans = plans
        self._most = most
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def get(self, run_id: str) -> Entry | None:
        return self._entries.get(run_id)

    def keep(self, entry: Entry) -> None:
        """Keep `entry`, unless a newer one is known."""
        cached = self._entries.get(entry.id)
        if cached is not None and cached.state.seq > entry.state.seq:
            return
        self._entries[entry.id] = entry
        self._entries.move_to_end(entry.id)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def drop(self, run_id: str) -> None:
        """Let go of a run."""
        self._entries.pop(run_id, None)

    async def load(self, run_ids: Iterable[str], broken: dict[str, Exception]) -> dict[str, Entry]:
        """Entries as they are stored, read on from what is cached; those that cannot be read are `broken`."""
        ids = list(run_ids)
        known = {run_id: entry for run_id in ids if (entry := self._entries.get(run_id)) is not None}
        loaded = await self._store.load(ids, {run_id: entry.state.seq for run_id, entry in known.items()})
        if dropped := [name for name, entry in known.items() if _is_gone(entry, loaded.get(name))]:
            for name in dropped:
                del known[name]
                self.drop(name)
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
        self.keep(entry)
        return entry


def _is_gone(known: Entry, row: Loaded | None) -> bool:
    """Whether the run that is cached was dropped; its id may have begun another one since."""
    return row is None or row.created_at != known.state.created_at
