"""Background loops: they outlive what happens to a round, can be woken, and say when they are late."""

from __future__ import annotations

import asyncio
import logging

import pytest

from paracle_chassis.background import Background
from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import Unavailable


async def test_rounds_follow_each_other_until_the_end() -> None:
    rounds: list[int] = []

    async def work() -> None:
        rounds.append(len(rounds))

    async with Background("work", work, every_s=0.001):
        await eventually(lambda: len(rounds) >= 3)
    seen = len(rounds)
    await asyncio.sleep(0)
    assert len(rounds) == seen


async def test_a_round_says_when_the_next_one_is() -> None:
    rounds: list[int] = []

    async def work() -> float:
        rounds.append(1)
        return 0 if len(rounds) < 5 else 3600

    async with Background("work", work, every_s=3600):
        await eventually(lambda: len(rounds) == 5)


async def test_a_wish_that_comes_during_a_round_is_not_lost() -> None:
    rounds: list[int] = []

    async def work() -> None:
        rounds.append(1)
        if len(rounds) < 3:
            loop.wake()

    loop = Background("work", work, every_s=3600)
    async with loop:
        await eventually(lambda: len(rounds) == 3)
        loop.wake()
        await eventually(lambda: len(rounds) == 4)


@pytest.mark.parametrize(("error", "level"), [(Unavailable("NATS is away"), "WARNING"), (KeyError("bug"), "ERROR")])
async def test_neither_an_outage_nor_a_bug_ends_it(
    error: Exception, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    rounds: list[int] = []

    async def work() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise error

    with caplog.at_level(logging.WARNING):
        async with Background("work", work, every_s=0.001):
            await eventually(lambda: len(rounds) > 2)
    assert [record.levelname for record in caplog.records] == [level]


@pytest.mark.parametrize(
    ("every_s", "pauses"),
    [
        (0.1, [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]),
        (10.0, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]),
        (3600.0, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
    ],
)
def test_what_fails_is_repeated_soon_however_seldom_it_is_done(every_s: float, pauses: list[float]) -> None:
    async def work() -> None:
        return None

    found = Background("work", work, every_s=every_s)._pauses()
    assert [next(found) for _ in pauses] == pauses


async def test_a_round_that_failed_is_repeated_before_the_next_one_is_due() -> None:
    rounds: list[int] = []

    async def work() -> None:
        rounds.append(1)
        if len(rounds) < 3:
            raise Unavailable("PostgreSQL is away")

    async with Background("work", work, every_s=3600):
        await eventually(lambda: len(rounds) == 3)


async def test_it_is_late_when_rounds_fail_or_hang() -> None:
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    async def overdue(loop: Background) -> bool:
        try:
            await loop.check()
        except Unavailable as late:
            return "sweep" in str(late)
        return False

    async with Background("sweep", hang, every_s=1, late_s=0.01) as loop:
        await started.wait()
        await eventually(lambda: overdue(loop))
    async with Background("sweep", hang, every_s=1, late_s=3600) as loop:
        await loop.check()
