"""Wake-ups of runs: claimed from the store, sent through the mailbox like everything else that changes a run.

Going through the mailbox makes a tick as durable as any other message: it is acked only when what it led to is
committed and published. A claim moves the run's wake-up on by `RETRY`, so that a tick that is lost with its stream is
sent anew.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.event_store import Due, EventStore
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.messages import Message
from paracle_orchestrator import telemetry
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.outgoing import SOURCE
from paracle_orchestrator.ports import Clock

RETRY: Final = timedelta(seconds=10)
LIMIT: Final = 1_000
LOOK_EVERY_S: Final = 0.25
_FINEST_S: Final = 0.02
PRINCIPAL: Final = "orchestrator"


class RunTick(Message, type_name="run.tick"):
    """The time at which a run wanted to be woken has come. On subject `result.{run_id}`."""

    run_id: str


class Ticker:
    """Sends a `RunTick` to every run whose `wake_at` has come. Every replica has one; they share the work.

    `round` is for a `Background`: runs must not wait for a person, whatever becomes of one look.
    """

    def __init__(self, store: EventStore, host: RunHost, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._host = host
        self._bus = bus
        self._clock = clock

    async def round(self) -> float:
        """Tick what is due now; the seconds until the next look."""
        return 0 if await self.fire() == LIMIT else self._pause()

    async def fire(self) -> int:
        """Tick what is due now; how many runs that were."""
        now = self._clock()
        self._host.soonest_wake = None
        due = await self._store.claim_due(now, now + RETRY, LIMIT)
        if due:
            telemetry.TICKS.add(len(due))
            await self._bus.publish([_tick(run, now) for run in due])
        return len(due)

    def _pause(self) -> float:
        """Seconds to the next look: sooner than usual if this replica knows of something sooner."""
        soonest = self._host.soonest_wake
        if soonest is None:
            return LOOK_EVERY_S
        return min(LOOK_EVERY_S, max(_FINEST_S, (soonest - self._clock()).total_seconds()))


def _tick(run: Due, now: datetime) -> Outgoing:
    context = Context(run.tenant, principal=PRINCIPAL, correlation_id=run.id)
    envelope = Envelope.wrap(RunTick.type_name, SOURCE, context, id=f"{run.id}.tick.{int(now.timestamp() * 1000)}")
    return Outgoing(subjects.result(run.tenant, run.id), RunTick(run_id=run.id), envelope)
