"""Garbage: looked for now and then, in what was made since the last time."""

from __future__ import annotations

import asyncio
import gc

import pytest

from paracle_chassis import garbage
from paracle_chassis.testing.eventually import eventually


@pytest.mark.parametrize(
    ("counts", "generation"),
    [
        ((19_999, 9, 900), None),
        ((20_000, 0, 0), 0),
        ((20_000, 3, 99), 0),
        ((20_000, 4, 99), 1),
        ((20_000, 0, 100), 2),
    ],
)
def test_older_objects_are_looked_at_more_seldom(counts: tuple[int, int, int], generation: int | None) -> None:
    assert garbage.due(*counts) == generation


async def test_what_goes_in_circles_goes_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_EVERY_S", 0.01)
    monkeypatch.setattr(garbage, "_WORTH_A_LOOK", 1)
    gc.collect()
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            seen.append(info["collected"])

    gc.callbacks.append(note)
    looking = asyncio.create_task(garbage.keep_looking())
    circle: list[object] = []
    circle.append(circle)
    del circle
    await eventually(lambda: any(seen))
    gc.callbacks.remove(note)
    looking.cancel()
