"""Ended runs are dropped when their time is over: batch by batch, by whichever replica comes to it.

How long a run is kept is said by its workflow (`retention`, as pinned), else for its tenant, else for all; else it is
for ever. A batch is small, and the pause after it as long as it took, so that what lives is not held up.

A run goes by itself: its children and forks have histories of their own and go when their time is over, but for a
child whose parent is under way. What was dropped is told in one event for each batch, published before the batch
is gone: after a crash in between it is told twice, and never not at all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from paracle_chassis.bus import Bus, Outgoing
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.ids import derive_id
from paracle_domain.machine import EventRecord
from paracle_domain.run.purge import ENTITY, RunsPurged
from paracle_orchestrator import telemetry
from paracle_orchestrator.outgoing import SOURCE
from paracle_orchestrator.ports import Clock, Ended, Retention, RetentionPolicy
from paracle_orchestrator.ticks import PRINCIPAL

RUNS: Final = 200
EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long ended runs are kept, in seconds; `None`: for ever. `least_s` holds whatever anybody says.

    Until then what is under way of a run has settled: a start command that is delivered again, or an event that is
    fetched, finds the run there.
    """

    for_s: float | None = None
    of_tenant: Mapping[str, float | None] = field(default_factory=dict)
    least_s: float = 600.0

    def ended_before(self, policy: RetentionPolicy, now: datetime) -> datetime | None:
        """Runs under `policy` that had ended by then are to go; `None`: none of them."""
        keep_s = self.of_tenant.get(policy.tenant, self.for_s) if policy.keep_s is None else policy.keep_s
        return None if keep_s is None else now - timedelta(seconds=max(keep_s, self.least_s))


class Purger:
    """Drops what is due. `round` is for a `Background`; every replica has one, and they share the work."""

    def __init__(self, retention: Retention, keeping: Keeping, bus: Bus, clock: Clock, *, every_s: float) -> None:
        self._retention = retention
        self._keeping = keeping
        self._bus = bus
        self._clock = clock
        self._every_s = every_s

    async def round(self) -> float:
        """Drop a batch of each policy; the seconds until the next round."""
        began = time.monotonic()
        more = False
        for policy in await self._retention.policies():
            before = self._keeping.ended_before(policy, self._clock())
            if before is not None:
                more |= await self._purge(policy, before)
        if more:
            return time.monotonic() - began
        await self._retention.forget_plans()
        return self._every_s

    async def _purge(self, policy: RetentionPolicy, before: datetime) -> bool:
        """Whether there was a run to drop: then there may be more."""

        async def tell(runs: Sequence[Ended]) -> None:
            await self._bus.publish([_told(policy, before, runs, self._clock())])

        purged = await self._retention.purge(policy, before, RUNS, EVENTS, tell)
        telemetry.PURGED.add(purged)
        return purged > 0


def _told(policy: RetentionPolicy, before: datetime, runs: Sequence[Ended], now: datetime) -> Outgoing:
    """The event of a batch; its id follows from the runs, so that the same batch is the same event."""
    name = derive_id("evt", runs[0].id, *(run.id for run in runs))
    said = RunsPurged(
        runs=tuple(run.id for run in runs), ended_before=before.isoformat(), workflow_keep_s=policy.keep_s
    )
    data = said.model_dump(mode="json", exclude_none=True)
    record = EventRecord(entity=ENTITY, id=name, seq=1, type=said.type_name, at=now, data=data)
    context = Context(policy.tenant, PRINCIPAL, correlation_id=name)
    envelope = Envelope(record.message_id(policy.tenant), said.type_name, SOURCE, context, now)
    return Outgoing(subjects.evt(policy.tenant, ENTITY, name, said.type_name.replace(".", "_")), record, envelope)
