"""Budgets that ask: a task whose model call finds one used up waits for people, and has it raised once."""

from __future__ import annotations

import pytest
from runtime_stage import Stage, again, as_delivered, order, script
from runtime_world import Gateway, World, says, sent, task

from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import BudgetExceeded, InvalidInput, NotFound, ParacleError, Unavailable
from paracle_domain.run.commands import ApprovalStatus
from paracle_domain.task.messages import Task, TaskStatus
from paracle_domain.task.output import BudgetProgress

DETAILS = {"budget": "team", "subject": "atlas", "period": "total", "spent_usd": "1", "limit_usd": "1"}
ASKS = BudgetExceeded("budget team of atlas is used up", details={**DETAILS, "on_hit": "ask"})
STOPS = BudgetExceeded("budget team of atlas is used up", details={**DETAILS, "on_hit": "stop"})


async def waits(stage: Stage) -> Task:
    job = task("helper", "a poem")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.approvals)
    return job


async def ended(stage: Stage, job: Task) -> None:
    await eventually(lambda: job.task_id in stage.results())
    await eventually(lambda: stage.runtime.running == 0)


@script(ASKS, says("a poem"))
async def test_once_people_agree_the_budget_is_raised_and_the_call_made_again(stage: Stage):
    stage.gateway.unwilling = [Unavailable("away"), Unavailable("away")]
    job = await waits(stage)
    [view] = stage.orchestrator.approvals.values()
    assert (view.tool, view.task_id, view.ask) == (None, job.task_id, "Raise the budget team of atlas by 0.10 USD?")
    assert stage.gateway.raises == []
    stage.orchestrator.decide()
    await ended(stage, job)
    assert stage.results()[job.task_id].output == "a poem"
    [made] = stage.gateway.raises
    assert (made.name, made.subject, str(made.usd), made.key) == ("team", "atlas", "0.10", view.approval_id)
    assert len({asked.call_id for asked in stage.gateway.asked}) == 2
    types = [event.type for event in stage.events(job)]
    assert types.index("task.budget_held") < types.index("task.budget_released") < types.index("task.completed")
    said = [told.message for told in stage.bus.broadcasts if isinstance(told.message, BudgetProgress)]
    assert [one.stage for one in said] == ["held", "ended"]


@script(STOPS)
async def test_a_budget_that_stops_asks_nobody(stage: Stage):
    [result] = await stage.do(task("helper", "a poem"))
    assert result.error is not None
    assert (result.status, result.error.code) == (TaskStatus.FAILED, "budget_exceeded")
    assert result.error.details == {**DETAILS, "on_hit": "stop"}
    assert stage.orchestrator.approvals == {}


@script(ASKS)
async def test_a_rejected_raise_is_not_made(stage: Stage):
    job = await waits(stage)
    stage.orchestrator.decide(ApprovalStatus.REJECTED)
    await ended(stage, job)
    error = stage.results()[job.task_id].error
    assert error is not None
    assert error.code == "budget_exceeded"
    assert "rejected raising it" in error.message
    assert stage.gateway.raises == []


@pytest.mark.parametrize(
    ("stage", "error", "code"),
    [
        ((ASKS, says("a poem")), NotFound("no such budget"), None),
        ((ASKS,), InvalidInput("too much"), "invalid_input"),
    ],
    indirect=["stage"],
)
async def test_a_budget_that_is_gone_holds_nothing_back_and_a_refusal_is_told(
    stage: Stage, error: ParacleError, code: str | None
):
    stage.gateway.unwilling = [error]
    job = await waits(stage)
    stage.orchestrator.decide()
    await ended(stage, job)
    failed = stage.results()[job.task_id].error
    assert (failed and failed.code) == code


@script(ASKS)
async def test_a_cancelled_task_takes_its_question_back(stage: Stage):
    job = await waits(stage)
    await stage.bus.publish([order(job)])
    await ended(stage, job)
    assert stage.results()[job.task_id].status is TaskStatus.CANCELLED
    assert stage.orchestrator.withdrawn == list(stage.orchestrator.approvals)


async def test_whoever_takes_the_task_up_asks_the_same_and_raises_by_the_same_key():
    """The first process stops while people think; they agree; a second one finds that, and raises."""
    stage = Stage(Gateway(ASKS, says("a poem")))
    job = task("helper", "a poem")
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(job)])
        await eventually(lambda: stage.orchestrator.approvals)
        stage.bus._mailboxes.clear()
    stage.orchestrator.decide()
    assert stage.gateway.raises == []
    heir = World(stage.bus, stage.store)
    async with heir.runtime:
        await heir.runtime.take([again(as_delivered(job))])
        await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].output == "a poem"
    assert [made.key for made in stage.gateway.raises] == list(stage.orchestrator.approvals)
