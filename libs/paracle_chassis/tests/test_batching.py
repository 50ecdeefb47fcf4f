"""Batches: they take what has gathered, and tell everyone of an item what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from paracle_chassis.batching import Batches
from paracle_chassis.testing.eventually import eventually


class Doubling:
    """Work that waits until it may go on, and cannot do thirteen."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.seen.append(list(items))
        await self.gate.wait()
        if 13 in items:
            raise ValueError("unlucky")
        return [item * 2 for item in items]


async def test_batches_take_what_has_gathered_and_pass_errors_on():
    work = Doubling()
    batches = Batches(work, most=3)
    assert await asyncio.gather(*(batches(n) for n in range(5))) == [0, 2, 4, 6, 8]
    assert work.seen == [[0, 1, 2], [3, 4]]
    found = await asyncio.gather(batches(13), batches(1), return_exceptions=True)
    assert [str(one) for one in found] == ["unlucky", "unlucky"]
    assert await batches(7) == 14


async def test_one_that_cannot_be_done_is_nobody_elses_trouble_where_that_is_wished():
    work = Doubling()
    batches = Batches(work, alone=lambda error: isinstance(error, ValueError))
    first, unlucky, last = await asyncio.gather(*(batches(n) for n in (1, 13, 2)), return_exceptions=True)
    assert (first, last, str(unlucky)) == (2, 4, "unlucky")
    assert work.seen == [[1, 13, 2], [1], [13], [2]]


@pytest.mark.parametrize("told", [True, False])
async def test_what_nobody_waits_for_any_more_is_told_if_anybody_listens(told: bool):
    work, left = Doubling(), list[tuple[int, object]]()
    batches = Batches(work, abandoned=(lambda item, result: left.append((item, str(result)))) if told else None)

    def begun(item: int) -> bool:
        return work.seen[-1:] == [[item]]

    for item in (4, 13):
        work.gate.clear()
        gone = asyncio.create_task(batches(item))
        await eventually(partial(begun, item))
        gone.cancel()
        await asyncio.wait((gone,))
        work.gate.set()
        assert await batches(1) == 2
    assert left == ([(4, "8"), (13, "unlucky")] if told else [])
