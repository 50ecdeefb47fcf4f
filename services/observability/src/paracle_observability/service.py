"""Use cases of observability: keep every event once, answer questions about them, find and mend what is missing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from paracle_domain.audit import AuditPage, GetAudit, GetUsage, UsageReport
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import MalformedMessage, NotFound, ParacleError
from paracle_domain.machine import EventRecord
from paracle_observability import telemetry
from paracle_observability.ports import EventLog, History, Suspect
from paracle_observability.projections import EventKey, EventRow, messages, spending, usage_report, who
from paracle_observability.rollcall import RollCall

SUSPECTS: Final = 100

log = logging.getLogger(__name__)


class Published(Protocol):
    """A published event, as the mailbox hands it over."""

    @property
    def subject(self) -> str: ...
    @property
    def envelope(self) -> Envelope: ...
    @property
    def body(self) -> bytes: ...
    async def term(self, error: ParacleError) -> None: ...


class Observability:
    """The audit log and its projections; `owners` are asked for the missing events of their kind of entity."""

    def __init__(self, events: EventLog, owners: Mapping[str, History], rolls: RollCall) -> None:
        self._events = events
        self._owners = owners
        self._rolls = rolls

    async def store(self, batch: Sequence[Published]) -> None:
        """Keep every event of `batch`; what is no event at all goes to the dead letters with the reason."""
        rows: dict[EventKey, EventRow] = {}
        for delivery in batch:
            try:
                principal = delivery.envelope.context.principal
                row = EventRow.read(delivery.subject, principal, delivery.body)
            except MalformedMessage as error:
                telemetry.REFUSED.add(1)
                await delivery.term(error)
            else:
                rows.setdefault(row.key, row)
        await self._keep(list(rows.values()))

    async def get_audit(self, request: GetAudit, call: Context) -> AuditPage:
        """A page of stored events; one more than asked for is read, to know whether there is a next page."""
        more = request.limit + 1
        if request.run_id is not None:
            entity, entity_id = "run", request.run_id
            found = await self._events.of_run(call.tenant, request.run_id, request.after, more)
        else:
            entity, entity_id = request.entity or "", request.id or ""
            found = await self._events.of_entity(call.tenant, entity, entity_id, request.after, more)
        page = tuple(found[: request.limit])
        return AuditPage(
            events=page,
            next_cursor=page[-1].position if len(found) > len(page) else None,
            incomplete=await self._events.is_lost(call.tenant, entity, entity_id),
        )

    async def get_usage(self, request: GetUsage, call: Context) -> UsageReport:
        """What a run used; a run that called no model used nothing, and so did one that nobody knows."""
        return usage_report(request.run_id, await self._events.usage(call.tenant, request.run_id))

    async def sweep(self, quiet_s: float) -> float | None:
        """Look into histories that may miss events, and fetch what is missing: one round.

        A crash between the owner's commit and its publication can leave such a hole, as can the loss of a stream.
        Returns when to look again if that is soon: something is there of which nothing has come.
        """
        absent = await self._rolls.round(quiet_s)
        more = True
        while more:
            suspects = await self._events.suspects(quiet_s, SUSPECTS)
            for suspect in suspects:
                await self._look_into(suspect)
            more = len(suspects) == SUSPECTS
        gaps = await self._events.gaps()
        telemetry.MISSING.record(gaps.missing)
        telemetry.LOST.record(gaps.lost)
        if gaps.missing:
            log.warning("events are missing", extra={"missing": gaps.missing, "histories": gaps.histories})
        return quiet_s if absent else None

    async def _look_into(self, suspect: Suspect) -> None:
        owner = self._owners.get(suspect.entity)
        try:
            mended = await self._fetch(suspect, owner)
        except NotFound as error:
            log.warning("what is missing of a history is lost", extra=_told(suspect) | {"why": error.message})
            await self._events.give_up(suspect)
            return
        except ParacleError as error:
            log.warning("cannot fetch missing events now", extra=_told(suspect) | {"error": error.code})
            return
        if mended:
            telemetry.MENDED.add(mended)
            log.warning("fetched events that were never received", extra=_told(suspect) | {"mended": mended})

    async def _fetch(self, suspect: Suspect, owner: History | None) -> int:
        """Store the entity's events from the first missing one on, as they would have come: message by message.

        Raises
        ------
        NotFound
            If nobody knows them.
        """
        if owner is None:
            raise NotFound(f"nobody keeps histories of entity {suspect.entity!r} to ask for what is missing")
        after, mended, more = suspect.first_missing - 1, 0, True
        waiting: list[EventRecord] = []
        while more:
            records, more = await owner.after(suspect.tenant, suspect.id, after)
            more = more and bool(records)
            waiting += records
            whole = messages(waiting)
            waiting = whole.pop() if more else []  # the last one may go on in the next answer
            mended += await self._keep([EventRow.of(suspect.tenant, found, who(found)) for found in whole])
            after = records[-1].seq if records else after
        return mended

    async def _keep(self, rows: Sequence[EventRow]) -> int:
        if not rows:
            return 0
        spent, unread = spending(rows)
        for row, error in unread:
            telemetry.UNCOUNTED.add(1)
            log.error(
                "event is kept, but its usage cannot be read",
                extra={"event_id": f"{row.id}.{row.seq}", "event_type": row.type, "problems": error.error_count()},
            )
        new = await self._events.store(rows, spent)
        telemetry.STORED.add(new)
        telemetry.KNOWN.add(sum(row.events for row in rows) - new)
        return new


def _told(suspect: Suspect) -> dict[str, object]:
    return {
        "tenant": suspect.tenant,
        "entity": suspect.entity,
        "entity_id": suspect.id,
        "missing": suspect.missing,
        "first_missing": suspect.first_missing,
    }
