"""Child runs: how they begin, end and are stopped, whatever mail is lost, late or seen twice."""

from __future__ import annotations

from typing import Any

import pytest

from paracle_domain.envelope import Context
from paracle_domain.errors import MalformedMessage, NotFound
from paracle_domain.ids import new_id
from paracle_domain.run.commands import GetRun, RunStatus, RunView
from paracle_domain.run.messages import ChildCancel, ChildEnded, ChildStart

CALL = Context("acme")
CHILD_INPUT = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.fixture
def family(desk: Any, tools: Any) -> Any:
    """A desk whose workflow has a child with one tool step."""
    child = tools.plan_of({"id": "a"}, input=CHILD_INPUT, output="{{ steps.a.output }}")
    step = {"id": "kid", "workflow": "kid", "input": "{{ input }}"}
    desk.knows("w", tools.plan_of(step, output="{{ steps.kid.output }}", children={"kid": child}))
    return desk


async def view(desk: Any, run_id: str) -> RunView:
    found = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert isinstance(found, RunView)
    return found


def told(outbox: Any, kind: type[Any]) -> list[Any]:
    return [item.message for item in outbox if isinstance(item.message, kind)]


async def born(desk: Any, value: Any = None) -> tuple[str, str]:
    """A parent and its child, which has begun: their ids. What the child published is there to be taken."""
    run_id = await desk.start(value=value or {"n": 1})
    outbox = desk.bus.take()
    (start,) = told(outbox, ChildStart)
    await desk.deliver(outbox)
    return run_id, start.run_id


async def test_a_child_gives_its_output_to_its_parent(family: Any, tools: Any) -> None:
    run_id, child_id = await born(family)
    row = (await family.store.load([child_id]))[child_id]
    assert (row.tenant, row.facts["parent"], row.facts["workflow"]) == ("acme", run_id, "w")
    outbox = family.bus.take()
    (task,) = tools.tasks(outbox)
    assert task.run_id == child_id
    assert {item.envelope.context.correlation_id for item in outbox} == {child_id}
    await family.finish(task, output={"done": True})
    outbox = family.bus.take()
    (ended,) = told(outbox, ChildEnded)
    assert (ended.run_id, ended.child_run_id, ended.status) == (run_id, child_id, RunStatus.COMPLETED)
    await family.deliver(outbox)
    found = await view(family, run_id)
    assert (found.run.status, found.output) == (RunStatus.COMPLETED, {"done": True})
    assert (await view(family, child_id)).run.parent == run_id


async def test_a_child_that_fails_fails_its_parent(family: Any, tools: Any) -> None:
    run_id, child_id = await born(family)
    (task,) = tools.tasks(family.bus.take())
    await family.finish(task, tools.failed)
    await family.deliver(family.bus.take())
    assert (await view(family, child_id)).run.status is RunStatus.FAILED
    assert (await view(family, run_id)).run.status is RunStatus.FAILED


async def test_a_child_refuses_input_that_breaks_its_schema(family: Any, tools: Any) -> None:
    run_id, child_id = await born(family, {"n": "many"})
    outbox = family.bus.take()
    assert tools.tasks(outbox) == []
    child = await view(family, child_id)
    assert child.error is not None
    assert (child.run.status, child.error.code) == (RunStatus.FAILED, "input_schema_mismatch")
    await family.deliver(outbox)
    parent = await view(family, run_id)
    assert parent.error is not None
    assert (parent.error.code, parent.error.path) == ("input_schema_mismatch", "steps.kid")


async def test_a_start_that_comes_again_begins_one_child(family: Any, replica: Any, tools: Any) -> None:
    await family.start(value={"n": 1})
    outbox = family.bus.take()
    for desk in (family, replica, family):
        await desk.deliver(outbox, deliveries=2)
    published = family.bus.take()
    assert len({task.task_id for task in tools.tasks(published)}) == 1
    (child_id,) = {task.run_id for task in tools.tasks(published)}
    assert (await family.store.load([child_id]))[child_id].version == 2


async def test_a_parent_that_did_not_hear_the_end_asks_again(family: Any, tools: Any) -> None:
    run_id, _ = await born(family)
    (task,) = tools.tasks(family.bus.take())
    await family.finish(task, output=7)
    family.bus.take()  # what the child told is lost
    assert await family.tick(20) >= 1
    outbox = family.bus.take()
    assert told(outbox, ChildStart)
    await family.deliver(outbox)
    outbox = family.bus.take()
    assert told(outbox, ChildEnded)
    await family.deliver(outbox)
    assert (await view(family, run_id)).output == 7


async def test_a_cancel_reaches_the_child_and_comes_back(family: Any, tools: Any) -> None:
    run_id, child_id = await born(family)
    (task,) = tools.tasks(family.bus.take())
    await family.cancel(run_id)
    outbox = family.bus.take()
    assert told(outbox, ChildCancel)
    await family.deliver(outbox)
    assert (await view(family, child_id)).run.status is RunStatus.CANCELLING
    await family.finish(task, tools.cancelled)
    await family.deliver(family.bus.take())
    assert (await view(family, child_id)).run.status is RunStatus.CANCELLED
    assert (await view(family, run_id)).run.status is RunStatus.CANCELLED


async def test_a_child_that_is_cancelled_before_it_begins_never_does(family: Any, tools: Any) -> None:
    run_id = await family.start(value={"n": 1})
    start = family.bus.take()
    await family.cancel(run_id)
    await family.deliver(family.bus.take())
    await family.deliver(start)
    outbox = family.bus.take()
    assert tools.tasks(outbox) == []
    (ended, *_) = told(outbox, ChildEnded)
    assert (await view(family, ended.child_run_id)).run.status is RunStatus.CANCELLED
    await family.deliver(outbox)
    assert (await view(family, run_id)).run.status is RunStatus.CANCELLED


async def test_a_cancel_whose_answer_is_lost_is_answered_again(family: Any, tools: Any) -> None:
    run_id, _ = await born(family)
    (task,) = tools.tasks(family.bus.take())
    await family.cancel(run_id)
    await family.deliver(family.bus.take())
    await family.finish(task, tools.cancelled)
    family.bus.take()  # what the child told is lost
    assert await family.tick(3) >= 1
    outbox = family.bus.take()
    assert told(outbox, ChildCancel)
    await family.deliver(outbox)
    outbox = family.bus.take()
    assert told(outbox, ChildEnded)
    await family.deliver(outbox)
    assert (await view(family, run_id)).run.status is RunStatus.CANCELLED


async def test_every_plan_of_a_family_is_kept(family: Any) -> None:
    run_id, child_id = await born(family)
    plans = {(await view(family, one)).run.plan for one in (run_id, child_id)}
    assert plans == {digest for _, digest in family.shelf.plans}


async def test_a_child_of_a_plan_that_nobody_pinned_is_parked(family: Any, tools: Any) -> None:
    await family.start(value={"n": 1})
    (item,) = [item for item in family.bus.take() if isinstance(item.message, ChildStart)]
    body = item.message.model_copy(update={"plan": "sha256:none", "run_id": new_id("run")}).encode()
    for text, kind in ((body, NotFound), (b"{}", MalformedMessage)):
        receipt = tools.receipt()
        delivery = tools.delivery(item.subject, text, receipt, key="k", type_name=ChildStart.type_name)
        await family.service.take_in([delivery])
        assert [type(error) for error in receipt.parked] == [kind]


async def test_an_emitted_event_is_published_as_the_workflow_says(desk: Any, tools: Any) -> None:
    desk.knows("w", tools.plan_of({"id": "tell", "emit": {"event": "order_paid", "data": {"n": "{{ input.n }}"}}}))
    run_id = await desk.start(value={"n": 12})
    (item,) = [item for item in desk.bus.take() if ".evt.emit." in item.subject]
    assert item.subject == f"paracle.v1.acme.evt.emit.{run_id}.order_paid"
    (event,) = tools.events([item])
    assert (event["entity"], event["id"], event["seq"], event["type"]) == ("emit", run_id, 1, "order_paid")
    assert event["data"]["data"] == {"n": 12}
    assert item.envelope.type == "order_paid"
