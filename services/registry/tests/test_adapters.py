"""Events on the bus, and the composed service over real NATS and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from nats.aio.client import Client
from registry_samples import ALL

from paracle_chassis.bus import Outgoing
from paracle_chassis.provision import Plan as Provisioning
from paracle_chassis.provision import provision
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import OpenBus, migrated
from paracle_domain.envelope import Context
from paracle_domain.errors import SpecInvalid
from paracle_domain.machine import EventRecord
from paracle_domain.registry import ApplyManifests, Kind, ResolvePlan
from paracle_registry.adapters.bus import BusAnnouncer
from paracle_registry.app import create_app
from paracle_registry.ports import Revision
from paracle_registry.settings import Settings


class Published:
    def __init__(self) -> None:
        self.messages: list[Outgoing] = []

    async def publish(self, messages: list[Outgoing]) -> None:
        self.messages += messages


async def test_events_say_what_was_revised_by_whom() -> None:
    bus = Published()
    at = datetime(2026, 1, 1, tzinfo=UTC)
    kinds: dict[Kind, bool] = {"Agent": True, "Tool": False}
    revisions = [("acme", Revision(kind, "x", 2, {}, "sha256:0", "ann", at, 7, gone)) for kind, gone in kinds.items()]
    await BusAnnouncer(bus).announce(revisions)  # type: ignore[arg-type,unused-ignore]
    one, other = bus.messages
    assert one.subject == "paracle.v1.acme.evt.agent.x.revised"
    assert one.envelope.id != other.envelope.id
    assert one.envelope.context.principal == "ann"
    record = one.message
    assert isinstance(record, EventRecord)
    assert (record.type, record.id, record.seq) == ("agent.revised", "x", 2)
    assert record.data == {"digest": "sha256:0", "author": "ann", "version": 7, "deleted": True}


@pytest.mark.connected
async def test_the_whole_service_over_nats_and_postgres(
    nats_url: str, nats_client: Client, open_bus: OpenBus, postgres_dsn: str
) -> None:
    await migrated(postgres_dsn, "paracle_registry")
    await provision(Provisioning(nats_url=nats_url, services=["registry"]))
    settings = Settings(nats_url=nats_url, postgres_dsn=postgres_dsn, outbox_interval_s=0.1)
    call = Context("default", principal="ann")
    caller = await open_bus("tester")
    async with create_app(settings).running():
        applied = await caller.call(ApplyManifests(text=ALL, source="t.yaml"), call)
        assert [item.change for item in applied.results] == ["created"] * 4
        answer = await caller.call(ResolvePlan(workflow="triage"), call)
        assert answer.plan is not None
        known = await caller.call(ResolvePlan(workflow="triage", known_digest=answer.digest), call)
        assert known.plan is None
        with pytest.raises(SpecInvalid) as refused:
            await caller.call(ApplyManifests(text=ALL.replace("read-mail,", "red-mail,"), source="t.yaml"), call)
        assert refused.value.problems[0].path == "t.yaml#4 spec.steps[0].tool"

        async def stored() -> bool:
            return (await nats_client.jetstream().stream_info("EVENTS")).state.messages == 4

        await eventually(stored)
