"""Commands of the orchestrator's one mailbox: some are about triggers, the others about runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from paracle_chassis.delivery import Delivery
from paracle_orchestrator.service import Orchestrator
from paracle_orchestrator.triggers.service import Triggers


class Obeying:
    """The mailbox of `cmd.orchestrator.*`."""

    def __init__(self, runs: Orchestrator, triggers: Triggers) -> None:
        self._runs = runs
        self._triggers = triggers

    async def obey(self, batch: Sequence[Delivery]) -> None:
        """Have each command obeyed by whom it is for. What could not be obeyed now holds up no other."""
        verbs = self._triggers.verbs
        mine = [delivery for delivery in batch if delivery.subject.rpartition(".")[2] in verbs]
        if not mine:
            await self._runs.obey(batch)
            return
        rest = [delivery for delivery in batch if delivery.subject.rpartition(".")[2] not in verbs]
        done = await asyncio.gather(
            self._runs.obey(rest), *(self._triggers.obey(delivery) for delivery in mine), return_exceptions=True
        )
        failures = [error for error in done if isinstance(error, BaseException)]
        if not failures:
            return
        for delivery, error in zip(mine, done[1:], strict=True):
            if error is None and not delivery.kept:
                await delivery.ack()
        if done[0] is None:
            for delivery in rest:
                if not delivery.kept:
                    await delivery.ack()
        raise failures[0]
