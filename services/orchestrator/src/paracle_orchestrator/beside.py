"""Commands that are obeyed beside their mailbox, so that nothing else in it waits for them.

They take their time, wait for what the others do not need, or take another command through the same mailbox. Each
stays unacked until it is done, so after a crash it comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Self

from paracle_chassis import outages
from paracle_chassis.delivery import Delivery
from paracle_domain.errors import ParacleError
from paracle_domain.messages import Message

PULSE_S: Final = 1.5
_RETRY_S: Final = 1.0

log = logging.getLogger(__name__)


class Beside:
    """What is under way. A resource of the service: what is not done when it ends comes to another replica."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._under_way)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(tuple(self._under_way))

    def take(self, delivery: Delivery, work: Callable[[], Awaitable[Message | None]]) -> asyncio.Task[None]:
        """Answer `delivery` with what `work` comes to, unless that has answered; it is no longer the mailbox's."""
        delivery.keep()
        task = asyncio.get_running_loop().create_task(self._carry_out(delivery, work), name=delivery.envelope.id)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _carry_out(self, delivery: Delivery, work: Callable[[], Awaitable[Message | None]]) -> None:
        async def attempt() -> Message | None:
            try:
                return await work()
            except Exception:  # whatever it is, some of it may be done: whoever tries next has it `again`
                delivery.handed_over += 1
                raise

        pulse = asyncio.get_running_loop().create_task(_pulse(delivery))
        try:
            answer = await outages.outlast(attempt, "a command")  # given back, it is given up some day
        except Exception as error:  # as in a mailbox: what cannot be done now comes again
            if isinstance(error, ParacleError) and not error.retryable:
                await delivery.refuse(error)
                await delivery.ack()
                return
            if isinstance(error, ParacleError):
                log.warning("a command waits: %s", error)
            else:
                log.exception("a command broke off")
            await delivery.nak(_RETRY_S)
        else:
            if answer is not None:
                await delivery.reply(answer)
            await delivery.ack()
        finally:
            pulse.cancel()


async def _pulse(delivery: Delivery) -> None:
    """Keep the mailbox from giving it to somebody else meanwhile."""
    while True:
        await asyncio.sleep(PULSE_S)
        await delivery.in_progress()
