"""One call of a tool, from its message to its answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from paracle_client.worker.functions import Function
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


class Serving:
    """Answers the calls of one function, with signs of life while it works.

    `slots` are what all functions share; calls beyond them wait, and are not carried out once their time is over.
    """

    def __init__(
        self, client: Client, function: Function, slots: asyncio.Semaphore, threads: Executor, hangups: str
    ) -> None:
        self._client = client
        self._function = function
        own = function.concurrency
        self._slots = (slots,) if own is None else (asyncio.Semaphore(own), slots)
        self._threads = threads
        self._hangups = hangups
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._begun: set[str] = set()
        self._numbers = 0

    async def receive(self, message: Msg) -> None:
        """Take a call; it is worked on beside others."""
        self._numbers += 1
        address = f"{self._hangups}.{self._function.name}.{self._numbers}"
        task = asyncio.create_task(self._serve(message, address), name=address)
        self._calls[address] = task
        task.add_done_callback(lambda _: self._calls.pop(address, None))

    def hang_up(self, address: str) -> None:
        """Nobody waits for the call with this address any more."""
        if (task := self._calls.get(address)) is not None:
            task.cancel()

    async def finish(self, within_s: float) -> None:
        """Wait for what is in hand, and cut off what takes longer."""
        if not self._calls:
            return
        _, late = await asyncio.wait(list(self._calls.values()), timeout=within_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

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
        await self._respond(message, body, headers)

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
        name = self._function.name
        try:
            async with AsyncExitStack() as held:
                for slots in self._slots:
                    await held.enter_async_context(slots)
                if call.late(datetime.now(UTC)):
                    return _problem(ToolUnavailable(f"the time for this call of {name!r} was over before it began"))
                self._begun.add(address)
                return await self._function.answer(message.data, call, self._threads), {}
        except ParacleError as error:
            return _problem(error)
        except Exception as error:  # noqa: BLE001  # a tool's bug is an answer, not the end of the worker
            _log.exception("tool %s failed", name)
            broke = InternalError(f"tool {name!r} broke: {type(error).__name__}; its worker's log has the details")
            return _problem(broke)

    async def _respond(self, message: Msg, body: bytes, headers: Mapping[str, str]) -> None:
        if not message.reply:
            return
        try:
            await self._client.publish(message.reply, body, headers=dict(headers))
        except MaxPayloadError:
            large = PayloadTooLarge(f"tool {self._function.name!r} gave {len(body):,} bytes; give a reference instead")
            await self._respond(message, *_problem(large))
        except (NatsError, OSError) as error:
            _log.warning("cannot answer a call of %s: %s", self._function.name, type(error).__name__)


def _problem(error: ParacleError) -> tuple[bytes, dict[str, str]]:
    return json.dumps(error.to_problem()).encode(), {ERROR: error.code}
