"""The orchestrator's use cases on ports in memory: what is committed, what is published, what is answered."""

from __future__ import annotations

from typing import Any

import pytest
from nested import nested

from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.errors import (
    Conflict,
    ErrorInfo,
    InputInvalid,
    InvalidInput,
    MalformedMessage,
    NotFound,
    ParacleError,
    PayloadTooLarge,
)
from paracle_domain.ids import is_id, new_id, ulid_time_ms
from paracle_domain.plan import Plan, PlannedWorkflow
from paracle_domain.run.commands import (
    CancelRun,
    GetPlan,
    GetRun,
    GetRunEvents,
    ListRuns,
    RunAccepted,
    RunStatus,
    StartRun,
    StepStatus,
)
from paracle_domain.run.diff import DiffRuns
from paracle_domain.run.nodes import MOST_LEVELS
from paracle_domain.task.messages import CancelTask, Task, TaskStatus
from paracle_domain.task.wanted import ListWantedTasks, TaskPlace
from paracle_orchestrator.orders import MAX_INPUT_BYTES, run_id_for
from paracle_orchestrator.plans import Pinned

CALL = Context("acme")


async def test_a_run_lives_from_its_start_to_its_end(desk: Any, tools: Any) -> None:
    run_id = await desk.start(value={"n": 1})
    outbox = desk.bus.take()
    (task,) = tools.tasks(outbox)
    assert (task.run_id, task.step, task.target) == (run_id, "a", "t")
    assert outbox[-1].subject == subjects.task("acme", "agents")
    assert [event["type"] for event in tools.events(outbox)] == ["run.started", "step.started"]
    await desk.finish(task)
    (task,) = tools.tasks(desk.bus.take())
    await desk.finish(task, output={"done": True})
    assert [event["seq"] for event in tools.events(desk.bus.take())] == [5, 6]
    view = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.run.status is RunStatus.COMPLETED
    assert view.output == {"done": True}
    assert [(step.id, step.status, step.attempts) for step in view.steps] == [
        ("a", StepStatus.COMPLETED, 1),
        ("b", StepStatus.COMPLETED, 1),
    ]
    assert view.last_seq == 6


async def test_a_run_says_which_tasks_it_still_waits_for(desk: Any, tools: Any) -> None:
    async def wanted(*tasks: Task, tenant: str = "acme") -> list[str]:
        places = tuple(TaskPlace(task_id=one.task_id, step=one.step, attempt=one.attempt) for one in tasks)
        asked = ListWantedTasks(run_id=tasks[0].run_id, tasks=places)
        return list((await desk.service.list_wanted_tasks(asked, Context(tenant))).task_ids)

    await desk.start(value={"n": 1})
    (first,) = tools.tasks(desk.bus.take())
    assert await wanted(first) == [first.task_id]
    assert await wanted(first, tenant="evil") == []
    assert await wanted(first.model_copy(update={"run_id": new_id("run")})) == []
    await desk.finish(first)
    (second,) = tools.tasks(desk.bus.take())
    assert await wanted(first, second) == [second.task_id]
    await desk.finish(second)
    assert await wanted(second) == []


async def test_events_are_numbered_from_one_and_carry_their_cause(desk: Any, tools: Any) -> None:
    run_id = await desk.start(key="my-key")
    found = [item for item in desk.bus.take() if ".evt." in item.subject]
    assert [item.envelope.id for item in found] == [f"{run_id}.2"]
    assert found[0].subject == subjects.evt("acme", "run", run_id, "step_started")
    first = tools.events(found)[0]
    assert (first["seq"], first["type"]) == (1, "run.started")
    assert first["cause"] == "my-key"
    assert first["correlation_id"] == run_id


async def test_a_start_is_answered_with_the_run(desk: Any) -> None:
    receipt = await desk.order(StartRun(workflow="w"))
    (answer,) = receipt.answers
    assert isinstance(answer, RunAccepted)
    assert is_id(answer.run_id, "run")
    assert (answer.status, answer.created) == (RunStatus.RUNNING, True)


async def test_the_same_start_again_is_the_same_run(desk: Any, tools: Any) -> None:
    first = await desk.start(key="k", value={"a": 1, "b": 2})
    desk.bus.take()
    receipt = await desk.order(StartRun(workflow="w", input={"b": 2, "a": 1}), key="k")
    assert receipt.answers[0].run_id == first
    assert receipt.answers[0].created is False
    again = desk.bus.take()
    assert [event["seq"] for event in tools.events(again)] == [1, 2]
    assert len(tools.tasks(again)) == 1
    assert (await desk.store.load([first]))[first].version == 2


async def test_the_same_id_for_another_request_is_a_conflict(desk: Any) -> None:
    run_id = new_id("run")
    await desk.order(StartRun(workflow="w", run_id=run_id), key="one")
    receipt = await desk.order(StartRun(workflow="w", run_id=run_id, input={"other": 1}), key="two")
    assert isinstance(receipt.answers[0], Conflict)
    assert run_id in str(receipt.answers[0])


@pytest.mark.parametrize(
    ("command", "kind", "path"),
    [
        (StartRun(workflow="nope"), NotFound, "workflow"),
        (StartRun(), InvalidInput, "workflow"),
        (StartRun(workflow="w", agent="a"), InvalidInput, "workflow"),
        (StartRun(workflow="strict", input={"n": "many"}), InputInvalid, "input.n"),
        (StartRun(workflow="w", input={"x": "y" * MAX_INPUT_BYTES}), PayloadTooLarge, "input"),
        (StartRun(workflow="w", input={"x": nested(MOST_LEVELS)}), InvalidInput, "input"),
        (CancelRun(run_id=new_id("run")), NotFound, "run_id"),
    ],
)
async def test_bad_orders_are_refused_and_change_nothing(
    desk: Any, tools: Any, command: Any, kind: type[ParacleError], path: str
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    desk.knows("strict", tools.plan_of({"id": "a"}, input=schema))
    receipt = await desk.order(command)
    (error,) = receipt.answers
    assert isinstance(error, kind)
    assert error.path == path
    assert (desk.store.writes, desk.bus.published, receipt.parked) == (0, [], [])


@pytest.mark.parametrize(
    ("name", "revision", "whose"), [("w", 2, "workflow 'w'"), ("invoke-writer", 0, "agent 'writer'")]
)
def test_an_input_that_is_refused_says_whose(tools: Any, name: str, revision: int, whose: str) -> None:
    spec = tools.plan_of({"id": "a", "agent": "writer"}, input={"type": "object"}).workflow.spec
    plan = Plan.pin(PlannedWorkflow(name=name, revision=revision, spec=spec), {}, {})
    with pytest.raises(InputInvalid, match=f"^input of {whose}: "):
        Pinned.of(plan).check_input("text")


async def test_bad_orders_that_nobody_waits_for_are_parked(desk: Any) -> None:
    receipt = await desk.order(StartRun(workflow="nope"), reply=False)
    assert isinstance(receipt.parked[0], NotFound)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"{", b'{"workflow": 7}'])
async def test_malformed_orders_say_so(desk: Any, body: bytes) -> None:
    receipt = await desk.order(StartRun(workflow="w"), body=body)
    assert isinstance(receipt.answers[0], MalformedMessage)


@pytest.mark.parametrize(("verb", "meant"), [("cancle_runs", "cancel_runs"), ("fire_triger", "fire_trigger")])
async def test_a_verb_that_there_is_not_is_told_what_was_meant(desk: Any, verb: str, meant: str) -> None:
    receipt = await desk.order(StartRun(workflow="w"), verb=verb)
    assert f"{meant!r}" in receipt.answers[0].message


async def test_an_unknown_verb_is_parked(desk: Any) -> None:
    receipt = await desk.order(StartRun(workflow="w"), verb="make_coffee", reply=False)
    assert "make_coffee" in str(receipt.parked[0])


async def test_one_bad_order_does_not_stop_its_neighbours(desk: Any, tools: Any) -> None:
    good, bad = tools.receipt(), tools.receipt()
    await desk.service.obey(
        [desk.command(StartRun(workflow="nope"), bad, key="1"), desk.command(StartRun(workflow="w"), good, key="2")]
    )
    assert isinstance(bad.answers[0], NotFound)
    assert isinstance(good.answers[0], RunAccepted)


async def test_a_refusal_is_said_once(desk: Any, tools: Any) -> None:
    """A second answer would be kept for whoever sends the same next, though that may be obeyed."""
    known = await desk.order(StartRun(workflow="nope"))
    unknown = await desk.order(StartRun(workflow="nope"), reply=False)
    assert (len(known.answers), known.parked) == (1, [])
    assert (unknown.answers, len(unknown.parked)) == ([], 1)


async def test_the_registry_is_not_asked_for_what_is_known(desk: Any) -> None:
    for number in range(3):
        await desk.start(key=f"k{number}")
    assert [request.known_digest is None for request in desk.bus.asked] == [True, False, False]


async def test_the_registry_is_asked_once_for_a_batch(desk: Any, tools: Any) -> None:
    receipts = [tools.receipt() for _ in range(5)]
    await desk.service.obey(
        [desk.command(StartRun(workflow="w"), receipt, key=f"k{number}") for number, receipt in enumerate(receipts)]
    )
    assert len(desk.bus.asked) == 1
    assert len({receipt.answers[0].run_id for receipt in receipts}) == 5


async def test_results_for_runs_that_are_not_there_are_dropped(desk: Any, tools: Any) -> None:
    await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    await desk.finish(task.model_copy(update={"run_id": new_id("run")}))
    assert desk.bus.take() == []


async def test_what_is_no_result_is_parked(desk: Any, tools: Any) -> None:
    for type_name, body in (("task.result", b"{"), ("something.new", b"{}"), ("run.tick", b"[]")):
        receipt = tools.receipt()
        subject = subjects.result("acme", new_id("run"))
        await desk.service.take_in([tools.delivery(subject, body, receipt, key="k", type_name=type_name)])
        assert isinstance(receipt.parked[0], MalformedMessage)


async def test_a_bare_result_without_headers_is_understood(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    body = f'{{"task_id":"{task.task_id}","run_id":"{run_id}","step":"a","attempt":1,"status":"completed"}}'
    await desk.service.take_in(
        [tools.delivery(subjects.result("acme", run_id), body.encode(), tools.receipt(), key=None)]
    )
    assert [found.step for found in tools.tasks(desk.bus.take())] == ["b"]


async def test_cancel_stops_the_tasks_and_ends_the_run(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    receipt = await desk.cancel(run_id)
    assert receipt.answers[0].status is RunStatus.CANCELLING
    (stop,) = [item for item in desk.bus.take() if isinstance(item.message, CancelTask)]
    assert stop.subject == subjects.cmd("acme", "agent_runtime", "cancel_task")
    await desk.finish(task, TaskStatus.CANCELLED)
    assert (await desk.service.get_run(GetRun(run_id=run_id), CALL)).run.status is RunStatus.CANCELLED


async def test_nobody_sees_or_stops_another_tenants_run(desk: Any) -> None:
    run_id = await desk.start()
    receipt = await desk.cancel(run_id, tenant="evil")
    assert isinstance(receipt.answers[0], NotFound)
    view = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.run.status is RunStatus.RUNNING
    with pytest.raises(NotFound):
        await desk.service.get_run(GetRun(run_id=run_id), Context("evil"))
    with pytest.raises(NotFound):
        await desk.service.get_plan(GetPlan(digest=view.run.plan), Context("evil"))


async def test_a_foreign_order_does_not_spoil_its_neighbour(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    mine, foreign = tools.receipt(), tools.receipt()
    await desk.service.obey(
        [
            desk.command(CancelRun(run_id=run_id), foreign, key="1", tenant="evil"),
            desk.command(CancelRun(run_id=run_id), mine, key="2"),
        ]
    )
    assert isinstance(foreign.answers[0], NotFound)
    assert mine.answers[0].status is RunStatus.CANCELLING


async def test_another_tenants_run_id_cannot_be_taken(desk: Any) -> None:
    run_id = new_id("run")
    await desk.order(StartRun(workflow="w", run_id=run_id), key="1")
    receipt = await desk.order(StartRun(workflow="w", run_id=run_id), key="2", tenant="evil")
    assert isinstance(receipt.answers[0], Conflict)


async def test_retries_come_with_ticks(desk: Any, tools: Any) -> None:
    desk.knows("flaky", tools.plan_of({"id": "a", "retry": {"max_attempts": 2, "initial_s": 10, "jitter": 0}}))
    await desk.start("flaky")
    (task,) = tools.tasks(desk.bus.take())
    busy = ErrorInfo(code="tool_unavailable", message="busy", retryable=True)
    await desk.finish(task, TaskStatus.FAILED, error=busy)
    assert await desk.tick(5) == 0
    assert tools.tasks(desk.bus.take()) == []
    assert await desk.tick(5) == 1
    assert [found.attempt for found in tools.tasks(desk.bus.take())] == [2]


async def test_a_lost_task_is_handed_out_again(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    (lost,) = tools.tasks(desk.bus.take())
    assert await desk.tick(30) == 1
    (again,) = [item for item in desk.bus.take() if item.message == lost]
    assert again.envelope.id != lost.task_id
    await desk.finish(lost)
    assert (await desk.store.load([run_id]))[run_id].version == 4


async def test_a_run_that_has_ended_is_not_woken(desk: Any, tools: Any) -> None:
    desk.knows("one", tools.plan_of({"id": "a"}))
    await desk.start("one")
    (task,) = tools.tasks(desk.bus.take())
    await desk.finish(task)
    assert await desk.tick(10_000) == 0


async def test_events_are_read_from_any_cursor(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    await desk.finish(tools.tasks(desk.bus.take())[0])
    await desk.finish(tools.tasks(desk.bus.take())[0])
    for after in range(7):
        page = await desk.service.get_run_events(GetRunEvents(run_id=run_id, after=after), CALL)
        assert [event.seq for event in page.events] == list(range(after + 1, 7))
        assert page.terminal
    page = await desk.service.get_run_events(GetRunEvents(run_id=run_id, after=2, limit=3), CALL)
    assert [event.type for event in page.events] == ["step.completed", "step.started", "step.completed"]
    assert not page.terminal


async def test_a_plan_is_given_by_its_digest_also_after_a_restart(desk: Any, replica: Any) -> None:
    await desk.start()
    digest = desk.bus.plans["w"].digest
    assert (await replica.service.get_plan(GetPlan(digest=digest), CALL)).digest == digest


async def test_lists_come_from_the_index(desk: Any) -> None:
    assert (await desk.service.list_runs(ListRuns(), CALL)).runs == ()


def test_run_ids_follow_from_the_command() -> None:
    ours = new_id("msg")
    assert ulid_time_ms(run_id_for("t", ours)) == ulid_time_ms(ours)
    assert ulid_time_ms(run_id_for("t", "COMMANDS.7.1000000000")) == 1_000
    assert ulid_time_ms(run_id_for("t", f"COMMANDS.7.{'9' * 19}")) == int("9" * 19) // 1_000_000
    assert ulid_time_ms(run_id_for("t", "order-7")) == ulid_time_ms(run_id_for("t", "order.7.x")) == 0
    assert run_id_for("t", "order-7") != run_id_for("u", "order-7")


async def test_the_pins_of_two_runs_are_compared(desk: Any, tools: Any) -> None:
    first = await desk.start(key="one")
    desk.knows("w", tools.plan_of({"id": "a", "timeout_s": 3}))
    second = await desk.start(key="two")
    found = await desk.service.diff_runs(DiffRuns(left=first, right=second), CALL)
    assert (found.same, found.left.run_id, found.right.run_id) == (False, first, second)
    assert "spec.steps.a.timeout_s" in [one.path for one in found.differences]
    assert (await desk.service.diff_runs(DiffRuns(left=first, right=first), CALL)).same
    with pytest.raises(NotFound) as refused:
        await desk.service.diff_runs(DiffRuns(left=first, right=new_id("run")), CALL)
    assert refused.value.path == "right"
