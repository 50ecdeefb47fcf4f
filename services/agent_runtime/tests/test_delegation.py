"""Agents that turn to other agents: tasks of their own, one tree to limit, to cancel and to take up again."""

from __future__ import annotations

from datetime import UTC, datetime

from runtime_peers import Gateway, says
from runtime_plan import CONTEXT, sent, task
from runtime_stage import Stage, again, as_delivered, order, script
from runtime_world import World

from paracle_chassis.event_store import Append, Page
from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import ProviderFailed
from paracle_domain.ids import derive_id
from paracle_domain.task.events import TaskCancelled, dump_event
from paracle_domain.task.messages import Task, TaskStatus

ASK = says("", ("ask_helper", {"text": "poem"}))
DEEPER = [says("", ("ask_boss", {"text": f"deeper than {depth}"})) for depth in range(5)]


def child_of(stage: Stage, job: Task) -> str:
    [told] = [event for event in stage.events(job) if event.type == "task.delegated"]
    return str(told.data["task_id"])


def statuses(stage: Stage) -> list[str]:
    return sorted(actor.status for actor in stage.store.actors.values())


@script(ASK, says("", ("look", {"n": 1})), says("a poem"), says("here it is: a poem"))
async def test_a_delegate_works_on_a_task_of_its_own(stage: Stage):
    job = task("boss", "a poem, please")
    [result] = await stage.do(job)
    assert (result.status, result.output) == (TaskStatus.COMPLETED, "here it is: a poem")
    assert (result.usage.model_calls, result.usage.tool_calls, result.usage.total_tokens) == (4, 2, 60)
    child = stage.store.actors[child_of(stage, job)]
    assert (child.status, child.facts["target"], child.facts["run_id"]) == ("completed", "helper", job.run_id)
    assert [asked.labels.agent for asked in stage.gateway.asked] == ["boss", "helper", "helper", "boss"]
    assert stage.gateway.asked[1].messages[-1].text == "poem"
    assert stage.gateway.asked[1].stream_to == child.id
    assert list(stage.results()) == [job.task_id], "only the step's own task is told of"


@script(says("", ("hand_to_picky", {"text": "you do it"})), says("done by picky"))
async def test_a_handoff_ends_with_the_answer_of_who_took_over(stage: Stage):
    [result] = await stage.do(task("boss"))
    assert (result.status, result.output) == (TaskStatus.COMPLETED, "done by picky")


@script(says("", ("hand_to_picky", {"no": 1})), says("then I do it"))
async def test_a_question_is_held_against_the_delegates_schema(stage: Stage):
    [result] = await stage.do(task("boss"))
    assert result.output == "then I do it"
    assert '"text" is a required property' in stage.gateway.asked[1].messages[-1].tool_results[0].content


@script(ASK, ProviderFailed("bad"), says("without it, then"))
async def test_a_delegates_failure_is_told(stage: Stage):
    [result] = await stage.do(task("boss"))
    assert result.output == "without it, then"
    assert "provider_failed" in stage.gateway.asked[2].messages[-1].tool_results[0].content


@script(*DEEPER, None)
async def test_cancel_reaches_the_deepest_delegate(stage: Stage):
    job = task("boss")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: len(stage.gateway.asked) == 6)
    assert [t.name for t in stage.gateway.asked[5].tools] == ["look", "pay"], "nobody can be asked any deeper"
    await stage.bus.publish([order(job)])
    await eventually(lambda: job.task_id in stage.results())
    await eventually(lambda: stage.runtime.running == 0)
    assert stage.results()[job.task_id].status is TaskStatus.CANCELLED
    await eventually(lambda: statuses(stage) == ["cancelled"] * 6)
    assert stage.aborted >= 1
    deepest = stage.gateway.asked[5].call_id
    assert deepest in {told.message.call_id for told in stage.bus.broadcasts}  # type: ignore[attr-defined]  # all are aborts
    assert len(stage.gateway.asked) == 6


@script(*DEEPER[:2], None)
async def test_a_cancel_ends_a_tree_whose_process_is_gone(stage: Stage):
    job = task("boss")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: len(stage.gateway.asked) == 3)
    stage.runtime._entries[CONTEXT.tenant, job.task_id].cancelled = True  # it will not hear of it: as if it were gone
    await stage.bus.publish([order(job)])
    await eventually(lambda: statuses(stage) == ["cancelled"] * 3)
    await eventually(lambda: stage.aborted == 1)
    stage.runtime._entries[CONTEXT.tenant, job.task_id].stop()


@script(says("", ("ask_boss", {"text": "x"})), None)
async def test_an_ended_task_leaves_no_delegate_at_work(stage: Stage):
    [result] = await stage.do(task("brief"))
    assert result.error
    assert result.error.code == "limit_exceeded"
    assert "running" not in statuses(stage)


async def test_a_tree_goes_on_where_it_was_and_what_is_done_is_not_done_again():
    stage = Stage(Gateway(says("", ("ask_helper", {"text": "1"}), ("ask_boss", {"text": "2"})), says("one"), ASK, None))
    job = task("boss")
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(job)])
        await eventually(lambda: len(stage.gateway.asked) == 4)
        await stage.bus.drain(0.05)
    assert job.task_id not in stage.results()
    stage.gateway.script = [*stage.gateway.script[:3], says("inner"), says("two"), says("all of it")]
    heir = World(stage.bus, stage.store)
    async with heir.runtime:
        await heir.runtime.take([again(as_delivered(job))])
        await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].output == "all of it"
    assert statuses(stage) == ["completed"] * 4
    said = [result.content for result in stage.gateway.asked[-1].messages[-1].tool_results]
    assert said == ["one", "two"]
    assert len({asked.call_id for asked in stage.gateway.asked}) == 6, "no finished call was asked for again"


async def test_a_task_that_ended_without_ending_its_delegates_does_so_when_it_comes_again():
    stage = Stage(Gateway(ASK, None))
    job = task("boss")
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(job)])
        await eventually(lambda: len(stage.gateway.asked) == 2)
        await stage.bus.drain(0.05)
    version = stage.store.actors[job.task_id].version
    page = Page(version + 1, "cancel", datetime.now(UTC), (dump_event(TaskCancelled(reason="enough")),))
    assert not await stage.store.append([Append(job.task_id, "default", version, (page,), TaskStatus.CANCELLED)])
    heir = World(stage.bus, stage.store)
    async with heir.runtime:
        await heir.runtime.take([again(as_delivered(job))])
        await eventually(lambda: job.task_id in stage.results())
    assert statuses(stage) == ["cancelled"] * 2
    assert len({asked.call_id for asked in stage.gateway.asked}) == 2


@script(
    says("", ("ask_helper", {"text": "pay"})),
    says("", ("pay", {"n": 1})),
    says("paid"),
    ProviderFailed("no more"),
    says("", ("ask_helper", {"text": "pay"})),
    says("", ("pay", {"n": 1})),
    says("paid"),
    says("all paid"),
)
async def test_the_next_attempt_does_not_repeat_what_a_delegate_has_done(stage: Stage):
    first = task("boss")
    second = first.model_copy(update={"attempt": 2, "task_id": derive_id("task", first.run_id, "s", 2)})
    [failure] = await stage.do(first)
    [success] = await stage.do(second)
    assert (failure.status, success.output) == (TaskStatus.FAILED, "all paid")
    assert [name for name, _ in stage.toolbox.calls] == ["pay"]


@script(says("", ("ask_helper", {"text": "1"}), ("ask_helper", {"text": "2"}), ("ask_helper", {"text": "3"})), None)
async def test_delegates_of_a_turn_work_side_by_side(stage: Stage):
    job = task("boss")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: len(stage.gateway.asked) == 4)
    await stage.bus.publish([order(job)])
    await eventually(lambda: statuses(stage) == ["cancelled"] * 4)
