"""Answers are looked up in batches and kept behind; whoever is away costs an answer, and no call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from answers_memory import MemoryAnswers

from paracle_chassis.testing.eventually import eventually
from paracle_provider_gateway.answer_shelf import AnswerShelf
from paracle_provider_gateway.answers import AnswerKey, AnswerMemory, KeptAnswer


class Slow(MemoryAnswers):
    """A store that waits until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.batches: list[int] = []
        self.clearing = 0

    async def find(self, keys: Sequence[AnswerKey]) -> Sequence[KeptAnswer | None]:
        found = await super().find(keys)
        await self.gate.wait()
        return found

    async def keep(self, answers: Sequence[tuple[AnswerKey, KeptAnswer]]) -> None:
        self.batches.append(len(answers))
        await self.gate.wait()
        await super().keep(answers)

    async def clear(self, tenant: str) -> int:
        self.clearing += 1
        await self.gate.wait()
        return await super().clear(tenant)


class Bench:
    """A shelf, and how often it missed its store."""

    def __init__(self, store: MemoryAnswers, memory: int = 1_000_000, largest: int = 1_000) -> None:
        self.store = store
        self.missed = 0
        self.shelf = AnswerShelf(store, AnswerMemory(memory), largest=largest, clock=time.monotonic, missed=self._note)

    def keep(self, key: AnswerKey, answer: KeptAnswer) -> None:
        self.shelf.keep(key, answer, self.shelf.era(key.tenant))

    def _note(self) -> None:
        self.missed += 1


def key(number: int, tenant: str = "acme") -> AnswerKey:
    return AnswerKey(tenant, number.to_bytes(4))


def made(body: bytes = b"{}") -> KeptAnswer:
    now = time.monotonic()
    return KeptAnswer(body, now, now + 100)


LONG_AGO = float("-inf")


async def test_look_ups_that_come_together_go_together():
    bench = Bench(store := Slow())
    store.kept[key(3)] = answer = made()
    looking = [asyncio.create_task(bench.shelf.find(key(0), LONG_AGO))]
    await eventually(lambda: store.looked_up == [1])
    looking += [asyncio.create_task(bench.shelf.find(key(number), LONG_AGO)) for number in range(1, 10)]
    store.gate.set()
    found = await asyncio.gather(*looking)
    assert store.looked_up == [1, 9]
    assert found == [None, None, None, answer, *[None] * 6]
    assert await bench.shelf.find(key(3), LONG_AGO) is answer
    assert store.looked_up == [1, 9], "it is in memory now"


async def test_answers_are_kept_behind_in_batches():
    bench = Bench(store := Slow())
    async with bench.shelf:
        for number in range(5):
            bench.keep(key(number), made())
        await eventually(lambda: store.batches == [5])
        for number in range(3):
            bench.keep(key(number), made())
        store.gate.set()
    assert store.batches == [5, 3]
    assert len(store.kept) == 5


async def test_what_is_too_large_or_too_much_is_not_kept():
    bench = Bench(store := Slow(), largest=3)
    bench.keep(key(0), made(b"four"))
    for number in range(1, 2_000):
        bench.keep(key(number), made())
    await eventually(lambda: store.batches)
    store.gate.set()
    await eventually(lambda: sum(store.batches) == len(store.kept))
    assert 1_000 < len(store.kept) < 1_100
    assert key(0) not in store.kept


@pytest.mark.parametrize("failure", [ConnectionError("away"), ValueError("broken")])
async def test_a_store_that_fails_is_told_of_and_costs_nobody_more(failure: Exception):
    bench = Bench(store := MemoryAnswers())
    store.failures = [failure, failure]
    assert await bench.shelf.find(key(1), LONG_AGO) is None
    bench.keep(key(1), made())
    await eventually(lambda: bench.missed == 2)
    bench.keep(key(2), made())
    await eventually(lambda: set(store.kept) == {key(2)})


async def test_what_is_dropped_is_not_kept_after_all():
    bench = Bench(store := Slow())
    bench.keep(key(1), made())
    await eventually(lambda: store.batches == [1])
    bench.keep(key(2), made())
    bench.keep(key(3, "globex"), made())
    store.gate.set()
    bench.shelf.forget("acme")
    await eventually(lambda: key(3, "globex") in store.kept)
    assert key(2) not in store.kept
    assert await bench.shelf.clear("acme") == 1
    assert await bench.shelf.find(key(1), LONG_AGO) is None


async def test_what_was_looked_up_before_it_was_dropped_is_not_at_hand_after_it():
    bench = Bench(store := Slow())
    store.kept[key(1)] = answer = made()
    looking = asyncio.create_task(bench.shelf.find(key(1), LONG_AGO))
    await eventually(lambda: store.looked_up == [1])
    bench.shelf.forget("acme")
    del store.kept[key(1)]
    store.gate.set()
    assert await looking is answer
    assert await bench.shelf.find(key(1), LONG_AGO) is None


async def test_what_is_looked_up_while_it_is_dropped_is_not_at_hand_after_it():
    bench = Bench(store := Slow())
    store.kept[key(1)] = made()
    clearing = asyncio.create_task(bench.shelf.clear("acme"))
    await eventually(lambda: store.clearing == 1)
    looking = asyncio.create_task(bench.shelf.find(key(1), LONG_AGO))
    await eventually(lambda: store.looked_up == [1])
    store.gate.set()
    await asyncio.gather(clearing, looking)
    assert await bench.shelf.find(key(1), LONG_AGO) is None


@pytest.mark.parametrize(("dropped", "kept"), [("globex", True), ("acme", False), (None, False)])
async def test_what_one_tenant_drops_is_no_others_loss(dropped: str | None, kept: bool):
    bench = Bench(store := MemoryAnswers())
    era = bench.shelf.era("acme")
    if dropped is None:
        bench.shelf.doubt()
    else:
        await bench.shelf.clear(dropped)
    async with bench.shelf:
        bench.shelf.keep(key(1), made(), era)
    assert (key(1) in store.kept) is kept


async def test_a_store_that_hangs_does_not_hold_up_the_end():
    bench = Bench(Slow())
    async with bench.shelf:
        bench.keep(key(1), made())
    assert not bench.store.kept
