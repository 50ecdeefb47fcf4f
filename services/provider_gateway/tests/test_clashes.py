"""Transactions that get in each other's way are done again, but not for ever."""

from __future__ import annotations

import asyncpg
import pytest

from paracle_provider_gateway.adapters.clashes import in_turns

DEADLOCK = asyncpg.DeadlockDetectedError("deadlock detected")


class Transaction:
    """Fails with these in turn, then is done."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.times = 0

    async def __call__(self) -> str:
        self.times += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


@pytest.mark.parametrize("clashes", [0, 1, 4])
async def test_it_is_done_again_till_nobody_is_in_its_way(clashes: int):
    work = Transaction(*[DEADLOCK] * clashes)
    assert await in_turns(work) == "done"
    assert work.times == clashes + 1


@pytest.mark.parametrize(
    ("failures", "times"), [([DEADLOCK] * 5, 5), ([ValueError("a bug")], 1)], ids=["clashes", "a bug"]
)
async def test_it_gives_up(failures: list[Exception], times: int):
    work = Transaction(*failures)
    with pytest.raises(type(failures[0])):
        await in_turns(work)
    assert work.times == times
