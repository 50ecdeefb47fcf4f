"""Whoever remembers what the registry said is told that it may no longer be so, before the change is answered."""

from __future__ import annotations

from registry_memory import MemorySpecStore
from registry_samples import ALL

from paracle_chassis.testing.memory import MemoryBus
from paracle_domain.envelope import Context
from paracle_domain.registry import ApplyManifests, SpecsChanged, changed_subject
from paracle_registry.adapters.bus import BusTeller
from paracle_registry.service import RegistryService

CALL = Context("acme", principal="ann")


async def test_every_apply_tells_even_of_nothing_new_but_no_trial() -> None:
    told: list[Context] = []

    async def tell(call: Context) -> None:
        told.append(call)

    registry = RegistryService(MemorySpecStore(), lambda: None, tell=tell)
    await registry.apply(ApplyManifests(text=ALL, dry_run=True), CALL)
    assert told == []
    await registry.apply(ApplyManifests(text=ALL), CALL)
    await registry.apply(ApplyManifests(text=ALL), CALL)
    assert told == [CALL, CALL]


async def test_it_is_told_on_the_tenants_subject() -> None:
    bus = MemoryBus()
    await BusTeller(bus).tell(CALL)
    (said,) = bus.broadcasts
    assert said.subject == changed_subject(CALL.tenant)
    assert isinstance(said.message, SpecsChanged)
