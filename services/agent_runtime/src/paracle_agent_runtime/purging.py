"""The tasks of runs that are not kept any more are not kept either.

They hold what was said to models, and what they answered. And a run's id may begin another run once the first one is
gone: its tasks have the same ids, and must not find the results of the first one's.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from paracle_agent_runtime import telemetry
from paracle_agent_runtime.ports import TaskShelf
from paracle_chassis.delivery import Delivery
from paracle_domain.errors import MalformedMessage, from_validation
from paracle_domain.machine import EventRecord
from paracle_domain.run.purge import RunsPurged


class Purging:
    """Hears which runs were dropped."""

    def __init__(self, shelf: TaskShelf) -> None:
        self._shelf = shelf

    async def follow(self, batch: Sequence[Delivery]) -> None:
        """Drop the tasks of the runs that each of `batch` tells of. Telling it again changes nothing."""
        for delivery in batch:
            record = delivery.decode(EventRecord)
            try:
                purged = RunsPurged.model_validate(record.data)
            except ValidationError as error:
                wrong = from_validation(error, RunsPurged.type_name)
                await delivery.term(MalformedMessage(wrong.message, path=wrong.path))
                continue
            telemetry.tasks_dropped.add(await self._shelf.drop(delivery.tenant, purged.runs))
            await delivery.ack()
