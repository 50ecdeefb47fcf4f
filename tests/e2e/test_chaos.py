"""Rounds of `kill -9` of whatever chance picks, with hundreds of runs of every shape in flight.

`CHAOS_ROUNDS`, `CHAOS_RUNS` and `CHAOS_SEED` choose how many rounds, of how many runs, and which. A failure says how
its round is run again alone (`CHAOS_ONLY`).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from tests.e2e.fleet import fleet
from tests.e2e.world import SUMMARY, System

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "60"))
RUNS = int(os.environ.get("CHAOS_RUNS", "300"))
SEED = os.environ.get("CHAOS_SEED", "harbour")
ONLY = os.environ.get("CHAOS_ONLY")
VICTIMS = ("orchestrator", "agent_runtime", "nats", "postgres", "provider_gateway")
REPLICATED = {"orchestrator": 2, "agent_runtime": 2}
STEPS_PER_RUN = 3
LONGEST_S = 120.0


@dataclass(slots=True)
class Tally:
    """What happened in all rounds."""

    runs: int = 0
    in_flight: list[int] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        rounds, slowest = len(self.seconds), max(self.seconds, default=0)
        kills = ", ".join(f"{name} {number}" for name, number in sorted(self.kills.items()))
        flying = sum(self.in_flight) / max(1, len(self.in_flight))
        return (
            f"{rounds} rounds of seed {SEED!r}, {self.runs} runs, {flying:.0f} in flight at a kill, "
            f"{sum(self.seconds):.0f} s, the slowest {slowest:.0f} s; kills: {kills}"
        )


@pytest.fixture(scope="module")
def tally(pytestconfig: pytest.Config) -> Tally:
    """The figures, told at the end."""
    found = Tally()
    pytestconfig.stash[SUMMARY].append(found)
    return found


@pytest.fixture
def replicated(session_system: System) -> System:
    """The stack with two orchestrators and two agent runtimes."""
    session_system.scale(**REPLICATED)
    return session_system


def rounds(number: int) -> list[int]:
    return [int(ONLY)] if ONLY else list(range(number))


@pytest.mark.chaos
@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", rounds(ROUNDS))
async def test_nothing_is_lost_whatever_is_killed(replicated: System, tally: Tally, number: int) -> None:
    await play(replicated, tally, number, RUNS)


@pytest.mark.parametrize("number", range(1000, 1003))
async def test_nothing_is_lost_in_a_few_short_rounds(replicated: System, tally: Tally, number: int) -> None:
    await play(replicated, tally, number, 60)


async def play(system: System, tally: Tally, number: int, runs: int) -> None:
    """One round."""
    chance = random.Random(f"{SEED} {number}")
    victim, moment = chance.choice(VICTIMS), chance.randrange(runs * STEPS_PER_RUN)
    if victim in REPLICATED:
        victim = chance.choice([victim, f"{victim}-2"])
    began = time.monotonic()
    try:
        async with fleet(system, f"{SEED}-{number}-{int(time.time())}") as load:
            async with load.starting(runs, chance):
                await load.progress(moment)
                tally.in_flight.append(len(await load.live()))
                await strike(system, victim, chance.random())
            await load.ended(LONGEST_S)
            await load.check()
    except BaseException as error:
        again = f"CHAOS_SEED={SEED} CHAOS_RUNS={runs} CHAOS_ONLY={number} make chaos args='-k whatever_is_killed'"
        error.add_note(f"round {number}: {victim} was killed after {moment} steps; again: {again}")
        raise
    tally.runs += runs
    tally.kills[victim] += 1
    tally.seconds.append(time.monotonic() - began)


async def strike(system: System, victim: str, pause_s: float) -> None:
    """`kill -9`, and start it again a moment later."""
    before = system.stack.pid(victim)
    await asyncio.to_thread(system.stack.kill, victim)
    await asyncio.sleep(pause_s)
    await asyncio.to_thread(system.stack.start, victim)
    assert before not in {None, system.stack.pid(victim)}
