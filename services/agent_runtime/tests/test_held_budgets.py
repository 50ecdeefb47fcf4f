"""Budgets that ask: a task whose model call finds one used up waits for people, and has it raised once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from runtime_peers import Gateway, says
from runtime_plan import CONTEXT, sent, task
from runtime_stage import Stage, again, as_delivered, order, script
from runtime_world import World

from paracle_chassis.bus import Outgoing
from paracle_chassis.testing.eventually import eventually
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import BudgetExceeded, Conflict, InvalidInput, NotFound, ParacleError, Unavailable
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import ApprovalStatus
from paracle_domain.task.events import Shortage
from paracle_domain.task.messages import Task, TaskResult, TaskStatus
from paracle_domain.task.output import BudgetProgress

DETAILS = {
    "budget": "team", "subject": "atlas", "period": "total", "spent_usd": "1", "limit_usd": "1", "question": "q1"
}  # fmt: skip
ASKS = BudgetExceeded("budget team of atlas is used up", details={**DETAILS, "on_hit": "ask"})
ANEW = BudgetExceeded("budget team of atlas is used up", details={**DETAILS, "on_hit": "ask", "question": "q2"})
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
    assert len({asked.call_id for asked in stage.gateway.asked}) == 1, "the gateway goes on with what it has"
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
        ((ASKS, says("a poem")), Conflict("it was changed"), None),
        ((ASKS,), InvalidInput("too much"), "invalid_input"),
    ],
    indirect=["stage"],
)
async def test_a_budget_that_is_gone_or_another_is_tried_again_and_a_refusal_is_told(
    stage: Stage, error: ParacleError, code: str | None
):
    stage.gateway.unwilling = [error]
    job = await waits(stage)
    stage.orchestrator.decide()
    await ended(stage, job)
    failed = stage.results()[job.task_id].error
    assert (failed and failed.code) == code


@script(ASKS, ANEW, says("a poem"))
async def test_of_a_budget_that_was_changed_after_it_was_asked_about_people_are_asked_anew(stage: Stage):
    stage.gateway.unwilling = [Conflict("it was changed")]
    job = await waits(stage)
    [first] = stage.orchestrator.approvals
    stage.orchestrator.decide()
    await eventually(lambda: len(stage.orchestrator.approvals) == 2)
    stage.orchestrator.decide()
    await ended(stage, job)
    assert stage.results()[job.task_id].output == "a poem"
    [made] = stage.gateway.raises
    assert (made.question, made.key) == ("q2", next(key for key in stage.orchestrator.approvals if key != first))


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
        await stage.bus.drain(0.05)
    stage.orchestrator.decide()
    assert stage.gateway.raises == []
    heir = World(stage.bus, stage.store)
    async with heir.runtime:
        await heir.runtime.take([again(as_delivered(job))])
        await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].output == "a poem"
    assert {made.key for made in stage.gateway.raises} == set(stage.orchestrator.approvals)


async def all_wait(stage: Stage, number: int) -> list[Task]:
    jobs = [task("helper", f"poem {n}") for n in range(number)]
    await stage.bus.publish([sent(job) for job in jobs])
    await eventually(lambda: len(stage.gateway.asked) == number and stage.runtime.running == number)
    await eventually(lambda: len([1 for job in jobs if "task.budget_held" in types_of(stage, job)]) == number)
    return jobs


def types_of(stage: Stage, job: Task) -> list[str]:
    return [event.type for event in stage.events(job)]


async def all_ended(stage: Stage, jobs: list[Task]) -> list[TaskResult]:
    for job in jobs:
        await ended(stage, job)
    return [stage.results()[job.task_id] for job in jobs]


@script(*[ASKS] * 5, *[says("a poem")] * 5)
async def test_many_that_find_one_budget_used_up_ask_once_and_go_on_together(stage: Stage):
    jobs = await all_wait(stage, 5)
    [view] = stage.orchestrator.approvals.values()
    stage.orchestrator.decide()
    assert [result.output for result in await all_ended(stage, jobs)] == ["a poem"] * 5
    assert {made.key for made in stage.gateway.raises} == {view.approval_id}
    assert list(stage.orchestrator.approvals) == [view.approval_id]


@script(*[ASKS] * 5)
async def test_a_rejection_is_for_all_who_wait(stage: Stage):
    jobs = await all_wait(stage, 5)
    stage.orchestrator.decide(ApprovalStatus.REJECTED)
    results = await all_ended(stage, jobs)
    assert {result.error.code for result in results if result.error} == {"budget_exceeded"}
    assert len(stage.orchestrator.approvals) == 1
    assert stage.gateway.raises == []


@script(*[ASKS] * 3, *[says("a poem")] * 3)
async def test_a_raise_by_hand_lets_all_go_on_and_the_question_is_taken_back(stage: Stage):
    stage.shop.decisions._look_s = 3_600
    jobs = await all_wait(stage, 3)
    stage.gateway.used_up = False
    record = EventRecord(entity="budget", id="team", seq=2, type="budget.raised", at=datetime.now(UTC))
    raised = Outgoing(
        subjects.evt("default", "budget", "team", "raised"), record, Envelope.wrap(record.type_name, "test", CONTEXT)
    )

    async def told() -> bool:
        await stage.bus.broadcast(raised)
        return all(job.task_id in stage.results() for job in jobs)

    await eventually(told)
    assert [result.output for result in await all_ended(stage, jobs)] == ["a poem"] * 3
    [view] = stage.orchestrator.approvals.values()
    assert view.status is ApprovalStatus.VOID
    assert stage.gateway.raises == []


@script(ASKS, says("a poem"))
async def test_what_people_agree_to_while_room_is_found_is_raised_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    stage.shop.decisions._look_s = 0.02
    budgets = stage.shop.decisions._budgets
    has_room = budgets.has_room

    async def look(short: Shortage, context: Context) -> bool:
        found = await has_room(short, context)
        if found:
            stage.orchestrator.decide()
        return found

    monkeypatch.setattr(budgets, "has_room", look)
    job = await waits(stage)
    stage.gateway.used_up = False
    await ended(stage, job)
    assert stage.results()[job.task_id].output == "a poem"
    assert {made.key for made in stage.gateway.raises} == set(stage.orchestrator.approvals)


@script(*[ASKS] * 3, *[says("a poem")] * 2)
async def test_when_the_asker_is_cancelled_the_others_ask_for_themselves(stage: Stage):
    jobs = await all_wait(stage, 3)
    [first] = list(stage.orchestrator.approvals.values())
    asker = next(job for job in jobs if job.task_id == first.task_id)
    others = [job for job in jobs if job is not asker]
    await stage.bus.publish([order(asker)])
    await eventually(lambda: len(stage.orchestrator.approvals) == 2)
    second = next(view for view in stage.orchestrator.approvals.values() if view.approval_id != first.approval_id)
    assert second.task_id in {job.task_id for job in others}
    stage.orchestrator.decide()
    assert [result.output for result in await all_ended(stage, others)] == ["a poem"] * 2
    assert {made.key for made in stage.gateway.raises} == {second.approval_id}
