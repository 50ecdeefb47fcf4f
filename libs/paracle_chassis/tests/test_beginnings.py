"""Which histories there are is told to services alone."""

from datetime import UTC, datetime, timedelta

import pytest

from paracle_chassis.beginnings import list_begun
from paracle_chassis.event_store import Append, Page
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain.envelope import Context
from paracle_domain.errors import Forbidden
from paracle_domain.histories import Begun, ListRunsBegun
from paracle_domain.subjects import EVERYONE

AT = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = ListRunsBegun(since=AT, until=AT + timedelta(seconds=1))


async def test_services_are_told_of_all_tenants():
    store = MemoryEventStore()
    for name, tenant in (("run_a", "acme"), ("run_b", "globex")):
        await store.append([Append(name, tenant, 0, (Page(1, "msg_1", AT, (b"{}",)),), "running", facts={})])
    told = await list_begun(store, ASKED, Context(EVERYONE))
    assert told.begun == (
        Begun(tenant="acme", id="run_a", at=AT), Begun(tenant="globex", id="run_b", at=AT),
    )  # fmt: skip


async def test_a_tenant_is_not():
    with pytest.raises(Forbidden, match="only services"):
        await list_begun(MemoryEventStore(), ASKED, Context("acme"))
