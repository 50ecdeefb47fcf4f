"""Starting what triggers decided: through the same command as everybody else, until it is answered.

The command's run id follows from what caused the start, so that sending it again, by this replica or another one, after
a crash at whatever moment, starts nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.errors import DeadlineExceeded, ParacleError, Unavailable
from paracle_domain.run.commands import CancelRun, RunAccepted
from paracle_orchestrator import telemetry
from paracle_orchestrator.ports import Clock
from paracle_orchestrator.triggers.ports import Start, TriggerStore

LEASE: Final = timedelta(seconds=15)
"""After this another replica attempts what one has claimed: more than the time of one attempt."""
_LIMIT: Final = 100
_TIMEOUT_S: Final = 10.0

log = logging.getLogger(__name__)


class Starter:
    """Attempts starts."""

    def __init__(self, store: TriggerStore, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock

    async def drain(self) -> None:
        """Attempt all that is pending; what cannot be started now is left for later."""
        while starts := await self._claim():
            await asyncio.gather(*map(self._attempt, starts))

    async def _claim(self) -> Sequence[Start]:
        now = self._clock()
        return await self._store.claim_pending(now, now + LEASE, _LIMIT)

    async def _attempt(self, start: Start) -> None:
        try:
            await self.settle(start, Context(start.tenant))
        except ParacleError as error:
            if error.retryable:
                log.warning("a trigger's run cannot be started now", extra=_told(start, error))

    async def settle(self, start: Start, context: Context) -> RunAccepted:
        """Start the run, and keep how that ended.

        Raises
        ------
        ParacleError
            What it was refused with; a retryable one leaves it pending.
        """
        try:
            for run_id in start.cancels:
                await self._cancel(start, run_id, context)
            accepted = await self.begin(start, context)
        except ParacleError as error:
            if not error.retryable:
                log.warning("a trigger's run was refused", extra=_told(start, error))
                await self._store.settle(start, error.to_info())
                telemetry.TRIGGERED.add(1, {"cause": start.cause.value, "outcome": "failed"})
            raise
        await self._store.settle(start, None)
        telemetry.TRIGGERED.add(1, {"cause": start.cause.value, "outcome": "started"})
        return accepted

    async def begin(self, start: Start, context: Context) -> RunAccepted:
        """Send the start command; it is on disk once this returns.

        Raises
        ------
        Unavailable
            If nobody answers: what a start needs is away.
        """
        assert start.command is not None
        try:
            told = await self._bus.command(start.command, acting(start, context), id=start.run_id, timeout_s=_TIMEOUT_S)
        except DeadlineExceeded as error:
            raise Unavailable(f"run {start.run_id} cannot be started now: {error.message}") from error
        return RunAccepted.model_validate(told)

    async def _cancel(self, start: Start, run_id: str, context: Context) -> None:
        """Cancel a run that must make way; one that is over, or gone, already has."""
        command = CancelRun(run_id=run_id, reason=f"trigger {start.trigger} starts {start.run_id} in its place")
        try:
            await self._bus.command(
                command, acting(start, context), id=f"{start.run_id}.cancel.{run_id}", timeout_s=_TIMEOUT_S
            )
        except ParacleError as error:
            if error.retryable:
                raise


def acting(start: Start, context: Context) -> Context:
    """On whose behalf a trigger's commands are: its own."""
    return Context(
        start.tenant,
        principal=f"trigger:{start.trigger}",
        correlation_id=start.run_id,
        causation_id=context.causation_id,
        traceparent=context.traceparent,
    )


def moment_ms(time: datetime) -> int:
    """`time` as the time of an id."""
    return int(time.timestamp() * 1000)


def _told(start: Start, error: ParacleError) -> dict[str, str]:
    return {"tenant": start.tenant, "trigger": start.trigger, "run_id": start.run_id, "error": str(error)}
