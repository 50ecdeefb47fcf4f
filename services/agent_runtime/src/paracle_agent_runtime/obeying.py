"""Commands of the agent runtime's one mailbox: some stop tasks, the others are about effects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from paracle_agent_runtime.effects import EffectDesk
from paracle_agent_runtime.service import Runtime
from paracle_chassis.delivery import Delivery
from paracle_domain.task.effects import ResolveEffect


class Obeying:
    """The mailbox of `cmd.agent_runtime.*`."""

    def __init__(self, runtime: Runtime, desk: EffectDesk) -> None:
        self._runtime = runtime
        self._desk = desk

    async def obey(self, batch: Sequence[Delivery]) -> None:
        """Have each command obeyed by whom it is for; tasks are stopped first."""
        mine = [delivery for delivery in batch if delivery.subject.rpartition(".")[2] == ResolveEffect.verb]
        rest = [delivery for delivery in batch if delivery not in mine]
        await self._runtime.cancel(rest)
        await asyncio.gather(*(self._desk.obey(delivery) for delivery in mine))
