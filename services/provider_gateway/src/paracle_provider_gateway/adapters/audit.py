"""What guards did, as events for the audit log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from paracle_chassis.bus import Bus, Outgoing
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.ids import new_id
from paracle_domain.inference.request import Complete
from paracle_domain.machine import EventRecord
from paracle_provider_gateway.guards.rails import Hit

SOURCE: Final = "paracle/provider_gateway"
ENTITY: Final = "guard"
AGAIN_EVERY_S: Final = 5.0
_IN_DOUBT_S: Final = 60.0
_KEPT: Final = 10_000


class BusAudit:
    """`Audit`: a history of its own for each time that guards of a call found something; `round` is of a `Background`.

    Its events are in their stream when the call goes on, so nothing passes of which the audit log hears nothing. On a
    single server that stream is written behind: what was told lately is told again after NATS may have been away.
    """

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._clock = clock
        self._told = deque[tuple[float, Outgoing]](maxlen=_KEPT)
        self._in_doubt = False

    def doubt(self) -> None:
        """What was told lately may be lost: the next round tells it again."""
        self._in_doubt = True

    async def round(self) -> None:
        """Tell again what may be lost."""
        if self._in_doubt:
            self._forget()
            await self._bus.publish([message for _, message in self._told])
            self._in_doubt = False

    async def tell(self, hits: Sequence[Hit], request: Complete, context: Context) -> None:
        """See `Audit.tell`."""
        at, identity, run_id = datetime.now(UTC), new_id("grd"), request.labels.run_id
        records = [
            EventRecord(
                entity=ENTITY,
                id=identity,
                seq=seq,
                type=f"guard.{hit.verdict.outcome}",
                at=at,
                cause=request.call_id,
                correlation_id=run_id,
                data=_told(hit, request),
            )
            for seq, hit in enumerate(hits, 1)
        ]
        record = EventRecord.together(records)
        subject = subjects.evt(context.tenant, ENTITY, identity, hits[-1].verdict.outcome)
        envelope = Envelope.wrap(record.type_name, SOURCE, context, id=record.message_id(context.tenant))
        message = Outgoing(subject, record, envelope)
        await self._bus.publish([message])
        self._forget()
        self._told.append((self._clock(), message))

    def _forget(self) -> None:
        while self._told and self._told[0][0] < self._clock() - _IN_DOUBT_S:
            self._told.popleft()


def _told(hit: Hit, request: Complete) -> dict[str, Any]:
    """Who found what: kinds and counts, never the text."""
    labels = request.labels
    named: dict[str, Any] = {
        "guard": hit.guard,
        "type": hit.type,
        "direction": hit.direction,
        "found": dict(hit.verdict.found),
        "agent": labels.agent,
        "run_id": labels.run_id,
        "task_id": labels.task_id,
        "step": labels.step,
        "call_id": request.call_id,
        "model": request.model,
    }
    return {name: value for name, value in named.items() if value is not None}
