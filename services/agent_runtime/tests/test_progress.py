"""What those who watch a task hear of its tools, and that nobody waits for them."""

from __future__ import annotations

from datetime import datetime

import pytest
from runtime_peers import says
from runtime_plan import sent, task
from runtime_stage import Stage, script

from paracle_chassis.bus import Outgoing
from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import ProviderFailed, RateLimited, Unavailable
from paracle_domain.inference.retrying import Retried, Retrying
from paracle_domain.task.messages import TaskStatus
from paracle_domain.task.output import ToolProgress

LOOKS = (says("", ("look", {"n": 1}), ("look", {"n": "x"})), says("done"))


@script(*LOOKS)
async def test_calls_of_tools_are_told_as_they_begin_and_end(stage: Stage):
    job = task("boss")
    await stage.do(job)
    heard = stage.progress(job)
    stages = {
        call: [one.stage for one in heard if one.call_id == call] for call in {progress.call_id for progress in heard}
    }
    assert list(stages.values()) == [["started", "ended"]] * len(stages)
    assert {one.tool for one in heard} == {"look"}
    assert all(one.duration_s is not None for one in heard if one.stage == "ended")


@script(says("", ("ask_helper", {"text": "poem"})), says("a poem"), says("here"))
async def test_so_are_calls_of_other_agents(stage: Stage):
    job = task("boss")
    await stage.do(job)
    assert [(one.tool, one.stage, one.error) for one in stage.progress(job)] == [
        ("ask_helper", "started", None),
        ("ask_helper", "ended", None),
    ]


@script(says("", ("guarded", {"n": 2})), says("done"))
async def test_a_call_that_waits_for_people_says_so(stage: Stage):
    job = task("careful")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.approvals)
    [held] = stage.progress(job)
    assert (held.tool, held.stage, [held.approval_id]) == ("guarded", "held", list(stage.orchestrator.approvals))
    stage.orchestrator.decide()
    await eventually(lambda: job.task_id in stage.results())
    assert [one.stage for one in stage.progress(job)] == ["held", "started", "ended"]


@script()
async def test_a_tool_that_is_a_step_tells_nobody(stage: Stage):
    job = task("look", {"n": 1})
    await stage.do(job)
    assert stage.progress(job) == []


@script()
async def test_unless_it_waits_for_people(stage: Stage):
    job = task("guarded", {"n": 2})
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.approvals)
    stage.orchestrator.decide()
    await eventually(lambda: job.task_id in stage.results())
    told = [(one.tool, one.stage, one.approval_id) for one in stage.progress(job)]
    [asked] = stage.orchestrator.approvals
    assert told == [("guarded", "held", asked), ("guarded", "started", None), ("guarded", "ended", None)]


BUSY = RateLimited("busy", retry_after_s=0.01)


@script(BUSY, BUSY, says("at last"))
async def test_a_model_call_that_is_tried_again_says_why_and_when(stage: Stage):
    job = task("helper")
    await stage.do(job)
    retries = [one for one in stage.said(job) if isinstance(one, Retrying)]
    assert [(one.error.code, one.error.message, one.tried) for one in retries] == [
        ("rate_limited", "busy", 1),
        ("rate_limited", "busy", 2),
    ]
    failed = [one.data for one in stage.events(job) if one.type == "task.model_call_failed"]
    assert [one.call_id for one in retries] == [one["call_id"] for one in failed]
    assert [one.at for one in retries] == [datetime.fromisoformat(str(one["retry_at"])) for one in failed]


@script(says("", ("ask_helper", {"text": "poem"})), BUSY, BUSY, says("a poem"), says("here"))
async def test_who_watches_a_step_is_told_that_a_delegate_waits_and_no_longer_does(stage: Stage):
    job = task("boss")
    await stage.do(job)
    said = [one for one in stage.said(job) if not isinstance(one, ToolProgress)]
    assert [(type(one), one.agent) for one in said if isinstance(one, Retrying | Retried)] == [
        (Retrying, "helper"),
        (Retrying, "helper"),
        (Retried, "helper"),
    ]
    assert isinstance(said[-1], Retried)
    assert said[-1].error is None
    own = [one for one in stage.bus.broadcasts if isinstance(one.message, Retrying) and one.message.agent is None]
    assert len(own) == 2, "on the delegate's own subject"
    assert len({one.envelope.id for one in stage.bus.broadcasts}) == len(stage.bus.broadcasts)


@script(says("", ("ask_helper", {"text": "poem"})), BUSY, ProviderFailed("no"), says("here"))
async def test_that_a_delegate_waits_no_longer_is_told_also_where_it_fails(stage: Stage):
    job = task("boss")
    await stage.do(job)
    *_, last = [one for one in stage.said(job) if isinstance(one, Retrying | Retried)]
    assert isinstance(last, Retried)
    assert last.error == "provider_failed"


@script(ProviderFailed("no"))
async def test_a_call_that_is_not_tried_again_says_nothing(stage: Stage):
    await stage.do(task("helper"))
    assert not [one for one in stage.bus.broadcasts if isinstance(one.message, Retrying)]


@script(*LOOKS)
async def test_a_task_goes_on_where_nobody_can_be_told(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    async def away(_message: Outgoing) -> None:
        raise Unavailable("NATS is away")

    monkeypatch.setattr(stage.bus, "broadcast", away)
    [result] = await stage.do(task("boss"))
    assert (result.status, result.output) == (TaskStatus.COMPLETED, "done")
