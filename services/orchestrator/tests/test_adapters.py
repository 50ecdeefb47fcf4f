"""The orchestrator's ports on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from paracle_chassis.postgres import Queries
from paracle_orchestrator.adapters.postgres import PostgresPlanStore

pytestmark = pytest.mark.connected
AT = datetime(2026, 1, 1, tzinfo=UTC)


async def test_plans_are_kept_once(pool: Any, tools: Any) -> None:
    plans = PostgresPlanStore(pool, Queries.load("paracle_orchestrator"))
    plan = tools.plan_of({"id": "a", "input": {"text": "é\n"}})
    await plans.put("acme", plan)
    await plans.put("acme", plan)
    assert await plans.get("acme", plan.digest) == plan
    assert await plans.get("evil", plan.digest) is None
