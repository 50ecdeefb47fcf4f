"""One agent runtime after the other, each killed at a chosen boundary of a chosen tool call."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final, Self

from tests.e2e.effects import Moment
from tests.e2e.world import System

from paracle_chassis.testing.faults import Gap
from paracle_chassis.testing.nursery import ORDER, Order
from paracle_client.stack import SERVICES
from paracle_domain.run.orders import task_id_of
from paracle_embedded import ProcessRef, free_port

_RUNTIME: Final = next(one for one in SERVICES if one.name == "agent_runtime")


class Boundary(StrEnum):
    """Where in a call the process dies."""

    BEFORE_INTENT = "before-intent"
    AFTER_INTENT = "after-intent"
    ON_THE_WAY = "on-the-way"
    AFTER_SEND = "after-send"
    AFTER_REPLY = "after-reply"
    BEFORE_CONFIRM = "before-confirm"
    AFTER_CONFIRM = "after-confirm"


_IN_THE_JOURNAL: Final = {
    Boundary.BEFORE_INTENT: ("effect.intended", Gap.BEFORE_PUBLISH),
    Boundary.AFTER_INTENT: ("effect.intended", Gap.BEFORE_ACK),
    Boundary.BEFORE_CONFIRM: ("effect.confirmed", Gap.BEFORE_PUBLISH),
    Boundary.AFTER_CONFIRM: ("effect.confirmed", Gap.BEFORE_ACK),
}
"""Around the statement that writes this event."""
_AT_THE_TOOL: Final = {
    Boundary.ON_THE_WAY: Moment.ARRIVED,
    Boundary.AFTER_SEND: Moment.DONE,
    Boundary.AFTER_REPLY: Moment.ANSWERED,
}
"""When the tool's server has come so far."""

type Dead = Callable[[], bool]


class Succession:
    """Runtimes in the place of the stack's own: each is there until it dies, and the next takes up what it left."""

    def __init__(self, system: System, nursery: Process) -> None:
        self._system = system
        self._nursery = nursery
        self._newest: ProcessRef | None = None

    @classmethod
    @asynccontextmanager
    async def of(cls, system: System) -> AsyncIterator[Self]:
        """Afterwards an ordinary runtime is there again."""
        stack = system.stack
        await asyncio.to_thread(stack.kill, _RUNTIME.name)
        with (stack.root / "logs" / "doomed.log").open("ab") as log:
            nursery = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "paracle_chassis.testing.nursery", _RUNTIME.package),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=stack.env(_RUNTIME, free_port()),
                cwd=stack.root,
            )
        assert nursery.stdin is not None
        found = cls(system, nursery)
        try:
            yield found
        finally:
            nursery.stdin.close()
            await nursery.wait()
            await asyncio.to_thread(found.end)
            await asyncio.to_thread(stack.start, _RUNTIME.name)

    def end(self) -> None:
        """Kill the newest, if it is still there."""
        if self._newest is not None:
            self._newest.kill_tree()

    @asynccontextmanager
    async def doomed(self, boundary: Boundary, run: str, run_id: str) -> AsyncIterator[Dead]:
        """One that dies when the call of `run`'s step `one` comes to `boundary`; whether it has."""
        if boundary in _IN_THE_JOURNAL:
            event, gap = _IN_THE_JOURNAL[boundary]
            match = rf"^sql .*insert into task_history.*{task_id_of(run_id, 'one', 1)}.*{re.escape(event)}"
            yield await self._born(gap, match)
            return
        dead = await self._born()
        with self._system.effects.watched(_AT_THE_TOOL[boundary], lambda called: self._strike(called == run)):
            yield dead

    def _strike(self, now: bool) -> None:
        if now and self._newest is not None:
            self._newest.send(signal.SIGKILL)

    async def _born(self, gap: Gap = Gap.BEFORE_PUBLISH, match: str = "(?!)") -> Dead:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        order = Order(self._system.stack.env(_RUNTIME, free_port()), gap, match)
        self._nursery.stdin.write(ORDER.dump_json(order) + b"\n")
        await self._nursery.stdin.drain()
        born = ProcessRef.of(int(await self._nursery.stdout.readline()))
        self._newest = born
        return lambda: not born.alive
