"""Turns of sessions: one at a time, in the order in which they came, on whichever replica.

A turn is a task like any other; what makes it one is that it waits here for those before it, and begins with what they
said. Its own messages are kept when it has completed, before its result is told: a process that is killed in between
finds the task ended and keeps them then, and nobody else begins before.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from paracle_agent_runtime.pools import Seat
from paracle_agent_runtime.ports import Ending, SessionBook, Starts
from paracle_domain.task.conversation import added, session_of
from paracle_domain.task.messages import Task, TaskStatus
from paracle_domain.task.state import Job, TaskState

LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A task's place in the line of those of its tenant's session that came here and have not entered it yet."""

    line: tuple[str, str]
    seat: Seat
    first: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """Who is next in each session. Turns that end here are heard of at once, those elsewhere at the next look."""

    def __init__(self, book: SessionBook, starts: Starts, *, look_s: float = LOOK_S) -> None:
        self._book = book
        self._starts = starts
        self._look_s = look_s
        self._waiting: dict[tuple[str, str], dict[int, asyncio.Event]] = {}
        self._lines: dict[tuple[str, str], dict[Place, None]] = {}

    def line_up(self, task: Task, tenant: str, seat: Seat) -> Place | None:
        """`task` came, to `seat`: it enters its session behind those that came here before it, unless those `step_out`.

        Side by side, each over a connection of its own, they would enter in any order.
        """
        session = session_of(task)
        if session is None:
            return None
        place = Place((tenant, session), seat)
        self._stand(place)
        return place

    def step_out(self, place: Place) -> None:
        """Whoever has `place` has entered, or does not here: those behind need not wait for that."""
        line = self._lines.get(place.line, {})
        if place in line:
            del line[place]
            if line:
                next(iter(line)).first.set()
            else:
                del self._lines[place.line]

    async def join(self, job: Job, place: Place) -> Job:
        """`job` with what was said before it, once all earlier turns of its session have ended.

        It takes up no room meanwhile: an earlier one that has to come in (again) would find none, and none would end.
        """
        turn = await self._enter(job.task, place)
        await self._outwait(turn, place)
        await place.seat.sit_down()
        return replace(job, past=await self._book.past(*place.line, turn))

    async def recall(self, job: Job, tenant: str) -> Job:
        """`job`, of a task that has begun, with what was said before it: its turn had come then."""
        session = session_of(job.task)
        if session is None:
            return job
        turn = await self._book.enter(tenant, session, job.task)
        return replace(job, past=await self._book.past(tenant, session, turn))

    async def sum_up(self, state: TaskState, tenant: str) -> None:
        """Keep a summary of earlier turns for the later ones, whatever becomes of this one.

        What sums up this turn, too, is kept with it once it has completed.
        """
        summed, job = state.summed, state.job
        if (
            summed is None
            or state.recap is None
            or session_of(job.task) is None
            or summed.upto > len(job.past.messages)
        ):
            return
        await self._book.sum_up(tenant, job.task.task_id, state.recap)

    async def leave(self, state: TaskState, tenant: str) -> None:
        """The turn of an ended task is over."""
        task = state.job.task
        if session_of(task) is not None:  # a tool's task has said nothing at all
            await self._end(task, tenant, ending(state) if state.status is TaskStatus.COMPLETED else Ending())

    async def give_up(self, task: Task, tenant: str) -> None:
        """The turn of a task that nobody works on any more is over."""
        await self._end(task, tenant, Ending())

    async def _end(self, task: Task, tenant: str, ending: Ending) -> None:
        session = session_of(task)
        if session is None:
            return
        await self._book.end(tenant, task.task_id, ending)
        self._wake((tenant, session))

    async def _enter(self, task: Task, place: Place) -> int:
        tenant, session = place.line
        while True:
            await self._be_first(place)
            earlier = await self._starts.before(tenant, task.run_id)
            if not earlier or not await self._book.lacks(tenant, session, earlier):
                break
            self.step_out(place)  # they may be on their way to another replica, lost with nats-server, or right behind
            place.seat.stand_up()
            await asyncio.sleep(self._look_s)
            self._stand(place)
        turn = await self._book.enter(tenant, session, task)
        self.step_out(place)
        return turn

    def _stand(self, place: Place) -> None:
        """Stand at the end of the line."""
        place.first.clear()
        self._lines.setdefault(place.line, {})[place] = None

    async def _be_first(self, place: Place) -> None:
        line = self._lines.get(place.line, {})
        if place in line and place is not next(iter(line)):
            place.seat.stand_up()
            await place.first.wait()

    async def _outwait(self, turn: int, place: Place) -> None:
        waiters = self._waiting.setdefault(place.line, {})
        heard = waiters[turn] = asyncio.Event()
        try:
            while await self._book.waits(*place.line, turn):
                place.seat.stand_up()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._look_s if turn == min(waiters) else None):
                        await heard.wait()
                heard.clear()
        finally:
            if waiters.get(turn) is heard:
                del waiters[turn]
            if not waiters and self._waiting.get(place.line) is waiters:
                del self._waiting[place.line]
            self._wake(place.line)

    def _wake(self, line: tuple[str, str]) -> None:
        """Have the next turn of those that wait here look: before it none of them goes on, so it looks for all."""
        waiters = self._waiting.get(line)
        if waiters:
            waiters[min(waiters)].set()


def ending(state: TaskState) -> Ending:
    """What a turn that has completed leaves behind."""
    own = state.messages[len(state.job.past.messages) :]
    said = added(own, state.output)
    if said == own:
        return Ending(said, state.counted[1] if state.counted is not None else None, state.recap)
    recap = state.recap  # another agent took over: nothing that this one did on the way is kept
    return Ending(said, None, None if recap is None else recap.model_copy(update={"question": 0, "resume": 0}))
