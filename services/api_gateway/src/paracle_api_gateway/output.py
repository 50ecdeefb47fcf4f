"""What a task says while it is at work, from any cursor.

Nothing is buffered for anybody: pieces are read from their stream when the reader has taken the last ones, so a slow
reader slows nobody but itself, and one that is away for longer than they are kept is told that something is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from paracle_api_gateway.follow import first_of
from paracle_api_gateway.ports import Heard, Outputs
from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.errors import NotFound, ParacleError
from paracle_domain.task.messages import GetTaskEvents
from paracle_domain.task.output import Listening, TaskOutput

PAGE: Final = 256
_RETRY_MS: Final = 1_000
_KINDS: Final = ("tool", "summary", "budget", "retrying", "retried")
_BEYOND: Final = 10**9  # the number of no event: asks whether a task has ended, and for nothing else
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutputFollower:
    """Follows tasks for readers of event streams; see `Follower`.

    Attributes
    ----------
    unknown_s
        How long a task may be unknown: it is named in a run's events before anybody works on it.
    """

    bus: Bus
    outputs: Outputs
    closing: asyncio.Event
    poll_s: float
    keep_alive_s: float
    unknown_s: float = 60.0

    async def stream(self, call: Context, task_id: str, after: int) -> AsyncGenerator[bytes]:
        """What the task said after cursor `after` as server-sent events, until it has ended."""
        yield f"retry: {_RETRY_MS}\n\n".encode()
        async with self.outputs.watch(call.tenant, task_id) as (said, happened):
            told = _Story(self, call, task_id, Listening(after))
            await told.recall()
            happened.set()  # whether it has ended already is asked once, and then when something happens to it
            while not self.closing.is_set():
                said.clear()
                if frames := await told.news():
                    yield frames
                    continue
                if happened.is_set() or told.quiet_s >= self.poll_s:
                    happened.clear()
                    if await told.ended():
                        yield await told.last_words()
                        return
                if told.given_up:
                    return
                if told.silent_s >= self.keep_alive_s:
                    yield b": keep-alive\n\n"
                    told.spoke()
                await first_of(self.poll_s, said, happened, self.closing)

    async def so_far(self, call: Context, task_id: str, after: int) -> AsyncGenerator[bytes]:
        """What the task has said after cursor `after` by now, as far as it is kept."""
        told = _Story(self, call, task_id, Listening(after))
        await told.recall()
        while frames := await told.news():
            yield frames


class _Story:
    """One reader's way through what a task said."""

    def __init__(self, follower: OutputFollower, call: Context, task_id: str, listening: Listening) -> None:
        self._follower = follower
        self._call = call
        self._task_id = task_id
        self._listening = listening
        self._now = asyncio.get_running_loop().time
        self._spoke = self._asked = self._began = self._now()
        self._known = False

    @property
    def silent_s(self) -> float:
        """Seconds since the reader was sent anything."""
        return self._now() - self._spoke

    @property
    def quiet_s(self) -> float:
        """Seconds since it was asked whether the task has ended."""
        return self._now() - self._asked

    @property
    def given_up(self) -> bool:
        """Whether nobody has heard of the task for so long that the stream ends; the reader may come back."""
        return not self._known and self._now() - self._began > self._follower.unknown_s

    def spoke(self) -> None:
        self._spoke = self._now()

    async def recall(self) -> None:
        """Look at the piece that a reader who comes back saw last, so that it shows what is missing after it."""
        after = self._listening.after
        if after == 0:
            return
        for heard in await self._read(after - 1, 1):
            if heard.seq == after:
                self._listening.recall(heard.seq, heard.said)

    async def news(self) -> bytes:
        """Frames of what was said since; none, if nothing was."""
        frames = bytearray()
        for heard in await self._read(self._listening.after, PAGE):
            for one in self._listening.take(heard.seq, heard.said):
                frames += frame(one)
        if frames:
            self.spoke()
        return bytes(frames)

    async def last_words(self) -> bytes:
        """All that is left, and that the task has ended."""
        frames = bytearray()
        while more := await self.news():
            frames += more
        return bytes(frames) + frame(TaskOutput(seq=self._listening.after, ended=True))

    async def ended(self) -> bool:
        """Whether the task has; false if nobody can say now."""
        self._asked = self._now()
        try:
            page = await self._follower.bus.call(
                GetTaskEvents(task_id=self._task_id, after=_BEYOND, limit=1), self._call
            )
        except NotFound:
            return False
        except ParacleError as error:
            if not error.retryable:
                raise
            log.warning("cannot ask how a followed task stands", extra={"task_id": self._task_id, "error": error.code})
            return False
        self._known = True
        return page.terminal

    async def _read(self, after: int, limit: int) -> Sequence[Heard]:
        try:
            return await self._follower.outputs.read(self._call.tenant, self._task_id, after, limit)
        except ParacleError as error:
            if not error.retryable:
                raise
            log.warning("cannot read what a task said", extra={"task_id": self._task_id, "error": error.code})
            return ()


def frame(output: TaskOutput) -> bytes:
    """`output` as a server-sent event; its JSON holds no line break."""
    kind = "ended" if output.ended else next((name for name in _KINDS if getattr(output, name) is not None), "delta")
    return f"id: {output.seq}\nevent: {kind}\ndata: ".encode() + output.encode() + b"\n\n"
