"""Tool calls that people decide about: held, made once approved, and never otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runtime_peers import Gateway, says
from runtime_plan import CONTEXT, sent, task
from runtime_stage import Stage, again, as_delivered, order, script
from runtime_world import World

from paracle_chassis.bus import Outgoing
from paracle_chassis.testing.eventually import eventually
from paracle_domain import subjects
from paracle_domain.envelope import Envelope
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import ApprovalStatus
from paracle_domain.task.messages import TaskStatus

PAY = says("", ("guarded", {"n": 2}), ("save", {"n": 1}))


@script(PAY, says("done"))
async def test_a_held_call_is_made_once_it_is_approved_and_others_meanwhile(stage: Stage):
    stage.orchestrator.away = 2
    job = task("careful")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.approvals)
    await eventually(lambda: [name for name, _ in stage.toolbox.calls] == ["save"])
    stage.orchestrator.decide()
    await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].output == "done"
    assert [name for name, _ in stage.toolbox.calls] == ["save", "guarded"]
    [view] = stage.orchestrator.approvals.values()
    assert (view.tool, view.task_id, view.step) == ("guarded", job.task_id, "s")
    types = [event.type for event in stage.events(job)]
    assert types.index("task.call_released") < types.index("task.completed")
    assert stage.orchestrator.withdrawn == []


@script(says("", ("guarded", {"n": 1})), says("done"))
async def test_what_the_policy_leaves_out_asks_nobody(stage: Stage):
    [result] = await stage.do(task("careful"))
    assert (result.output, stage.orchestrator.approvals) == ("done", {})


@script(PAY, says("then not"))
async def test_a_rejected_call_is_never_made(stage: Stage):
    job = task("careful")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.approvals)
    stage.orchestrator.decide(ApprovalStatus.REJECTED)
    await eventually(lambda: job.task_id in stage.results())
    assert [name for name, _ in stage.toolbox.calls] == ["save"]
    assert "approval_rejected" in stage.gateway.asked[1].messages[-1].tool_results[0].content


async def test_a_step_that_calls_a_guarded_tool_asks_too_although_it_changes_nothing(stage: Stage):
    job = task("peek", {"n": 1})
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.approvals)
    assert stage.toolbox.calls == []
    stage.orchestrator.decide()
    await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].output == {"n": 1}


@script(PAY)
async def test_a_cancelled_task_withdraws_what_it_asked(stage: Stage):
    job = task("careful")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.approvals)
    await stage.bus.publish([order(job)])
    await eventually(lambda: job.task_id in stage.results())
    await eventually(lambda: stage.orchestrator.withdrawn)
    assert stage.orchestrator.withdrawn == list(stage.orchestrator.approvals)
    assert stage.results()[job.task_id].status is TaskStatus.CANCELLED


async def test_a_question_outlives_the_process_that_asked_it():
    stage = Stage(Gateway(PAY, says("done")))
    job = task("careful")
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(job)])
        await eventually(lambda: stage.orchestrator.approvals)
        await eventually(lambda: "task.tool_returned" in [event.type for event in stage.events(job)])
        await stage.bus.drain(0.05)
    stage.orchestrator.decide()
    heir = World(stage.bus, stage.store)
    async with heir.runtime:
        await heir.runtime.take([again(as_delivered(job))])
        await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].output == "done"
    assert len(stage.orchestrator.approvals) == 1
    assert [name for name, _ in heir.toolbox.calls] == ["guarded"]


async def test_an_event_of_the_approval_spares_the_wait(stage: Stage):
    decisions = stage.shop.decisions
    decisions._look_s = 3_600
    job = task("peek", {"n": 1}, deadline_at=datetime.now(UTC) + timedelta(seconds=600))
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.approvals)
    stage.orchestrator.decide()
    [name] = stage.orchestrator.approvals
    record = EventRecord(entity="approval", id=name, seq=2, type="approval.decided", at=datetime.now(UTC))
    envelope = Envelope.wrap(record.type_name, "test", CONTEXT)

    subject = subjects.evt("default", "approval", name, "approval_decided")

    async def told() -> bool:
        await stage.bus.broadcast(Outgoing(subject, record, envelope))
        return job.task_id in stage.results()

    await eventually(told)
    decisions.heard("apr_nobody")


async def test_an_expiry_is_looked_at_when_it_comes(stage: Stage):
    stage.shop.decisions._look_s = 3_600
    job = task("peek", {"n": 1})
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.approvals)
    [(name, view)] = stage.orchestrator.approvals.items()
    soon = view.model_copy(update={"expires_at": datetime.now(UTC) + timedelta(seconds=0.05)})
    stage.orchestrator.approvals[name] = soon
    stage.shop.decisions.heard(name)
    await eventually(lambda: stage.orchestrator.approvals[name] is soon)
    stage.orchestrator.decide(ApprovalStatus.EXPIRED)
    await eventually(lambda: job.task_id in stage.results())
    error = stage.results()[job.task_id].error
    assert error
    assert error.code == "approval_expired"


async def test_withdrawing_what_was_never_asked_is_no_failure(stage: Stage):
    await stage.shop.decisions.withdraw("apr_01JTQ000000000000000000001", CONTEXT)
    assert stage.orchestrator.withdrawn == ["apr_01JTQ000000000000000000001"]
