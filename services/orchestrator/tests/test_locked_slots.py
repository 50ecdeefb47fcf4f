"""Runs that wait for one another's slots in a circle: one of them goes on, and nobody else goes beyond a limit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from begun_runs import begun, put
from hypothesis import given
from hypothesis import strategies as st
from queue_memory import QueueInMemory

from paracle_chassis.event_store import Append, EventStore, PostgresEventStore
from paracle_chassis.postgres import Queries
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_orchestrator.adapters.postgres import RUN_TABLES
from paracle_orchestrator.adapters.queue import PostgresRunQueue
from paracle_orchestrator.admission import Limits, Running, Scope, Waiting, choose, locked_out
from paracle_orchestrator.ports import RunQueue

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C = (("acme", name) for name in "abc")


def waiting(number: int, scope: Scope, *, child: bool = True) -> Waiting:
    return Waiting(f"run_{number:03}", *scope, 0, NOW + timedelta(seconds=number), 1, child)


# ── the choice ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_those_in_a_circle_the_child_that_waits_longest_goes_on() -> None:
    line = [waiting(3, A), waiting(2, B), waiting(1, C), waiting(0, A, child=False)]
    found = locked_out(line, {A: [{B}], B: [{A}], C: [()]})
    assert found == line[1]


def test_where_one_may_end_nobody_goes_beyond_a_limit() -> None:
    line = [waiting(1, A), waiting(2, B)]
    assert locked_out(line, {A: [{B}], B: [{A}, ()]}) is None
    assert locked_out(line, {A: [{B}], B: [{C}]}) is None  # whoever has that slot does not wait for one of these
    assert locked_out(line, {A: [{B}]}) is None
    assert locked_out([waiting(1, A, child=False)], {A: [{A}]}) is None
    assert locked_out([], {}) is None


# ── any trees of runs ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Run:
    """A run: of which workflow, and the children that it starts, and waits for, when it begins."""

    number: int
    workflow: str
    children: list[Run]
    child: bool
    state: str = "absent"

    def tree(self) -> Iterator[Run]:
        yield self
        for one in self.children:
            yield from one.tree()

    def begin(self) -> None:
        self.state = "running"
        for one in self.children:
            one.state = "queued"

    @property
    def may_end(self) -> bool:
        return self.state == "running" and all(one.state == "ended" for one in self.children)


@dataclass
class Simulation:
    """All runs, and most runs of each workflow."""

    roots: list[Run]
    limits: dict[str, int | None]
    beyond: list[int] = field(default_factory=list)

    def all(self, state: str) -> list[Run]:
        return [run for root in self.roots for run in root.tree() if run.state == state]

    def admit(self, *, beyond: bool) -> bool:
        """Give slots away; whether there was anybody to give one to."""
        line = [
            Waiting(
                f"run_{run.number:03}",
                "acme",
                run.workflow,
                0,
                NOW + timedelta(seconds=run.number),
                self.limits[run.workflow],
                run.child,
            )
            for run in self.all("queued")
        ]
        running = Running(Counter(("acme", run.workflow) for run in self.all("running")))
        chosen = choose(line, running, Limits(), 100)
        if not chosen and beyond and (one := locked_out(line, self._holders())) is not None:
            assert one.id not in self._would_begin(), "it goes beyond a limit, and need not"
            chosen = [one]
        for run in self.all("queued"):
            if f"run_{run.number:03}" in {one.id for one in chosen}:
                run.begin()
        return bool(chosen)

    def end(self, chance: random.Random) -> bool:
        """Let a run end; whether there was one that could."""
        ends = [run for run in self.all("running") if run.may_end]
        if ends:
            chance.choice(ends).state = "ended"
        return bool(ends)

    def play(self, chance: random.Random, *, beyond: bool) -> None:
        while self.admit(beyond=beyond) or self.end(chance):
            pass

    def _holders(self) -> dict[Scope, list[set[Scope]]]:
        found: dict[Scope, list[set[Scope]]] = {}
        for run in self.all("running"):
            below = {("acme", one.workflow) for one in run.tree() if one.state == "queued"}
            found.setdefault(("acme", run.workflow), []).append(below)
        return found

    def _would_begin(self) -> set[str]:
        """Those that would come to a slot if all that can end did, and nobody went beyond a limit."""
        other = deepcopy(self)
        before = {run.number for run in other.all("queued")}
        other.play(random.Random(1), beyond=False)
        return {f"run_{number:03}" for number in before - {run.number for run in other.all("queued")}}


SHAPES: st.SearchStrategy[Any] = st.recursive(
    st.tuples(st.sampled_from("abc"), st.just([])),
    lambda inner: st.tuples(st.sampled_from("abc"), st.lists(inner, max_size=2)),
    max_leaves=4,
)


@given(
    st.lists(SHAPES, min_size=1, max_size=5),
    st.fixed_dictionaries({name: st.none() | st.integers(1, 2) for name in "abc"}),
    st.integers(0, 2**32),
)
def test_whatever_runs_start_whatever_others_all_of_them_end(shapes: Any, limits: Any, seed: int) -> None:
    numbers = iter(range(1_000))

    def made(shape: Any, *, child: bool) -> Run:
        workflow, inner = shape
        return Run(next(numbers), workflow, [made(one, child=True) for one in inner], child)

    simulation = Simulation([made(shape, child=False) for shape in shapes], limits)
    for root in simulation.roots:
        root.state = "queued"
    simulation.play(random.Random(seed), beyond=True)
    assert {run.state for root in simulation.roots for run in root.tree()} == {"ended"}


# ── over a store ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def shelf(request: pytest.FixtureRequest) -> tuple[EventStore, RunQueue]:
    if request.param == "memory":
        memory = MemoryEventStore()
        return memory, QueueInMemory(memory)
    pool = request.getfixturevalue("pool")
    return PostgresEventStore(pool, RUN_TABLES), PostgresRunQueue(pool, Queries.load("paracle_orchestrator"))


def below(parent: Append, number: int, workflow: str, status: str = "queued", **facts: Any) -> Append:
    waits: dict[str, Any] = {"max_runs": 1, "waits": True} if status == "queued" else {}
    return begun(number, status=status, workflow=workflow, parent=parent.id, **waits, **facts)


def circle(*, revised: bool = True) -> Sequence[Append]:
    """An old run of `a` whose child, of `b`, is below another one; and one of `b` that has a child of `a`."""
    old = begun(1, workflow="a", max_runs=1)
    between = below(old, 2, "between", "running")
    new = begun(3, workflow="b", max_runs=1)
    first, second = below(between, 4, "b"), below(new, 5, "a")
    return (old, between, new, first, second) if revised else (old, between, new, first)


async def test_one_child_goes_beyond_the_limit_where_nobody_could_go_on(shelf: tuple[EventStore, RunQueue]) -> None:
    store, queue = shelf
    runs = circle()
    for tenant in ("acme", "evil"):  # another tenant's runs of the same names are nobody's business
        await put(store, [begun(9, tenant=tenant, workflow="c", max_runs=1)])
    await put(store, runs)
    assert await queue.claim(Limits(), 9) == 1
    assert await queue.claimed(9) == [(runs[3].id, "acme")]
    assert await queue.claim(Limits(), 9) == 0


async def test_a_limit_holds_where_somebody_goes_on(shelf: tuple[EventStore, RunQueue]) -> None:
    store, queue = shelf
    await put(store, circle(revised=False))
    assert await queue.claim(Limits(), 9) == 0
