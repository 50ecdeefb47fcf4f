"""Following a run with what its agents say meanwhile."""

from __future__ import annotations

import asyncio
from typing import Final

from rich.console import Console

from paracle_client.aio import AsyncClient
from paracle_client.cli.following import leave
from paracle_client.display import Screen, shown
from paracle_client.live import begin
from paracle_domain.errors import ParacleError
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import Outputs, RunView
from paracle_domain.wording import count

MOST: Final = 16
"""So many agents are heard at once; each is a connection."""
_PATIENCE_S: Final = 6.0
"""What an agent said is waited for at its end for so long, be the machine busy; usually it is there already."""
_LONG_S: Final = 2.0
"""A tool that is at work for so long may wait for people; others are not worth a connection."""
_ENDS: Final = frozenset({"step.completed", "step.failed", "step.retrying", "step.timed_out", "step.cancelled"})


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
    """A reader for each agent that is at work; there may be many thousands, so only the first are heard."""

    def __init__(self, client: AsyncClient, screen: Screen) -> None:
        self._client = client
        self._screen = screen
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._tools: dict[str, asyncio.Task[None]] = {}
        self._unheard = 0

    def listen(self, record: EventRecord) -> None:
        """Hear the agent, or the tool, that begins with this event, if one does."""
        step, task_id, kind = (record.data.get(name) for name in ("step", "task_id", "target_kind"))
        if record.type != "step.started" or not isinstance(step, str) or not isinstance(task_id, str):
            return
        if kind == "agent" and len(self._readers) >= MOST:
            self._unheard += 1
        elif kind == "agent":
            self._readers[step] = asyncio.create_task(self._hear(step, task_id))
        elif kind == "tool" and len(self._tools) < MOST:
            self._tools[step] = asyncio.create_task(self._hear(step, task_id, after_s=_LONG_S))

    async def hear_out(self, record: EventRecord) -> None:
        """What an agent said comes before how its step ended."""
        step = record.data.get("step")
        if record.type not in _ENDS or not isinstance(step, str):
            return
        if reader := self._readers.pop(step, None):
            await asyncio.wait({reader}, timeout=_PATIENCE_S)
        elif not (reader := self._tools.pop(step, None)):  # a tool has nothing to say at its end
            return
        await self._stop(reader)
        self._screen.hush(step)

    async def close(self) -> None:
        """Hear nobody any more, and say how many were not heard."""
        for step, reader in (*self._readers.items(), *self._tools.items()):
            await self._stop(reader)
            self._screen.hush(step)
        if self._unheard:
            self._screen.note(f"{count(self._unheard, 'agent')} could not be heard: at most {MOST} are at once")

    async def _stop(self, reader: asyncio.Task[None]) -> None:
        reader.cancel()
        await asyncio.wait({reader})
        if not reader.cancelled():
            reader.result()  # a bug in it is one here

    async def _hear(self, step: str, task_id: str, *, after_s: float = 0.0) -> None:
        await asyncio.sleep(after_s)
        try:
            async for output in self._client.output(task_id):
                self._screen.hear(step, output)
        except ParacleError as error:  # the run itself can be followed all the same
            self._screen.note(f"{step:<16} cannot be heard: {error.message}")
