"""Calls in doubt that a probe looks into."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from runtime_peers import Gateway
from runtime_plan import CONTEXT, sent, task
from runtime_stage import Stage, again, as_delivered, order
from runtime_world import World

from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import Conflict
from paracle_domain.task.effects import EffectState, EffectView, ListEffects, ResolveEffect
from paracle_domain.task.messages import Task, TaskResult, TaskStatus


@asynccontextmanager
async def orphaned(job: Task) -> AsyncIterator[tuple[Stage, World]]:
    """A stage whose process ended while it called the tool of `job`, and the process that takes it up."""
    stage = Stage(Gateway())
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(job)])
        await eventually(lambda: stage.toolbox.calls)
        await stage.bus.drain(0.05)
    heir = World(stage.bus, stage.store, effects=stage.effects)
    async with heir.runtime:
        await stage.bus.serve(heir.routes)
        await heir.runtime.take([again(as_delivered(job))])
        yield stage, heir
        await stage.bus.drain(0.05)


async def result(stage: Stage, job: Task) -> TaskResult:
    await eventually(lambda: job.task_id in stage.results())
    return stage.results()[job.task_id]


async def ledgered(stage: Stage) -> EffectView:
    [view] = (await stage.effects.page(ListEffects(), CONTEXT.tenant)).effects
    return view


async def test_what_a_probe_knows_to_be_done_is_not_done_again():
    job = task("wire", {"seconds": 60})
    async with orphaned(job) as (stage, heir):
        ended = await result(stage, job)
        assert (ended.status, ended.output) == (TaskStatus.COMPLETED, {"id": 7})
        [(_, key)] = stage.toolbox.calls
        assert heir.toolbox.calls == [("found", key)]
        view = await ledgered(stage)
    assert (view.state, view.probe and view.probe.outcome) == (EffectState.CONFIRMED, "done")


async def test_what_a_probe_knows_not_to_be_done_is_done_with_the_same_key():
    job = task("lost", {"seconds": 60})
    async with orphaned(job) as (stage, heir):
        await eventually(lambda: len(heir.toolbox.calls) == 2)
        [(_, key)] = stage.toolbox.calls
        assert heir.toolbox.calls == [("missed", key), ("lost", key)]
        view = await ledgered(stage)
    assert (view.state, view.probe and view.probe.outcome) == (EffectState.SENT, "not_done")


async def test_what_no_probe_can_tell_is_left_to_people():
    job = task("dark", {"seconds": 60})
    async with orphaned(job) as (stage, heir):
        ended = await result(stage, job)
        assert ended.error is not None
        assert ended.error.code == "effect_in_doubt"
        assert [name for name, _ in heir.toolbox.calls] == ["blind", "blind"]
        view = await ledgered(stage)
    assert view.state is EffectState.IN_DOUBT
    assert view.probe is not None
    assert (view.probe.tried, view.probe.open) == (2, False)
    assert view.reason is not None
    assert "blind: " in view.reason


async def test_what_a_probe_says_that_a_tool_gave_has_to_fit():
    job = task("odd", {"seconds": 60})
    async with orphaned(job) as (stage, _):
        ended = await result(stage, job)
    assert ended.error is not None
    assert (ended.error.code, ended.status) == ("output_invalid", TaskStatus.FAILED)


async def test_nobody_resolves_what_is_being_probed_and_a_cancel_ends_that(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paracle_domain.task.doubts.pause_s", lambda *_: 3_600.0)
    job = task("dark", {"seconds": 60}, deadline_at=datetime.now(UTC) + timedelta(days=1))
    async with orphaned(job) as (stage, heir):
        await eventually(lambda: heir.toolbox.calls)
        await eventually(lambda: "effect.probed" in [event.type for event in stage.events(job)])
        view = await ledgered(stage)
        command = ResolveEffect(key=view.key, outcome="done", reason="looked")
        with pytest.raises(Conflict, match="is being probed by blind"):
            await stage.bus.command(command, CONTEXT, timeout_s=5)
        await stage.bus.publish([order(job)])
        ended = await result(stage, job)
        assert ended.status is TaskStatus.CANCELLED
        resolved = EffectView.model_validate(await stage.bus.command(command, CONTEXT, timeout_s=5))
    assert resolved.state is EffectState.RESOLVED
    assert len(heir.toolbox.calls) == 1
