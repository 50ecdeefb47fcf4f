"""Turns of sessions: one at a time, in the order in which they came, on whichever replica.

A turn is a task like any other; what makes it one is that it waits for those before it, and begins with what they said.
Nobody has it in hand meanwhile: it is set aside in the database, its delivery is acked, and whoever ends the turn
before it hands it out again. So however many wait in a session, others' tasks come; and a process that is killed
between the end of a turn and that finds the turn ended when it comes again, and hands the next one out then.

Its own messages are kept when it has completed, before its result is told: a process that is killed in between
finds the task ended and keeps them then, and nobody else begins before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

from paracle_agent_runtime.outbox import Outbox, Parcel
from paracle_agent_runtime.ports import Ending, Letter, SessionBook, Starts
from paracle_chassis.bus import Outgoing
from paracle_domain import subjects
from paracle_domain.task.conversation import added, session_of
from paracle_domain.task.messages import CancelTask, Task, TaskStatus
from paracle_domain.task.state import Job, TaskState

_MOST: Final = 100


class TurnWaitsError(Exception):
    """The turn waits for others. It is kept, and will be handed out again."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A task's place in the line of those of its tenant's session that came here and have not entered it yet."""

    line: tuple[str, str]
    letter: Letter
    first: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """Who is next in each session."""

    def __init__(self, book: SessionBook, starts: Starts, outbox: Outbox) -> None:
        self._book = book
        self._starts = starts
        self._outbox = outbox
        self._lines: dict[tuple[str, str], dict[Place, None]] = {}

    def line_up(self, letter: Letter) -> Place | None:
        """`letter` came: it enters its session behind those that came here before it, unless those `step_out`.

        Side by side, each over a connection of its own, they would enter in any order.
        """
        session = session_of(letter.task)
        if session is None:
            return None
        place = Place((letter.tenant, session), letter)
        self._lines.setdefault(place.line, {})[place] = None
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
        """`job` with what was said before it.

        Raises
        ------
        TurnWaitsError
            If an earlier turn of its session has not ended, or has not even come.
        """
        turn = await self._book.number(job.task.task_id)
        if turn is None:
            turn = await self._enter(job.task, place)
        self.step_out(place)
        await self._release(place.letter.tenant, job.task)
        if await self._book.waits(*place.line, turn):
            await self._book.set_aside(place.line[1], place.letter, turn)
            if await self._book.waits(*place.line, turn):  # else whoever ended it may have found nobody who waits
                raise TurnWaitsError
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

    async def stopped(self, task: CancelTask, tenant: str) -> None:
        """A task was cancelled: if it is a turn, or would have become one, nobody waits for it any more."""
        await self._release(tenant, task)

    async def look(self) -> None:
        """Look after those that wait for a run to come: one may end that never does, and nobody says so here.

        Each is called once: what is lost on the way is what any task is then, handed out again by its run. That
        is noted first: on its way in it may be set aside behind another run, and from then on it is called no more.
        """
        for one in await self._book.stalled(_MOST):
            tenant, run_id = one.letter.tenant, one.letter.task.run_id
            earlier = await self._starts.before(tenant, run_id)
            if not earlier or await self._book.lacks(tenant, one.session, earlier) is None:
                await self._book.called(one.letter.task.task_id)
                self._outbox.put(Parcel([_called(one.letter, one.after)]))

    async def _end(self, task: Task, tenant: str, ending: Ending) -> None:
        if session_of(task) is not None:
            await self._book.end(tenant, task.task_id, ending)
            await self._release(tenant, task)

    async def _enter(self, task: Task, place: Place) -> int:
        tenant, session = place.line
        await self._be_first(place)
        earlier = await self._starts.before(tenant, task.run_id)
        if earlier and (missing := await self._book.lacks(tenant, session, earlier)):
            await self._book.set_aside(session, place.letter, missing)
            if await self._book.lacks(tenant, session, earlier):  # else it may have entered just before
                raise TurnWaitsError
        return await self._book.enter(tenant, session, task)

    async def _be_first(self, place: Place) -> None:
        line = self._lines.get(place.line, {})
        if place in line and place is not next(iter(line)):
            await place.first.wait()

    async def _release(self, tenant: str, task: Task | CancelTask) -> None:
        """Hand those out again who waited for `task` to enter, or to end.

        Before whatever brought it here is acked, for that goes the same way: a kill in between has it brought again.
        """
        released = await self._book.release(tenant, task.task_id, task.run_id)
        self._outbox.put(Parcel([_called(letter, task.run_id) for letter in released]))


def _called(letter: Letter, run_id: str) -> Outgoing:
    """`letter` once more: its turn has come, or it may enter behind run `run_id`. Each happens once."""
    why = f"after.{run_id}" if letter.turn is None else "turn"
    envelope = replace(letter.envelope, id=f"{letter.task.task_id}.{why}")
    return Outgoing(subjects.task(letter.tenant, letter.pool), letter.task, envelope)


def ending(state: TaskState) -> Ending:
    """What a turn that has completed leaves behind."""
    own = state.messages[len(state.job.past.messages) :]
    said = added(own, state.output)
    if said == own:
        return Ending(said, state.counted[1] if state.counted is not None else None, state.recap)
    recap = state.recap  # another agent took over: nothing that this one did on the way is kept
    return Ending(said, None, None if recap is None else recap.model_copy(update={"question": 0, "resume": 0}))
