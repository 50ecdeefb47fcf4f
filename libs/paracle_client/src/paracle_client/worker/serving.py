"""One call of a tool, from its message to its answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from paracle_client.worker.threads import Thread
from paracle_domain.envelope import ERROR, PROGRESS, WORKING
from paracle_domain.errors import (
    EffectInDoubt,
    InternalError,
    ParacleError,
    PayloadTooLarge,
    ToolUnavailable,
)
from paracle_domain.tool.calls import ToolCall

_log = logging.getLogger(__name__)

BEAT_S: Final = 1.0
_HEADERS: Final = 256
"""Room for those of an answer. A server counts them too, and ends the connection of whoever sends more."""
_TELLINGS: Final = 30
"""How often an answer that nobody heard is given, a second apart: a caller may be longer in coming back than NATS."""


class Served(Protocol):
    """A function, and as what it is served: `name` is unique among those of its `service`, `what` is for people.

    `meant` are the errors that it raises to say something; whatever else it comes to is a bug.
    """

    @property
    def name(self) -> str: ...

    @property
    def what(self) -> str: ...

    @property
    def service(self) -> str: ...

    @property
    def concurrency(self) -> int | None: ...

    @property
    def meant(self) -> tuple[type[ParacleError], ...]: ...

    async def answer(self, body: bytes, call: ToolCall, thread: Thread) -> bytes:
        """What it says to `body`."""


class Crew:
    """What the functions of one service share: so many slots, and a thread for each, made once one is needed.

    Tools and guards have one each. A tool that has an agent do something waits for that agent's guards, which may be
    served by the very same worker: they must not wait for a slot that it holds.
    """

    def __init__(self, service: str, size: int) -> None:
        self.slots = asyncio.Semaphore(size)
        self.threads = ThreadPoolExecutor(size, thread_name_prefix=service)


class Serving:
    """Answers the calls of one function, with signs of life while it works.

    Calls beyond the slots of its `crew` wait, and are not carried out once their time is over. A slot is free once
    nothing of its call runs any more, whoever still waits for it: else one behind it would have begun, and yet wait.
    """

    def __init__(self, client: Client, function: Served, crew: Crew, hangups: str) -> None:
        self._client = client
        self._function = function
        own = function.concurrency
        self._slots = (crew.slots,) if own is None else (asyncio.Semaphore(own), crew.slots)
        self._threads = crew.threads
        self._hangups = hangups
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._begun: set[str] = set()
        self._unheard: dict[str, asyncio.Event] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._numbers = 0

    async def receive(self, message: Msg) -> None:
        """Take a call; it is worked on beside others."""
        self._numbers += 1
        address = f"{self._hangups}.{self._function.service}.{self._function.name}.{self._numbers}"
        task = asyncio.create_task(self._serve(message, address), name=address)
        self._calls[address] = task
        task.add_done_callback(lambda _: self._calls.pop(address, None))

    def hang_up(self, address: str) -> None:
        """Nobody waits for the call with this address any more."""
        if (task := self._calls.get(address)) is not None:
            task.cancel()

    def not_heard(self, address: str) -> None:
        """NATS knew of nobody who listens to what was said last about the call with this address."""
        if (unheard := self._unheard.get(address)) is not None:
            unheard.set()

    async def finish(self, within_s: float) -> None:
        """Wait for what is in hand, and cut off what takes longer. All answers have been given once then."""
        late: set[asyncio.Task[None]] = set()
        if self._calls:
            _, late = await asyncio.wait(list(self._calls.values()), timeout=within_s)
        over = [*late, *self._telling]
        for task in over:
            task.cancel()
        await asyncio.gather(*over, return_exceptions=True)

    async def _serve(self, message: Msg, address: str) -> None:
        beat = asyncio.create_task(self._beat(message, address))
        try:
            body, headers = await self._answer(message, address)
        except asyncio.CancelledError:
            await self._respond(message, *_problem(self._stopped(address)))
            raise
        finally:
            beat.cancel()
            self._begun.discard(address)
        self._unheard[address] = asyncio.Event()
        connection = await self._say(message, body, headers, address)
        telling = asyncio.create_task(self._say_until_heard(connection, message, body, headers, address), name=address)
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        telling.add_done_callback(lambda _: self._unheard.pop(address))

    async def _say(self, message: Msg, body: bytes, headers: dict[str, str], address: str) -> int | None:
        """Answer; the number of the connection that it went over, `None` if there is none."""
        if not self._client.is_connected:
            return None
        await self._respond(message, body, headers, address)
        return self._client.stats["reconnects"]

    async def _say_until_heard(
        self, connection: int | None, message: Msg, body: bytes, headers: dict[str, str], address: str
    ) -> None:
        """Answer again if nobody heard, or NATS went away meanwhile: the caller may only be reconnecting."""
        unheard = self._unheard[address]
        for _ in range(_TELLINGS if message.reply else 0):
            await asyncio.sleep(BEAT_S)
            stayed = self._client.is_connected and self._client.stats["reconnects"] == connection
            if stayed and not unheard.is_set():
                return
            unheard.clear()
            connection = await self._say(message, body, headers, address)

    async def _beat(self, message: Msg, address: str) -> None:
        while message.reply:
            with suppress(NatsError, OSError):
                if self._client.is_connected:
                    await self._client.publish(message.reply, b"", address, {PROGRESS: WORKING})
            await asyncio.sleep(BEAT_S)

    def _stopped(self, address: str) -> ParacleError:
        name = self._function.name
        if address in self._begun:
            return EffectInDoubt(f"the worker of {name!r} was stopped while it worked")
        return ToolUnavailable(f"the worker of {name!r} was stopped before it began; ask again")

    async def _answer(self, message: Msg, address: str) -> tuple[bytes, dict[str, str]]:
        call = ToolCall.read(message.subject, message.headers)
        name, thread = self._function.name, Thread(self._threads)
        held: list[asyncio.Semaphore] = []
        try:
            for slots in self._slots:
                await slots.acquire()
                held.append(slots)
            if call.late(datetime.now(UTC)):
                return _problem(ToolUnavailable(f"the time for this call of {name!r} was over before it began"))
            self._begun.add(address)
            return await self._function.answer(message.data, call, thread), {}
        except self._function.meant as error:
            return _problem(error)
        except Exception as error:  # noqa: BLE001  # a tool's bug is an answer, not the end of the worker
            _log.exception("%s %s failed", self._function.what, name)
            broke = InternalError(
                f"{self._function.what} {name!r} broke: {type(error).__name__}; its worker's log has the details"
            )
            return _problem(broke)
        finally:
            thread.afterwards(lambda: _release(held))

    async def _respond(self, message: Msg, body: bytes, headers: Mapping[str, str], address: str = "") -> None:
        if not message.reply:
            return
        if len(body) + _HEADERS > self._client.max_payload:
            large = PayloadTooLarge(
                f"{self._function.what} {self._function.name!r} gave {len(body):,} bytes; give a reference instead"
            )
            body, headers = _problem(large)
        try:
            await self._client.publish(message.reply, body, address, dict(headers))
        except (NatsError, OSError) as error:
            _log.warning("cannot answer a call of %s: %s", self._function.name, type(error).__name__)


def _release(held: Sequence[asyncio.Semaphore]) -> None:
    for slots in held:
        slots.release()


def _problem(error: ParacleError) -> tuple[bytes, dict[str, str]]:
    return json.dumps(error.to_problem()).encode(), {ERROR: error.code}
