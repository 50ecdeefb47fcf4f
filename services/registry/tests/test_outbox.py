"""The outbox: nothing committed stays untold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from registry_memory import MemorySpecStore
from registry_samples import ALL, BASE

from paracle_chassis.background import Background
from paracle_chassis.testing.eventually import eventually
from paracle_domain.envelope import Context
from paracle_domain.errors import Unavailable
from paracle_domain.registry import ApplyManifests
from paracle_registry.outbox import IN_DOUBT, Outbox
from paracle_registry.ports import SpecStore
from paracle_registry.service import RegistryService

CALL = Context("acme", principal="ann")
AT = datetime(2026, 1, 1, tzinfo=UTC)


async def test_what_was_committed_before_a_crash_is_told_after_it(store: SpecStore, announcer) -> None:
    await RegistryService(store, lambda: None).apply(ApplyManifests(text=ALL), CALL)
    outbox = Outbox(store, announcer)
    await outbox.drain()
    await outbox.drain()
    assert sorted((tenant, item.name, item.revision) for tenant, item in announcer.heard) == [
        ("acme", "base", 1), ("acme", "classify", 1), ("acme", "read-mail", 1), ("acme", "triage", 1),
    ]  # fmt: skip


async def test_what_was_told_lately_is_told_again_when_it_may_be_lost(store: SpecStore, announcer) -> None:
    times = iter([AT - IN_DOUBT - timedelta(seconds=1), AT - IN_DOUBT])
    registry = RegistryService(store, lambda: None, lambda: next(times))
    await registry.apply(ApplyManifests(text=ALL), CALL)
    await registry.apply(ApplyManifests(text=BASE.replace("careful", "kind")), CALL)
    outbox = Outbox(store, announcer, lambda: AT)
    await outbox.drain()
    announcer.heard.clear()
    outbox.doubt()
    announcer.failing_with = [Unavailable("NATS is still away")]
    with pytest.raises(Unavailable):
        await outbox.drain()
    await outbox.drain()
    assert [(item.name, item.revision) for _, item in announcer.heard] == [("base", 2)]
    await Outbox(store, announcer, lambda: AT).drain()  # a process that has just started doubts, too
    assert [(item.name, item.revision) for _, item in announcer.heard] == [("base", 2)] * 2


async def test_it_tells_at_once_and_again_after_an_outage(announcer) -> None:
    store = MemorySpecStore()
    telling = Background("outbox", Outbox(store, announcer).drain, every_s=60)
    announcer.failing_with = [Unavailable("NATS is away")]
    async with telling:
        registry = RegistryService(store, telling.wake)
        await registry.apply(ApplyManifests(text=ALL), CALL)
        await eventually(lambda: not announcer.failing_with)
        await registry.apply(ApplyManifests(text=BASE.replace("careful", "kind")), CALL)
        await eventually(lambda: len(announcer.heard) == 5)
