"""`kill -9` of the agent runtime at each boundary of a tool call: no effect twice, what is in doubt is shown, all ends.

A round has twenty-one runs under way: they call a tool that takes the same key again, one that must never be called
twice, or one of that kind whose probe can tell what became of a call. The process dies at the boundary of the call that
chance picks. The next round's process takes up what it left, while runs of its own come in, and may die before it is
done with either. `EFFECT_ROUNDS` says how many rounds of each boundary the long suite plays, `EFFECT_FIRST` and
`EFFECT_SEED` which.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import nats
import pytest
import yaml
from nats.aio.msg import Msg
from tests.e2e.desk import Desk, desk
from tests.e2e.effects import EffectCall, EffectServer
from tests.e2e.killing import Boundary, Succession
from tests.e2e.steps import count, tools
from tests.e2e.world import SUMMARY, System, paracle

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_domain.audit import GetAudit
from paracle_domain.ids import new_id
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import ForkRun, RunStatus, RunView, StartRun, StepStatus
from paracle_domain.task.effects import EffectFilter, EffectState, EffectView, ListEffects

ROUNDS: Final = int(os.environ.get("EFFECT_ROUNDS", "200"))
FIRST: Final = int(os.environ.get("EFFECT_FIRST", "0"))
SEED: Final = os.environ.get("EFFECT_SEED", "lighthouse")
RUNS: Final = 21
KINDS: Final = ("count", "count_once", "count_probed")
_ENDS: Final = frozenset({"run.completed", "run.failed"})
_TO_DIE_S: Final = 60
_TO_END_S: Final = 180


@dataclass(slots=True)
class Tally:
    """What happened in all rounds."""

    rounds: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    doubts: int = 0
    probed: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, seen: Seen) -> None:
        self.doubts += len(seen.in_doubt)
        self.probed += sum(effect.probe is not None for effect in seen.effects)
        self.calls += Counter(runs=1, effects=len(seen.keys), calls=len(seen.calls))

    def __str__(self) -> str:
        rounds = ", ".join(f"{name} {number}" for name, number in sorted(self.rounds.items()))
        return (
            f"kills at boundaries of tool calls, seed {SEED!r}, rounds from {FIRST} on: {rounds}; "
            f"{self.calls['runs']} runs, {self.probed} calls probed, {self.calls['effects']} effects "
            f"of {self.calls['calls']} calls, {self.doubts} in doubt and listed; "
            f"{(time.monotonic() - self.began) / max(1, self.rounds.total()):.1f} s a round"
        )


@pytest.fixture(scope="module")
def tally(pytestconfig: pytest.Config) -> Tally:
    """The figures, told at the end."""
    found = Tally()
    pytestconfig.stash[SUMMARY].append(found)
    return found


@pytest.fixture(scope="module")
def counting(session_system: System) -> System:
    """The stack, with a workflow for each kind of tool."""
    session_system.scale()
    flows = [
        {"kind": "Workflow", "metadata": {"name": f"kill-{tool}"}, "spec": {"steps": [count("one", tool=tool)]}}
        for tool in KINDS
    ]
    documents = [*tools(session_system.effects.port), *flows]
    session_system.apply(yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in documents]))
    return session_system


@pytest.mark.timeout(300)
async def test_a_kill_at_any_boundary_repeats_nothing(counting: System, tally: Tally) -> None:
    seen = await play(counting, tally, [Round(boundary, 1_000) for boundary in Boundary])
    assert [fault for one in seen for fault in one.faults()] == []


@pytest.mark.chaos
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("boundary", Boundary)
async def test_many_kills_at_every_boundary_repeat_nothing(counting: System, tally: Tally, boundary: Boundary) -> None:
    seen = await play(counting, tally, [Round(boundary, number) for number in range(FIRST, FIRST + ROUNDS)])
    assert [fault for one in seen for fault in one.faults()] == []


class Round:
    """Runs under way at once: their ids, by the names that the tool's server knows them by."""

    def __init__(self, boundary: Boundary, number: int) -> None:
        self.boundary = boundary
        self.name = f"{boundary}-{number}-{time.time_ns()}"
        self.runs = {f"{self.name}-{index}": new_id("run") for index in range(RUNS)}
        chance = random.Random(f"{SEED} {boundary} {number}")
        self.victim = f"{self.name}-{chance.randrange(RUNS)}"


class Ends:
    """Which runs have ended, as their events say."""

    def __init__(self) -> None:
        self._of: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def saw(self, message: Msg) -> None:
        told = EventRecord.model_validate_json(message.data).each()
        for event in told:
            if event.type in _ENDS:
                self._of[event.id].set()

    async def of(self, run_id: str) -> None:
        await self._of[run_id].wait()


@asynccontextmanager
async def ends(system: System) -> AsyncIterator[Ends]:
    """From here on."""
    watcher, found = await nats.connect(system.stack.nats_url), Ends()
    try:
        await watcher.subscribe("paracle.v1.default.evt.run.*.*", cb=found.saw)
        await flushed(watcher)
        yield found
    finally:
        await watcher.close()


@dataclass(frozen=True)
class Seen:
    """How a run ended, what the world saw of its tool, and what the ledger says of it, in all and in doubt."""

    name: str
    view: RunView
    calls: Sequence[EffectCall]
    effects: Sequence[EffectView]
    in_doubt: Sequence[EffectView]

    @property
    def keys(self) -> set[str | None]:
        return {call.key for call in self.calls}

    def faults(self) -> Iterator[str]:
        """What does not fit together, or must not be."""
        workflow, error = self.view.run.workflow, self.view.error
        if not self.keys <= {effect.key for effect in self.effects} or len(self.effects) != 1:
            yield f"{self.name}: it was called under {self.keys}, and the ledger has {self.effects}"
        elif self.view.run.status is RunStatus.COMPLETED:
            if (len(self.keys), self.effects[0].state) != (1, EffectState.CONFIRMED):
                yield f"{self.name}: completed with {self.effects} after calls under {self.keys}"
        elif workflow != "kill-count_once":
            yield f"{self.name}: only what nobody can know may be left undone, but {workflow} is {self.view.run.status}"
        elif error is None or error.code != "effect_in_doubt" or self.in_doubt != self.effects:
            yield f"{self.name}: failed with {error}, and in doubt is {self.in_doubt}"
        if workflow != "kill-count" and len(self.calls) > 1:
            yield f"{self.name}: what must not be repeated was called {len(self.calls)} times"


async def play(system: System, tally: Tally, rounds: Sequence[Round]) -> list[Seen]:
    """Round after round; what was seen of all runs once they have ended."""
    seen: list[Seen] = []
    async with desk(system.stack.nats_url) as at, ends(system) as ended:
        async with Succession.of(system) as runtimes:
            for one in rounds:
                async with runtimes.doomed(one.boundary, one.victim, one.runs[one.victim]) as dead:
                    orders = zip(one.runs.items(), itertools.cycle(KINDS), strict=False)
                    await asyncio.gather(*(_start(at, *order, tool) for order, tool in orders))
                    await eventually(dead, within_s=_TO_DIE_S)
        for one in rounds:
            async with asyncio.timeout(_TO_END_S):
                await asyncio.gather(*(ended.of(run_id) for run_id in one.runs.values()))
            seen += await asyncio.gather(*(_look(at, system.effects, *run) for run in one.runs.items()))
            tally.rounds[one.boundary] += 1
    for each in seen:
        tally.add(each)
    return seen


async def _start(at: Desk, run: str, run_id: str, tool: str) -> None:
    await at.order(StartRun(workflow=f"kill-{tool}", run_id=run_id, input={"run": run}))


async def _look(at: Desk, world: EffectServer, name: str, run_id: str) -> Seen:
    listed = [
        (await at.ask(ListEffects(filter=EffectFilter(run_id=run_id, state=state)))).effects
        for state in (None, EffectState.IN_DOUBT)
    ]
    return Seen(name, await at.get_run(run_id), world.calls(name), *listed)


async def _ended(at: Desk, run_id: str) -> RunView | None:
    view = await at.get_run(run_id)
    return view if view.run.status.terminal else None


@pytest.mark.parametrize("outcome", ["done", "not-done"])
async def test_a_fork_goes_by_what_somebody_found_out(counting: System, outcome: str) -> None:
    run, run_id = f"{outcome}-{time.time_ns()}", new_id("run")
    async with desk(counting.stack.nats_url) as at:
        async with Succession.of(counting) as runtimes, runtimes.doomed(Boundary.AFTER_SEND, run, run_id) as dead:
            await _start(at, run, run_id, "count_once")
            await eventually(dead, within_s=_TO_DIE_S)
        await eventually(partial(_ended, at, run_id), within_s=90)
        [key] = {call.key for call in counting.effects.calls(run)}
        listed = await _paracle(counting, "effects", "ls", "--in-doubt", "--run", run_id)
        assert key is not None
        assert key in listed
        value = ["--value", '{"done": "says ann"}'] if outcome == "done" else []
        told = await _paracle(
            counting, "effects", "resolve", key, f"--{outcome}", *value, "--reason", "counted by hand"
        )
        assert "counted by hand" in told
        assert await _paracle(counting, "effects", "ls", "--in-doubt", "--run", run_id) == "no effects\n"
        [audited] = await eventually(partial(_audited, at, key))
        assert (audited.type, audited.data["reason"]) == ("effect.resolved", "counted by hand")
        fork = await at.order(ForkRun(run_id=run_id, from_step="one"))
        view = await eventually(partial(_ended, at, str(fork["run_id"])), within_s=60)
    assert view is not None
    assert view.run.status is RunStatus.COMPLETED
    [step] = view.steps
    assert step.output == {"done": "says ann" if outcome == "done" else "one"}
    assert len(counting.effects.calls(run)) == (1 if outcome == "done" else 2)


@pytest.mark.parametrize("boundary", [Boundary.AFTER_INTENT, Boundary.AFTER_SEND])
async def test_a_probe_finds_out_whether_the_tool_has_to_be_called(counting: System, boundary: Boundary) -> None:
    run, run_id = f"probed-{boundary}-{time.time_ns()}", new_id("run")
    async with desk(counting.stack.nats_url) as at:
        async with Succession.of(counting) as runtimes, runtimes.doomed(boundary, run, run_id) as dead:
            await _start(at, run, run_id, "count_probed")
            await eventually(dead, within_s=_TO_DIE_S)
        called_before = len(counting.effects.calls(run))
        view = await eventually(partial(_ended, at, run_id), within_s=_TO_END_S)
        [step] = view.steps if view else ()
        assert (step.status, step.output) == (StepStatus.COMPLETED, {"done": "one"})
        [effect] = (await at.ask(ListEffects(filter=EffectFilter(run_id=run_id)))).effects
        [call] = counting.effects.calls(run)
    shown = await _paracle(counting, "effects", "show", effect.key)
    assert (called_before, call.key) == (1 if boundary is Boundary.AFTER_SEND else 0, effect.key)
    found = "done" if boundary is Boundary.AFTER_SEND else "not_done"
    assert f"probe     look_up: {found}" in shown


async def _audited(at: Desk, key: str) -> list[EventRecord]:
    return [one.event for one in (await at.ask(GetAudit(entity="effect", id=key))).events]


async def _paracle(system: System, *arguments: str) -> str:
    told = await asyncio.to_thread(paracle, *arguments, url=system.url)
    assert told.returncode == 0, told.stderr
    return told.stdout
