"""Events about new revisions, on the bus."""

from __future__ import annotations

from collections.abc import Sequence

from paracle_chassis.bus import Bus, Outgoing
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.machine import EventRecord
from paracle_domain.registry import SpecsChanged, changed_subject
from paracle_registry.ports import Revision
from paracle_registry.telemetry import SOURCE


class BusAnnouncer:
    """An `Announcer` that publishes `agent.revised`, `tool.revised` and `workflow.revised`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def announce(self, revisions: Sequence[tuple[str, Revision]]) -> None:
        """See `Announcer.announce`."""
        await self._bus.publish([_event(tenant, revision) for tenant, revision in revisions])


class BusTeller:
    """Tells whoever remembers what the registry said that it may no longer be so."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def tell(self, call: Context) -> None:
        """On return, nats-server has it, or will have it before whatever else this connection says."""
        message = SpecsChanged()
        envelope = Envelope.wrap(message.type_name, SOURCE, call)
        await self._bus.broadcast(Outgoing(changed_subject(call.tenant), message, envelope))


def _event(tenant: str, revision: Revision) -> Outgoing:
    entity = revision.kind.lower()
    record = EventRecord(
        entity=entity,
        id=revision.name,
        seq=revision.revision,
        type=f"{entity}.revised",
        at=revision.created_at,
        data={
            "digest": revision.digest,
            "author": revision.author,
            "version": revision.version,
            "deleted": revision.deleted,
        },
    )
    context = Context(tenant, principal=revision.author)
    subject = subjects.evt(tenant, entity, revision.name, "revised")
    return Outgoing(subject, record, Envelope.wrap(record.type_name, SOURCE, context, id=record.message_id(tenant)))
