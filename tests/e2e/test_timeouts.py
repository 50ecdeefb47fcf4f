"""What is late has timed out, whoever sees it first: a task that has the same time, or the run itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.e2e.deciding import fresh_name
from tests.e2e.histories import assert_sound
from tests.e2e.steps import doze, tools
from tests.e2e.world import System

from paracle_domain.run.commands import RunStatus, RunView, StepStatus

DOZE = {"tool": "doze", "input": {"seconds": 600}}


async def run_of(system: System, *steps: dict[str, Any], **spec: Any) -> RunView:
    """How a run of these steps ends."""
    name = fresh_name("late")
    workflow = {"kind": "Workflow", "metadata": {"name": name}, "spec": {"steps": list(steps), **spec}}
    documents = [{"apiVersion": "paracle/v1", **one} for one in (*tools(system.effects.port), workflow)]
    await asyncio.to_thread(system.apply, "\n---\n".join(map(json.dumps, documents)))
    ended = await system.run(name, {})
    async with system.client() as client:
        await assert_sound(client, ended.run.run_id)
    return ended


@pytest.mark.parametrize("on_error", ["fail", "continue"])
async def test_a_run_whose_time_is_up_has_timed_out(system: System, on_error: str) -> None:
    ended = await run_of(system, doze("slow", 600, on_error=on_error), timeout_s=1)
    assert ended.run.status is RunStatus.TIMED_OUT
    assert ended.steps[0].status in {StepStatus.TIMED_OUT, StepStatus.CANCELLED}


async def test_a_map_and_a_loop_whose_time_is_up_have_timed_out_and_begin_nothing_more(system: System) -> None:
    each = {"over": [1, 2], "concurrency": 1, "on_error": "continue", **DOZE}
    again = {"max": 2, "until": "{{ false }}", **DOZE}
    late = {"timeout_s": 1, "on_error": "continue"}
    ended = await run_of(system, {"id": "each", "map": each, **late}, {"id": "again", "loop": again, **late})
    assert ended.run.status is RunStatus.DEGRADED
    assert [(step.status, len(step.parts)) for step in ended.steps] == [(StepStatus.TIMED_OUT, 1)] * 2
