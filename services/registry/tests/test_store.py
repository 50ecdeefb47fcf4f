"""What every `SpecStore` promises, in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from paracle_registry.ports import Revision, SpecStore

START = datetime(2026, 1, 1, tzinfo=UTC)


def revision(name: str, number: int = 1, version: int = 1, kind: str = "Agent") -> Revision:
    manifest = {"z": number, "a": {"text": "é\n\"'", "null": None}}
    at = START + timedelta(seconds=version)
    return Revision(kind, name, number, manifest, f"sha256:{name}{number}", "ann", at, version)  # type: ignore[arg-type]


async def add(store: SpecStore, *revisions: Revision, tenant: str = "acme") -> None:
    async with store.edit(tenant) as edit:
        await edit.add(revisions)


async def test_an_empty_store(store: SpecStore) -> None:
    assert list(await store.changes("acme", 0)) == []
    assert await store.get("acme", "Agent", "a", 1) is None
    assert list(await store.history("acme", "Agent", "a", None, 5)) == []
    assert list(await store.unpublished(5)) == []


async def test_revisions_come_back_as_they_were(store: SpecStore) -> None:
    one = revision("a")
    await add(store, one)
    found = await store.get("acme", "Agent", "a", 1)
    assert found == one
    assert list(found.manifest) == ["z", "a"]


async def test_changes_are_the_newest_of_each_after_a_version(store: SpecStore) -> None:
    await add(store, revision("a"), revision("b"), revision("a", kind="Tool"))
    await add(store, revision("a", 2, version=2))
    await add(store, revision("c", 1, version=3))
    assert [(r.kind, r.name, r.revision) for r in await store.changes("acme", 0)] == [
        ("Agent", "b", 1), ("Tool", "a", 1), ("Agent", "a", 2), ("Agent", "c", 1),
    ]  # fmt: skip
    assert [(r.name, r.version) for r in await store.changes("acme", 2)] == [("c", 3)]
    assert list(await store.changes("acme", 3)) == []


async def test_history_goes_back_in_pages(store: SpecStore) -> None:
    for number in range(1, 5):
        await add(store, revision("a", number, version=number))
    assert [r.revision for r in await store.history("acme", "Agent", "a", None, 2)] == [4, 3]
    assert [r.revision for r in await store.history("acme", "Agent", "a", 3, 5)] == [2, 1]


async def test_tenants_are_apart(store: SpecStore) -> None:
    await add(store, revision("a"))
    await add(store, revision("a"), tenant="other")
    assert list(await store.changes("nobody", 0)) == []
    assert len(await store.changes("acme", 0)) == 1
    assert {tenant for tenant, _ in await store.unpublished(5)} == {"acme", "other"}


async def test_an_edit_that_fails_leaves_nothing(store: SpecStore) -> None:
    async def fail() -> None:
        async with store.edit("acme") as edit:
            await edit.add([revision("a")])
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        await fail()
    assert list(await store.changes("acme", 0)) == []


async def test_edits_of_a_tenant_take_turns_and_see_each_other(store: SpecStore) -> None:
    async def append() -> None:
        async with store.edit("acme") as edit:
            seen = await edit.changes(0)
            number = max((item.revision for item in seen), default=0) + 1
            await asyncio.sleep(0)
            await edit.add([revision("a", number, version=number)])

    await asyncio.gather(*(append() for _ in range(6)))
    assert [r.revision for r in await store.history("acme", "Agent", "a", None, 9)] == [6, 5, 4, 3, 2, 1]


async def test_tenants_do_not_wait_for_each_other(store: SpecStore) -> None:
    async with store.edit("acme"), store.edit("other") as edit:
        await edit.add([revision("a")])
    assert [r.revision for r in await store.history("other", "Agent", "a", None, 9)] == [1]
    assert await store.history("acme", "Agent", "a", None, 9) == []


async def test_the_outbox_is_in_order_and_forgets_what_was_told(store: SpecStore) -> None:
    await add(store, revision("b", 1, version=1))
    await add(store, revision("a", 1, version=2), revision("b", 2, version=2))
    first = await store.unpublished(2)
    assert [(r.name, r.revision) for _, r in first] == [("b", 1), ("a", 1)]
    await store.mark_published(first)
    assert [(r.name, r.revision) for _, r in await store.unpublished(5)] == [("b", 2)]
