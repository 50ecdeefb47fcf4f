"""A real service that is killed at a chosen point: `python -m paracle_chassis.testing.faults PACKAGE GAP MATCH NTH`.

It is the service of `PACKAGE` over its own bus and database, but for one thing: when the `NTH` message goes out whose
line (subject, type, id and body, a space between) holds the regular expression `MATCH`, the process kills itself
(`SIGKILL`), in one of three gaps:

    before-publish   what led to the message is committed, and the message is not out
    before-ack       it is out, and what led to it is not acked
    before-fetch     that is acked as well: the mailbox is done with it

A statement that the service executes or fetches rows by counts as a message, too: its line is the word `sql`, its text
and its arguments.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from enum import StrEnum
from typing import Any, override

import asyncpg

from paracle_chassis.app import Service, run, settings_of
from paracle_chassis.bus import Outgoing
from paracle_chassis.link import Link
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.postgres import Database
from paracle_chassis.settings import ServiceSettings


class Gap(StrEnum):
    """Where the process is killed."""

    BEFORE_PUBLISH = "before-publish"
    BEFORE_ACK = "before-ack"
    BEFORE_FETCH = "before-fetch"


class Fault:
    """The kill that is to come; `link` is the connection of the process that dies."""

    def __init__(self, gap: Gap, match: str, nth: int) -> None:
        self._gap = gap
        self._match = re.compile(match, re.DOTALL)
        self._left = nth
        self._dying: asyncio.Task[None] | None = None
        self.link: Link | None = None

    async def around(self, lines: Iterable[str], work: Callable[[], Awaitable[Any]]) -> Any:
        """Do `work`, by which `lines` go out; the process may die before it, or after it."""
        now = self._comes(lines)
        if now and self._gap is Gap.BEFORE_PUBLISH:
            die()
        done = await work()
        if now and self._gap is Gap.BEFORE_ACK:
            die()
        if now:
            batch = asyncio.current_task()
            assert batch is not None
            batch.add_done_callback(self._on_done)
        return done

    def _on_done(self, _batch: asyncio.Task[Any]) -> None:
        self._dying = asyncio.get_running_loop().create_task(self._die_acked())

    async def _die_acked(self) -> None:
        assert self.link is not None
        await self.link.check()  # the server has what was acked
        die()

    def _comes(self, lines: Iterable[str]) -> bool:
        """Whether the chosen one is among `lines`."""
        if self._left <= 0:
            return False
        self._left -= sum(self._match.search(line) is not None for line in lines)
        return self._left <= 0


def die() -> None:
    """`kill -9`, by one's own hand."""
    os.kill(os.getpid(), signal.SIGKILL)


class FaultyBus(NatsBus):
    """The bus of a service that will be killed."""

    def __init__(self, service: str, settings: ServiceSettings, fault: Fault) -> None:
        super().__init__(service, settings)
        self._fault = fault
        fault.link = self.link

    @override
    async def publish(self, messages: Sequence[Outgoing]) -> None:
        lines = [
            f"{one.subject} {one.envelope.type} {one.envelope.id} {one.message.encode().decode()}" for one in messages
        ]
        await self._fault.around(lines, lambda: super(FaultyBus, self).publish(messages))


class FaultyDatabase(Database):
    """The database of a service that will be killed."""

    def __init__(self, settings: ServiceSettings, package: str, fault: Fault) -> None:
        super().__init__(settings, package)
        self.pool: Any = _FaultyPool(self.pool, fault)


class _FaultyPool:
    """A pool; the process may die around a statement that it executes."""

    def __init__(self, inner: asyncpg.Pool[Any], fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    async def execute(self, query: str, *args: Any) -> Any:
        return await self._fault.around([_line(query, args)], lambda: self._inner.execute(query, *args))

    async def fetch(self, query: str, *args: Any) -> Any:
        return await self._fault.around([_line(query, args)], lambda: self._inner.fetch(query, *args))


def _line(query: str, args: tuple[Any, ...]) -> str:
    return f"sql {query} {args}"


def main(package: str, gap: str, match: str, nth: str) -> None:
    """Run the service of `package` until it is killed."""
    create: Callable[..., Service] = importlib.import_module(f"{package}.app").create_app
    fault = Fault(Gap(gap), match, int(nth))

    def create_faulty(settings: ServiceSettings) -> Service:
        bus = FaultyBus(package.removeprefix("paracle_"), settings, fault)
        return create(settings, bus=bus, database=FaultyDatabase(settings, package, fault))

    run(create_faulty, settings_of(create))


if __name__ == "__main__":
    main(*sys.argv[1:])
