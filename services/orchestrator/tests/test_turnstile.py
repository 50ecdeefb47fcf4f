"""Who holds what, and in which order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from paracle_orchestrator.turnstile import Turnstile


class Crowd:
    """Those who come to a turnstile, and what they did."""

    def __init__(self) -> None:
        self.gate = Turnstile()
        self.inside: dict[str, int] = {}
        self.passed: dict[str, list[int]] = {}

    async def pass_through(self, number: int, names: Iterable[str], turns: int) -> None:
        async with self.gate.hold(set(names)):
            for name in names:
                assert self.inside.setdefault(name, number) == number
                self.passed.setdefault(name, []).append(number)
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                for name in names:
                    del self.inside[name]


@pytest.mark.parametrize("seed", range(20))
async def test_each_name_is_held_by_one_at_a_time_in_order_and_nobody_waits_for_ever(seed: int) -> None:
    chance, crowd = random.Random(seed), Crowd()
    tasks = []
    for number in range(60):
        names = chance.sample("abcdefgh", chance.randint(0, 4))
        tasks.append(asyncio.create_task(crowd.pass_through(number, names, chance.randrange(5))))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            chance.choice(tasks).cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
    assert all(numbers == sorted(numbers) for numbers in crowd.passed.values())
    async with crowd.gate.hold("abcdefgh"):
        pass


async def test_whoever_waits_for_one_that_was_cancelled_waits_for_those_before_it() -> None:
    gate, leave = Turnstile(), asyncio.Event()
    held: list[str] = []

    async def hold(who: str, names: str) -> None:
        async with gate.hold(names):
            held.append(who)
            await leave.wait()

    first = asyncio.create_task(hold("first", "a"))
    await asyncio.sleep(0)
    second = asyncio.create_task(hold("second", "ab"))
    await asyncio.sleep(0)
    third = asyncio.create_task(hold("third", "b"))
    other = asyncio.create_task(hold("other", "c"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await asyncio.sleep(0)
    assert held == ["first", "other"]
    leave.set()
    await asyncio.gather(first, third, other)
    assert held == ["first", "other", "third"]
