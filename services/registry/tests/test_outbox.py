"""The outbox: nothing committed stays untold."""

from __future__ import annotations

import pytest
from registry_memory import MemorySpecStore
from registry_samples import ALL, BASE

from paracle_chassis.testing.eventually import eventually
from paracle_domain.envelope import Context
from paracle_domain.errors import Unavailable
from paracle_domain.registry import ApplyManifests
from paracle_registry.outbox import Outbox
from paracle_registry.ports import SpecStore
from paracle_registry.service import RegistryService

CALL = Context("acme", principal="ann")


async def test_what_was_committed_before_a_crash_is_told_after_it(store: SpecStore, announcer) -> None:
    await RegistryService(store, lambda: None).apply(ApplyManifests(text=ALL), CALL)
    outbox = Outbox(store, announcer)
    assert await outbox.drain() == 4
    assert await outbox.drain() == 0
    assert {(tenant, item.name, item.revision) for tenant, item in announcer.heard} == {
        ("acme", "read-mail", 1), ("acme", "base", 1), ("acme", "classify", 1), ("acme", "triage", 1),
    }  # fmt: skip


async def test_it_tells_at_once_and_again_after_an_outage(announcer) -> None:
    store = MemorySpecStore()
    outbox = Outbox(store, announcer)
    registry = RegistryService(store, outbox.wake)
    announcer.failing_with = [ValueError("a bug"), Unavailable("NATS is away")]
    async with outbox.running(interval_s=0.01):
        await registry.apply(ApplyManifests(text=ALL), CALL)
        await eventually(lambda: len(announcer.heard) == 4)
    async with outbox.running(interval_s=60):
        await registry.apply(ApplyManifests(text=BASE.replace("careful", "kind")), CALL)
        await eventually(lambda: len(announcer.heard) == 5)
    with pytest.raises(IndexError):
        announcer.failing_with.pop()
