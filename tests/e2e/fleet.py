"""Hundreds of runs of every shape in flight, whatever is killed meanwhile, and all held to what was promised."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from nats.aio.msg import Msg
from tests.e2e.desk import Desk, desk
from tests.e2e.histories import assert_sound
from tests.e2e.load import assert_one_key_each, events_told
from tests.e2e.shapes import Shape, manifests, mixed
from tests.e2e.world import System

from paracle_chassis.testing.eventually import eventually
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import ListRuns, RunStatus, RunSummary, StartRun

_LIVE: Final = tuple(status for status in RunStatus if not status.terminal)
_QUIET_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One run: what the counter calls it, and what it is."""

    name: str
    run_id: str
    shape: Shape


@dataclass(slots=True)
class Fleet:
    """Runs under way. `label` is what they are found by."""

    system: System
    desk: Desk
    label: str
    sent: list[Sent] = field(default_factory=list)
    _completed: int = 0
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def starting(self, number: int, chance: random.Random) -> AsyncIterator[None]:
        """So many are started within, and what is to be done to them is; on leaving, all of that has happened."""
        task = asyncio.create_task(self._start(number, chance))
        try:
            yield
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _start(self, number: int, chance: random.Random) -> None:
        shapes = mixed(number)
        chance.shuffle(shapes)
        await asyncio.gather(*(self._send(f"{self.label}-{at}", shape) for at, shape in enumerate(shapes)))

    async def _send(self, name: str, shape: Shape) -> None:
        start = StartRun(workflow=shape.workflow, input={"run": name}, labels={"fleet": self.label})
        answer = await self.desk.order(start)
        one = Sent(name, str(answer["run_id"]), shape)
        self.sent.append(one)
        await shape.drive(self.desk, one.run_id)

    async def saw(self, message: Msg) -> None:
        """Something happened to a run, perhaps the completion of a step."""
        told = EventRecord.model_validate_json(message.data).each()
        self._completed += sum(event.type == "step.completed" for event in told)
        self._progress.set()

    async def progress(self, steps: int) -> None:
        """Wait until so many steps have completed, or nothing more does."""
        while self._completed < steps:
            self._progress.clear()
            try:
                async with asyncio.timeout(_QUIET_S):
                    await self._progress.wait()
            except TimeoutError:
                if self.sent and not await self.live():
                    return

    async def live(self) -> list[str]:
        """Those that have not ended."""
        return [run.run_id for run in await self._found(*_LIVE)]

    async def _found(self, *statuses: RunStatus) -> list[RunSummary]:
        """Runs with the label, those that others started as children included."""
        found: list[RunSummary] = []
        cursor, more = None, True
        while more:
            query = ListRuns(statuses=statuses, labels={"fleet": self.label}, limit=500, cursor=cursor)
            page = await self.desk.ask(query)
            found += page.runs
            cursor, more = page.next_cursor, page.next_cursor is not None
        return found

    async def ended(self, within_s: float) -> None:
        """Wait for all."""

        async def none_is_left() -> bool:
            left = await self.live()
            assert not left, f"{len(left)} of {len(self.sent)} have not ended: {left[:5]}"
            return True

        await eventually(none_is_left, within_s=within_s)

    async def check(self) -> None:
        """Hold all to what was promised."""
        histories = await asyncio.gather(*(assert_sound(self.desk, one.run_id) for one in self.sent))
        children = {run.run_id for run in await self._found()} - {one.run_id for one in self.sent}
        await asyncio.gather(*(assert_sound(self.desk, run_id) for run_id in children))
        for one, events in zip(self.sent, histories, strict=True):
            try:
                self._check(one, events)
            except AssertionError as error:
                error.add_note(f"run {one.run_id} of shape {one.shape.name}, counted as {one.name}")
                raise

    def _check(self, one: Sent, events: Sequence[EventRecord]) -> None:
        shape, last = one.shape, events[-1]
        status = RunStatus(last.type.removeprefix("run."))
        assert status in shape.statuses, (status, last.data.get("error"))
        in_doubt = shape.most_once and status is RunStatus.FAILED
        if in_doubt:
            assert last.data["error"]["code"] == "effect_in_doubt", last.data["error"]  # type: ignore[index, call-overload]
        elif status is RunStatus.COMPLETED:
            assert last.data.get("output") == shape.output
        keys = self.system.effects.keys_by_step(one.name)
        assert_one_key_each(keys, tuple(keys) if in_doubt else tuple(shape.effects))
        if shape.most_once:
            assert set(self.system.effects.times_by_step(one.name).values()) <= {1}
        self._check_nothing_came_after_its_end(one, events)

    def _check_nothing_came_after_its_end(self, one: Sent, events: Sequence[EventRecord]) -> None:
        """No finished step was run again: its calls came before it completed."""
        done = {str(event.data["step"]): event.at for event in events if event.type == "step.completed"}
        late = [call for call in self.system.effects.calls(one.name) if call.step in done and call.at > done[call.step]]
        assert not late, late

    def statuses(self) -> Counter[str]:
        """How many there are of each shape."""
        return Counter(one.shape.name for one in self.sent)


@asynccontextmanager
async def fleet(system: System, label: str) -> AsyncIterator[Fleet]:
    """An empty one, with all workflows in place, that follows its own progress."""
    await asyncio.to_thread(system.apply, manifests(system.effects.port))
    async with desk(system.stack.nats_url) as at:
        found = Fleet(system, at, label)
        async with events_told(system, found.saw):
            yield found
