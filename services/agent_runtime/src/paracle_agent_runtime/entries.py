"""What a process has in hand."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from paracle_agent_runtime.actor import TaskActor
from paracle_agent_runtime.pools import Pool
from paracle_agent_runtime.sessions import Place
from paracle_chassis.delivery import Delivery
from paracle_domain.envelope import Context
from paracle_domain.task.messages import Task


@dataclass(eq=False, slots=True)
class Entry:
    """A task that this process has, what it came with, and the coroutine that works on it.

    `deliveries` are those of the last message that brought it; more than one if that was delivered again. `came_again`:
    it was brought more than once since it is here. `plain`: it is at work, and leaves no journal.
    """

    task: Task
    context: Context
    cause: str
    deliveries: list[Delivery]
    pool: Pool
    place: Place | None = None
    started: float = field(default_factory=time.monotonic)
    work: asyncio.Task[None] | None = None
    actor: TaskActor | None = None
    plain: bool = False
    cancelled: bool = False
    came_again: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Whose task it is, and which."""
        return self.context.tenant, self.task.task_id

    @property
    def name(self) -> str:
        """What processes call it among each other."""
        return f"{self.context.tenant}/{self.task.task_id}"

    @property
    def again(self) -> bool:
        """Whether it came before, here or elsewhere, as far as what brought it can tell."""
        return self.came_again or self.cause != self.task.task_id or self.deliveries[0].deliveries > 1

    @property
    def interruptible(self) -> bool:
        """Whether it can be stopped here and done elsewhere without leaving an effect in doubt."""
        return self.actor is None or self.actor.interruptible

    @property
    def for_people(self) -> bool:
        """Whether people are to decide about something before it has ended."""
        return self.actor is not None and self.actor.for_people

    def stop(self) -> None:
        if self.work is not None:
            self.work.cancel()

    async def come_again(self, delivery: Delivery) -> None:
        """It was handed out, or delivered, once more; what came last is in its stream for sure, and stands for it.

        A run hands out again what takes long. Kept as well, such copies would use up what the pool may have unacked.
        """
        delivery.keep()
        copies = [one for one in self.deliveries if one.stream_seq != delivery.stream_seq]
        self.deliveries[:] = [*(one for one in self.deliveries if one not in copies), delivery]
        self.came_again = True
        await Delivery.ack_all(copies)
