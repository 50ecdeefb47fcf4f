"""Commands of the agent runtime's one mailbox: some stop tasks, others are about effects or pools."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from paracle_agent_runtime.effects import EffectDesk
from paracle_agent_runtime.pool_desk import PoolDesk
from paracle_agent_runtime.service import Runtime
from paracle_chassis.delivery import Delivery
from paracle_domain.task.effects import ResolveEffect
from paracle_domain.task.pools import DrainPool, ResumePool

_OF_POOLS: Final = {DrainPool.verb, ResumePool.verb}


class Obeying:
    """The mailbox of `cmd.agent_runtime.*`."""

    def __init__(self, runtime: Runtime, desk: EffectDesk, pools: PoolDesk) -> None:
        self._runtime = runtime
        self._desk = desk
        self._pools = pools

    async def obey(self, batch: Sequence[Delivery]) -> None:
        """Have each command obeyed by whom it is for; tasks are stopped first."""
        by_verb = [(delivery.subject.rpartition(".")[2], delivery) for delivery in batch]
        effects = [delivery for verb, delivery in by_verb if verb == ResolveEffect.verb]
        pools = [delivery for verb, delivery in by_verb if verb in _OF_POOLS]
        await self._runtime.cancel([each for each in batch if each not in effects and each not in pools])
        await asyncio.gather(*map(self._desk.obey, effects), *map(self._pools.obey, pools))
