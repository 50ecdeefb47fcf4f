"""Following a run with what its agents say meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from rich.console import Console

from paracle_client import speech
from paracle_client.aio import AsyncClient
from paracle_client.cli.following import leave
from paracle_client.display import Screen, shown
from paracle_client.live import begin
from paracle_domain.errors import NotFound, ParacleError
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import Outputs, RunView
from paracle_domain.run.events import ApprovalAsked, ApprovalDecided, StepStarted
from paracle_domain.wording import count

MOST: Final = 16
"""So many agents are heard at once; each is a connection."""
_PATIENCE_S: Final = 6.0
"""What an agent said is waited for at its end for so long, be the machine busy; usually it is there already."""
_LONG_S: Final = 2.0
"""A tool that is at work for so long may wait for people; others are not worth a connection."""
_ENDS: Final = frozenset({"step.completed", "step.failed", "step.retrying", "step.timed_out", "step.cancelled"})
_ANSWERED: Final = frozenset({ApprovalDecided.type_name, *_ENDS})


def follow_aloud(client: AsyncClient, run_id: str, console: Console) -> RunView:
    """Show the run, and what its agents say, until it has ended; Ctrl-C ends only the showing."""
    try:
        return asyncio.run(_follow(client, run_id, console))
    except KeyboardInterrupt:
        raise leave(run_id) from None


async def _follow(client: AsyncClient, run_id: str, console: Console) -> RunView:
    async with client:
        with shown(begin(await client.get_run(run_id, outputs=Outputs.NONE)), console) as screen:
            ears = _Ears(client, screen)
            try:
                async for record in client.events(run_id, follow=True):
                    await ears.hear_out(record)
                    screen.take(record)
                    ears.listen(record)
            finally:
                await ears.close()
        return await client.read_run(run_id)


class _Ears:
    """A reader for each agent that is at work; there may be many thousands, so only the first are heard.

    Of tools, and of all that child runs do, only that they wait for people is heard. `above`: who hears the run that
    this one is a child of, below the step `within`; `all_waits` are all such readers, at any depth.
    """

    def __init__(self, client: AsyncClient, screen: Screen, above: _Ears | None = None, within: str = "") -> None:
        self._client = client
        self._screen = screen
        self._within = within
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._waits: dict[str, asyncio.Task[None]] = {}
        self.all_waits: set[asyncio.Task[None]] = set() if above is None else above.all_waits
        self._unheard = 0

    def listen(self, record: EventRecord) -> None:
        """Hear the agent, the tool or the child run that begins with this event, if one does."""
        if record.type != StepStarted.type_name:
            return
        event = StepStarted.model_validate(record.data)
        step, task_id, child = event.step, event.task_id, event.child_run_id
        if event.target_kind == "agent" and not self._within and task_id is not None:
            if len(self._readers) >= MOST:
                self._unheard += 1
            else:
                self._readers[step] = asyncio.create_task(self._hear(step, task_id))
        elif len(self.all_waits) < MOST:
            name = self._within + step
            if task_id is not None:
                self._wait(step, self._hear(name, task_id, after_s=_LONG_S, waits=event.target_kind == "agent"))
            elif child is not None:
                self._wait(step, self._hear_child(name, child))

    def _wait(self, step: str, work: Coroutine[Any, Any, None]) -> None:
        reader = self._waits[step] = asyncio.create_task(work)
        self.all_waits.add(reader)
        reader.add_done_callback(self.all_waits.discard)

    async def hear_out(self, record: EventRecord) -> None:
        """What an agent said comes before how its step ended."""
        step = record.data.get("step")
        if record.type not in _ENDS or not isinstance(step, str):
            return
        if reader := self._readers.pop(step, None):
            await asyncio.wait({reader}, timeout=_PATIENCE_S)
        elif not (reader := self._waits.pop(step, None)):  # whoever waited has nothing to say at its end
            return
        await self._stop(reader)
        self._screen.hush(self._within + step)

    async def close(self) -> None:
        """Hear nobody any more, and say how many were not heard."""
        for step, reader in (*self._readers.items(), *self._waits.items()):
            await self._stop(reader)
            self._screen.hush(self._within + step)
        if self._unheard:
            self._screen.note(f"{count(self._unheard, 'agent')} could not be heard: at most {MOST} are at once")

    async def _stop(self, reader: asyncio.Task[None]) -> None:
        reader.cancel()
        await asyncio.wait({reader})
        if not reader.cancelled():
            reader.result()  # a bug in it is one here

    async def _hear(self, step: str, task_id: str, *, after_s: float = 0.0, waits: bool = False) -> None:
        await asyncio.sleep(after_s)
        try:
            async for output in self._client.output(task_id):
                if not waits or speech.waits(output):
                    self._screen.hear(step, output)
        except ParacleError as error:  # the run itself can be followed all the same
            self._screen.note(f"{step:<16} cannot be heard: {error.message}")

    async def _hear_child(self, step: str, run_id: str) -> None:
        ears, heard = _Ears(self._client, self._screen, self, f"{step}/"), False
        try:
            while not heard:
                await asyncio.sleep(_LONG_S)
                with suppress(NotFound):  # it has been ordered, and is on its way
                    async for record in self._client.events(run_id, follow=True):
                        await ears.hear_out(record)
                        ears.listen(record)
                        ears.hear_question(record)
                    heard = True
        except ParacleError as error:
            self._screen.note(f"{step:<16} cannot be heard: {error.message}")
        finally:
            await ears.close()

    def hear_question(self, record: EventRecord) -> None:
        """Say what a step asks people, until they have answered."""
        step = record.data.get("step")
        if record.type == ApprovalAsked.type_name:
            event = ApprovalAsked.model_validate(record.data)
            self._screen.say(self._within + event.step, speech.asking(event.ask, event.approval_id))
        elif record.type in _ANSWERED and isinstance(step, str):
            self._screen.hush(self._within + step)
