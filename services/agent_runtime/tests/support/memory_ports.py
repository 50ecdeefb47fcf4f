"""The runtime's ports in memory, for its tests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from paracle_agent_runtime.pools import WorkerReport
from paracle_agent_runtime.ports import (
    TURNS_TOLD,
    Answer,
    Ending,
    Letter,
    Stalled,
)
from paracle_chassis.event_store import EventStore, Loaded
from paracle_domain.envelope import Context
from paracle_domain.errors import ToolUnavailable
from paracle_domain.ids import new_id
from paracle_domain.inference.ledger import QueryUsage, Spend, UsageTable
from paracle_domain.task.effects import EffectPage, EffectState, EffectView, ListEffects, Resolution
from paracle_domain.task.ledger import Entry
from paracle_domain.task.messages import Task
from paracle_domain.task.past import KeptTurn, Past, Recap, remembered
from paracle_domain.task.sessions import SessionSummary, SessionTurn
from paracle_domain.tool.calls import ToolCall


class MemoryLeases:
    """Leases in a dictionary that several runtimes of a test share."""

    def __init__(self, other: MemoryLeases | None = None) -> None:
        self.worker = new_id("wrk")
        self.live: set[str] = other.live if other else set()
        self.owners: dict[str, str] = other.owners if other else {}
        self.at_work: dict[str, Collection[str]] = other.at_work if other else {}

    async def beat(self, _report: WorkerReport, at_work: Collection[str]) -> None:
        self.live.add(self.worker)
        self.at_work[self.worker] = at_work

    async def elsewhere(self, name: str) -> bool:
        return any(name in self.at_work.get(worker, ()) for worker in self.live - {self.worker})

    async def claim(self, task_id: str) -> bool:
        owner = self.owners.get(task_id)
        if owner not in (None, self.worker) and owner in self.live:
            return False
        self.owners[task_id] = self.worker
        return True

    async def release(self, task_id: str) -> None:
        if self.owners.get(task_id) == self.worker:
            del self.owners[task_id]

    async def leave(self) -> None:
        self.live.discard(self.worker)


class MemoryAttempts:
    """The earlier attempts in a `MemoryEventStore`."""

    def __init__(self, store: EventStore) -> None:
        self._actors: dict[str, Loaded] = getattr(store, "actors", {})

    async def before(self, task: Task, tenant: str) -> Sequence[str]:
        mine = [one for one in self._actors.values() if one.tenant == tenant and one.facts["run_id"] == task.run_id]
        found = [one for one in mine if one.facts["step"] == task.step and one.facts["attempt"] < task.attempt]
        return [one.id for one in sorted(found, key=lambda one: one.facts["attempt"])]


class MemoryEffects:
    """The list of effects in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Entry] = {}

    async def enter(self, entries: Sequence[tuple[str, Entry]]) -> None:
        for tenant, new in entries:
            old = self.rows.get((tenant, new.view.key))
            if old is not None and (old.view.attempt, old.seq) >= (new.view.attempt, new.seq):
                continue
            self.rows[tenant, new.view.key] = new if old is None else replace(new, view=_later(old.view, new))

    async def get(self, tenant: str, key: str) -> EffectView | None:
        found = self.rows.get((tenant, key))
        return None if found is None else found.view

    async def page(self, query: ListEffects, tenant: str) -> EffectPage:
        wanted = query.filter
        found = [
            view
            for view in self._of(tenant)
            if wanted.state in (None, view.state)
            and wanted.tool in (None, view.tool)
            and wanted.run_id in (None, view.run_id)
            and (wanted.since is None or view.intended_at >= wanted.since)
            and (wanted.until is None or view.intended_at < wanted.until)
        ]
        found.sort(key=lambda view: (view.intended_at, view.key), reverse=True)
        start = int(query.cursor or 0)
        more = len(found) > start + query.limit
        next_cursor = str(start + query.limit) if more else None
        return EffectPage(effects=tuple(found[start : start + query.limit]), next_cursor=next_cursor)

    async def resolve(self, tenant: str, key: str, resolution: Resolution) -> bool:
        found = self.rows.get((tenant, key))
        if found is None or found.view.state is not EffectState.IN_DOUBT:
            return False
        if found.view.probe is not None and found.view.probe.open:
            return False
        changes = {"state": EffectState.RESOLVED, "resolution": resolution, "changed_at": resolution.at}
        view = found.view.model_copy(update={**changes, "resolved": found.view.resolved + 1})
        self.rows[tenant, key] = replace(found, view=view)
        return True

    async def resolutions(self, tenant: str, keys: Collection[str]) -> dict[str, Resolution]:
        found = [view for view in self._of(tenant) if view.key in keys and view.state is EffectState.RESOLVED]
        return {view.key: view.resolution for view in found if view.resolution is not None}

    async def doubtful(self, tenant: str, run_id: str, step: str) -> list[EffectView]:
        states = {EffectState.IN_DOUBT, EffectState.RESOLVED}
        return [v for v in self._of(tenant) if v.run_id == run_id and v.step == step and v.state in states]

    def _of(self, tenant: str) -> list[EffectView]:
        return [entry.view for (owner, _), entry in self.rows.items() if owner == tenant]


def _later(old: EffectView, new: Entry) -> EffectView:
    kept = None if new.sent else old.resolution
    believed = new.view.state is EffectState.IN_DOUBT and kept is not None
    return new.view.model_copy(
        update={
            "state": EffectState.RESOLVED if believed else new.view.state,
            "resolution": kept,
            "resolved": old.resolved,
            "intended_at": old.intended_at,
        }
    )


class NoWorkers:
    """Nobody answers calls of tools."""

    async def ask(self, call: ToolCall, body: bytes) -> Answer:
        raise ToolUnavailable(f"no worker answers {call.subject}")


class NoUsage:
    """A ledger in which nothing is."""

    async def table(self, request: QueryUsage, context: Context) -> UsageTable:
        assert request.run_id is not None
        assert context.tenant
        return UsageTable(rows=(), total=Spend())


class MemorySessionBook:
    """Sessions in a dictionary that several runtimes of a test share, beside the tasks of a `MemoryEventStore`."""

    def __init__(self, store: EventStore | None = None) -> None:
        self._actors: dict[str, Loaded] = getattr(store, "actors", {})
        self.turns: dict[tuple[str, str], list[str]] = {}
        self.runs: set[tuple[str, str, str]] = set()
        self.ended: dict[str, Ending] = {}
        self.recaps: dict[str, Recap] = {}
        self.aside: dict[str, tuple[str, Letter, int | str]] = {}
        self.calls: set[str] = set()

    async def number(self, task_id: str) -> int | None:
        found = [turns.index(task_id) + 1 for turns in self.turns.values() if task_id in turns]
        return found[0] if found else None

    async def enter(self, tenant: str, session: str, task: Task) -> int:
        turns = self.turns.setdefault((tenant, session), [])
        self.runs.add((tenant, session, task.run_id))
        if task.task_id not in turns:
            turns.append(task.task_id)
        return turns.index(task.task_id) + 1

    async def lacks(self, tenant: str, session: str, run_ids: Sequence[str]) -> str | None:
        ended = {one.facts["run_id"] for one in self._actors.values() if one.tenant == tenant and one.finished_at}
        absent = [one for one in run_ids if (tenant, session, one) not in self.runs]
        lacking = [*absent[: len(absent) == TURNS_TOLD], *(one for one in absent if one not in ended)]
        return lacking[-1] if lacking else None

    async def waits(self, tenant: str, session: str, turn: int) -> bool:
        before = self.turns[tenant, session][: turn - 1]
        stopped = {"failed", "cancelled", "timed_out"}
        open_turns = [task_id for task_id in before if task_id not in self.ended]
        return any(task_id not in self._actors or self._actors[task_id].status not in stopped for task_id in open_turns)

    async def set_aside(self, session: str, letter: Letter, waits_for: int | str) -> None:
        actor = self._actors.get(letter.task.task_id)
        if actor is not None and actor.finished_at:
            return
        if isinstance(waits_for, int):
            letter = replace(letter, turn=waits_for)
        self.aside[letter.task.task_id] = (session, letter, waits_for)
        self.calls.discard(letter.task.task_id)

    async def release(self, tenant: str, task_id: str, run_id: str) -> Sequence[Letter]:
        own = self.aside.get(task_id)
        if own is not None and (own[1].turn is None or task_id in self.ended or task_id in self._actors):
            del self.aside[task_id]
        mine = [one for one in self.aside.values() if one[1].tenant == tenant and one[1].task.task_id != task_id]
        lines = [line for line, turns in self.turns.items() if task_id in turns]
        numbered = sorted(
            (letter.turn, session, letter)
            for session, letter, _ in mine
            if letter.turn is not None and (tenant, session) in lines and letter.task.task_id not in self._actors
        )
        free = [one[2] for one in numbered[:1] if not await self.waits(tenant, one[1], one[0])]
        free += [letter for _, letter, waits_for in mine if waits_for == run_id]
        self.calls |= {letter.task.task_id for letter in free}
        return free

    async def stalled(self, limit: int) -> Sequence[Stalled]:
        runs = {letter.task.run_id for _, letter, _ in self.aside.values()}
        waiting = [one for task_id, one in self.aside.items() if task_id not in self.calls]
        found = [(session, after, letter) for session, letter, after in waiting if isinstance(after, str)]
        return [Stalled(*one) for one in found if one[1] not in runs][:limit]

    async def called(self, task_id: str) -> None:
        self.calls.add(task_id)

    async def past(self, tenant: str, session: str, turn: int) -> Past:
        before = self.turns[tenant, session][: turn - 1]
        kept = [
            KeptTurn(number, self.ended[task_id].messages, self.ended[task_id].tokens)
            for number, task_id in enumerate(before, start=1)
            if task_id in self.ended
        ]
        recaps = [self.recaps[task_id] for task_id in before if task_id in self.recaps]
        return remembered(turn, kept, recaps[-1] if recaps else None)

    async def sum_up(self, tenant: str, task_id: str, recap: Recap) -> None:
        actor = self._actors.get(task_id)
        if (
            self._known(tenant, task_id)
            and task_id not in self.ended
            and actor is not None
            and actor.status == "running"
        ):
            self.recaps[task_id] = recap

    async def end(self, tenant: str, task_id: str, ending: Ending) -> None:
        if self._known(tenant, task_id) and task_id not in self.ended:
            self.ended[task_id] = ending
            if ending.recap is not None:
                self.recaps[task_id] = ending.recap

    def _known(self, tenant: str, task_id: str) -> bool:
        return any(task_id in turns for (owner, _), turns in self.turns.items() if owner == tenant)


class NoShelf:
    """Nothing is dropped: that is the adapter's, tested on PostgreSQL."""

    async def drop(self, tenant: str, run_ids: Sequence[str]) -> int:
        raise AssertionError(f"nothing of {tenant} is to be dropped: {run_ids}")


class NoSessionShelf:
    """No sessions to look at: that is the adapter's, tested on PostgreSQL."""

    async def list(self, tenant: str, cursor: str | None, limit: int) -> Sequence[SessionSummary]:
        raise AssertionError((tenant, cursor, limit))

    async def get(self, tenant: str, session: str) -> SessionSummary | None:
        raise AssertionError((tenant, session))

    async def recap(self, tenant: str, session: str) -> Recap | None:
        raise AssertionError((tenant, session))

    async def turns(self, tenant: str, session: str, after: int, limit: int) -> Sequence[SessionTurn]:
        raise AssertionError((tenant, session, after, limit))

    async def delete(self, tenant: str, session: str) -> bool:
        raise AssertionError((tenant, session))
