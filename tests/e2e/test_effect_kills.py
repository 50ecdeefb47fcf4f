"""`kill -9` of the agent runtime at each boundary of a tool call: no effect twice, what is in doubt is shown, all ends.

A round has twenty runs under way, half of which call a tool that takes the same key again, half one that must never be
called twice; the process dies at the boundary of the call that chance picks. `EFFECT_ROUNDS` and `EFFECT_SEED` choose
how many rounds of each boundary the long suite plays, and which.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Final

import pytest
import yaml
from tests.e2e import faults
from tests.e2e.desk import Desk, desk
from tests.e2e.effects import EffectServer, Moment
from tests.e2e.faults import Case
from tests.e2e.steps import count, tools
from tests.e2e.world import SUMMARY, System, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.faults import Gap
from paracle_domain.audit import GetAudit
from paracle_domain.ids import new_id
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import ForkRun, RunStatus, RunView, StartRun
from paracle_domain.run.orders import task_id_of
from paracle_domain.task.effects import EffectFilter, EffectState, ListEffects

ROUNDS: Final = int(os.environ.get("EFFECT_ROUNDS", "200"))
SEED: Final = os.environ.get("EFFECT_SEED", "lighthouse")
RUNS: Final = 20
KINDS: Final = ("count", "count_once")
RUNTIME: Final = "agent_runtime"


class Boundary(StrEnum):
    """Where in a call the process dies."""

    BEFORE_INTENT = "before-intent"
    AFTER_INTENT = "after-intent"
    ON_THE_WAY = "on-the-way"
    AFTER_SEND = "after-send"
    AFTER_REPLY = "after-reply"
    BEFORE_CONFIRM = "before-confirm"
    AFTER_CONFIRM = "after-confirm"


IN_THE_JOURNAL: Final = {
    Boundary.BEFORE_INTENT: ("effect.intended", Gap.BEFORE_PUBLISH),
    Boundary.AFTER_INTENT: ("effect.intended", Gap.BEFORE_ACK),
    Boundary.BEFORE_CONFIRM: ("effect.confirmed", Gap.BEFORE_PUBLISH),
    Boundary.AFTER_CONFIRM: ("effect.confirmed", Gap.BEFORE_ACK),
}
"""Around the statement that writes this event."""
AT_THE_TOOL: Final = {
    Boundary.ON_THE_WAY: Moment.ARRIVED,
    Boundary.AFTER_SEND: Moment.DONE,
    Boundary.AFTER_REPLY: Moment.ANSWERED,
}
"""When the tool's server has come so far."""


@dataclass(slots=True)
class Tally:
    """What happened in all rounds."""

    rounds: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    doubts: int = 0
    slowest_s: float = 0.0

    def __str__(self) -> str:
        rounds = ", ".join(f"{name} {number}" for name, number in sorted(self.rounds.items()))
        return (
            f"kills at boundaries of tool calls, seed {SEED!r}: {rounds}; {self.calls['effects']} effects of "
            f"{self.calls['calls']} calls, {self.doubts} in doubt and listed; the slowest {self.slowest_s:.0f} s"
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


@pytest.mark.parametrize("boundary", Boundary)
async def test_a_kill_at_any_boundary_repeats_nothing(counting: System, tally: Tally, boundary: Boundary) -> None:
    await play(counting, tally, boundary, 1_000)


@pytest.mark.chaos
@pytest.mark.timeout(200)
@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("boundary", Boundary)
async def test_many_kills_at_every_boundary_repeat_nothing(
    counting: System, tally: Tally, boundary: Boundary, number: int
) -> None:
    await play(counting, tally, boundary, number)


async def play(system: System, tally: Tally, boundary: Boundary, number: int) -> None:
    """One round."""
    chosen, began = random.Random(f"{SEED} {boundary} {number}").randrange(RUNS), time.monotonic()
    name = f"{boundary}-{number}-{time.time_ns()}"
    runs = {f"{name}-{index}": new_id("run") for index in range(RUNS)}
    victim = f"{name}-{chosen}"
    async with desk(system.stack.nats_url) as at, asyncio.timeout(150):
        with killer(system, boundary, victim, runs[victim]) as dead:
            orders = zip(runs.items(), itertools.cycle(KINDS), strict=False)
            await asyncio.gather(*(_start(at, *one, tool) for one, tool in orders))
            await eventually(dead, within_s=60)
        for run, run_id in runs.items():
            await _check(at, system.effects, tally, run, await eventually(partial(_ended, at, run_id), within_s=90))
    tally.rounds[boundary] += 1
    tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)


async def _start(at: Desk, run: str, run_id: str, tool: str) -> None:
    await at.order(StartRun(workflow=f"kill-{tool}", run_id=run_id, input={"run": run}))


async def _ended(at: Desk, run_id: str) -> RunView | None:
    view = await at.get_run(run_id)
    return view if view.run.status.terminal else None


async def _check(at: Desk, world: EffectServer, tally: Tally, name: str, view: RunView | None) -> None:
    """What the world saw of the run is what its end and the ledger say."""
    assert view is not None
    calls = world.calls(name)
    keys = {call.key for call in calls}
    page = await at.ask(ListEffects(filter=EffectFilter(run_id=view.run.run_id)))
    [effect] = page.effects
    assert keys <= {effect.key}, f"the tool was called under several keys: {keys}"
    doubtful = await at.ask(ListEffects(filter=EffectFilter(run_id=view.run.run_id, state=EffectState.IN_DOUBT)))
    if view.run.status is RunStatus.COMPLETED:
        assert (len(keys), effect.state, doubtful.effects) == (1, EffectState.CONFIRMED, ())
    else:
        assert view.run.workflow == "kill-count_once", "only what must not be repeated may be left undone"
        assert view.error is not None
        assert view.error.code == "effect_in_doubt"
        assert doubtful.effects == (effect,)
        tally.doubts += 1
    if view.run.workflow == "kill-count_once":
        assert len(calls) <= 1, "what must not be repeated was repeated"
    tally.calls += Counter(effects=len(keys), calls=len(calls))


type Dead = Callable[[], bool]


@contextmanager
def killer(system: System, boundary: Boundary, run: str, run_id: str) -> Iterator[Dead]:
    """Lets the runtime die when the call of `run` comes to `boundary`; afterwards an ordinary one is there again."""
    if boundary in IN_THE_JOURNAL:
        event, gap = IN_THE_JOURNAL[boundary]
        match = rf"^sql .*insert into task_history.*{task_id_of(run_id, 'one', 1)}.*{re.escape(event)}"
        with faults.killed(system, Case("boundary", match, (), service=RUNTIME), gap) as doomed:
            yield lambda: not doomed.alive
        return
    pid = system.stack.pid(RUNTIME)
    assert pid is not None

    def strike(called: str) -> None:
        if called == run:
            os.kill(pid, signal.SIGKILL)

    with system.effects.watched(AT_THE_TOOL[boundary], strike):
        yield lambda: system.stack.pid(RUNTIME) != pid
    system.stack.start(RUNTIME)


@pytest.mark.parametrize("outcome", ["done", "not-done"])
async def test_a_fork_goes_by_what_somebody_found_out(counting: System, outcome: str) -> None:
    run, run_id = f"{outcome}-{time.time_ns()}", new_id("run")
    async with desk(counting.stack.nats_url) as at:
        with killer(counting, Boundary.AFTER_SEND, run, run_id) as dead:
            await _start(at, run, run_id, "count_once")
            await eventually(dead)
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


async def _audited(at: Desk, key: str) -> list[EventRecord]:
    return [one.event for one in (await at.ask(GetAudit(entity="effect", id=key))).events]


async def _paracle(system: System, *arguments: str) -> str:
    told = await asyncio.to_thread(paracle, *arguments, url=system.url)
    assert told.returncode == 0, told.stderr
    return told.stdout
