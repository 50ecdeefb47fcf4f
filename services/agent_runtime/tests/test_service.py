"""The runtime on a bus and a store in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from memory_ports import MemoryLeases
from runtime_peers import Gateway, says
from runtime_plan import CONTEXT, PLAN, cancel, sent, task
from runtime_stage import Stage, again, as_delivered, order, script
from runtime_world import World

from paracle_agent_runtime.pools import Pools
from paracle_agent_runtime.tools.toolbox import ToolEnd
from paracle_chassis.bus import Outgoing
from paracle_chassis.delivery import Delivery
from paracle_chassis.event_store import Append, Page
from paracle_chassis.testing.eventually import eventually
from paracle_domain import subjects
from paracle_domain.dead_letters import DEAD_TOLD
from paracle_domain.errors import PayloadTooLarge, ProviderFailed, ProviderUnavailable, Unavailable
from paracle_domain.ids import derive_id
from paracle_domain.task.messages import Task, TaskResult, TaskStatus


async def test_tools_that_change_nothing_leave_no_row(stage: Stage):
    results = await stage.do(*[task("look", {"n": n}) for n in range(200)])
    assert [r.output for r in results] == [{"n": n} for n in range(200)]
    assert {r.status for r in results} == {TaskStatus.COMPLETED}
    assert results[0].usage.tool_calls == 1
    assert stage.store.writes == 0
    assert stage.orchestrator.asked == 1


async def test_a_tool_tasks_failures_are_results(stage: Stage):
    wrong, late, shape, lost = await stage.do(
        task("look", {"n": "x"}),
        task("look", {}, deadline_at=datetime.now(UTC) - timedelta(seconds=1)),
        task("look", [1]),
        task("look", {}, plan="sha256:none"),
    )
    assert wrong.error
    assert (wrong.error.code, wrong.error.path) == ("input_schema_mismatch", "arguments.n")
    assert late.status is TaskStatus.TIMED_OUT
    assert shape.error
    assert shape.error.path == "input"
    assert lost.error
    assert lost.error.code == "not_found"


async def test_a_deadline_cuts_a_tool_off(stage: Stage):
    deadline = datetime.now(UTC) + timedelta(seconds=0.2)
    [result] = await stage.do(task("nap", {"seconds": 60}, deadline_at=deadline))
    assert result.status is TaskStatus.TIMED_OUT


@script(says("", ("look", {"n": 1}), ("save", {"a": 1}), ("look", {"n": "x"}), ("ghost", {})), says("done"))
async def test_an_agent_calls_tools_and_answers(stage: Stage):
    job = task("helper", "hello")
    [result] = await stage.do(job)
    assert (result.status, result.output) == (TaskStatus.COMPLETED, "done")
    assert (result.usage.model_calls, result.usage.tool_calls, result.usage.total_tokens) == (2, 4, 30)
    assert sorted(name for name, _ in stage.toolbox.calls) == ["look", "save"]
    told = {r.call_id: r for r in stage.gateway.asked[1].messages[-1].tool_results}
    assert (told["c0"].content, told["c0"].is_error) == ('{"n": 1}', False)
    assert "arguments.n" in told["c2"].content
    assert "there is no tool 'ghost'" in told["c3"].content
    events = stage.events(job)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert events[0].type == "task.accepted"
    assert events[-1].type == "task.completed"
    assert {e.correlation_id for e in events} == {job.run_id}
    assert [e.type for e in events if e.type.startswith("effect")] == [
        "effect.intended",
        "effect.sent",
        "effect.confirmed",
    ]
    [row] = (await stage.store.load([job.task_id])).values()
    assert (row.status, row.version, row.facts["target"]) == ("completed", len(events), "helper")
    assert stage.gateway.asked[0].stream_to == job.task_id


@script(says("no json"), says('```json\n{"label": "bug"}\n```'))
async def test_an_answer_is_mended_until_it_fits(stage: Stage):
    [result] = await stage.do(task("strict"))
    assert result.output == {"label": "bug"}
    assert "it is no JSON" in stage.gateway.asked[1].messages[-1].text


@script(says("{}"), says("{}"))
async def test_an_answer_that_never_fits_is_a_failure(stage: Stage):
    [result] = await stage.do(task("strict"))
    assert result.error
    assert result.error.code == "output_invalid"
    assert result.output is None


@script(says("{}"))
async def test_a_schema_that_is_none_is_a_clear_failure(stage: Stage):
    [result] = await stage.do(task("broken"))
    assert result.error
    assert result.error.code == "output_invalid"
    assert "is no JSON Schema" in result.error.message


async def test_input_is_held_against_the_agents_schema(stage: Stage):
    [result] = await stage.do(task("picky", {"no": 1}))
    assert result.error
    assert result.error.code == "input_schema_mismatch"
    assert stage.gateway.asked == []


async def test_a_name_too_long_to_account_under_is_refused_and_breaks_nothing(stage: Stage):
    [result] = await stage.do(task("helper", "hello", principal="a" * 257))
    assert result.error
    assert (result.error.code, result.error.path) == ("invalid_input", "principal")
    assert "257 characters" in result.error.message
    assert stage.gateway.asked == []


@script(ProviderUnavailable("overloaded", retry_after_s=0.01), says("at last"))
async def test_a_provider_that_is_away_for_a_moment_is_asked_again(stage: Stage):
    job = task("helper")
    [result] = await stage.do(job)
    assert result.output == "at last"
    assert "task.model_call_failed" in [e.type for e in stage.events(job)]
    assert len({asked.call_id for asked in stage.gateway.asked}) == 2


@script(ProviderFailed("bad request"))
async def test_a_provider_that_refuses_fails_the_task(stage: Stage):
    [result] = await stage.do(task("helper"))
    assert result.error
    assert (result.status, result.error.code) == (TaskStatus.FAILED, "provider_failed")


@script(None)
async def test_wall_time_ends_a_task_and_its_model_call(stage: Stage):
    [result] = await stage.do(task("hasty"))
    assert result.status is TaskStatus.TIMED_OUT
    await eventually(lambda: stage.aborted == 1)


@script(None)
async def test_cancel_stops_a_running_task(stage: Stage):
    job = task("helper")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.gateway.asked)
    await stage.bus.publish([order(job)])
    await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].status is TaskStatus.CANCELLED
    await eventually(lambda: stage.runtime.running == 0)
    assert stage.events(job)[-1].type == "task.cancelled"
    await eventually(lambda: stage.aborted == 1)


@script(None)
async def test_nobody_stops_the_task_of_another_tenant(stage: Stage):
    job, later = task("helper"), task("look", {"n": 1})
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.gateway.asked)
    orders = [order(each, "evil") for each in (job, later)]
    await stage.bus.publish(orders)
    answers = {subjects.result("evil", each.run_id) for each in (job, later)}
    await eventually(lambda: answers <= {out.subject for out in stage.bus.published})
    told = subjects.evt("evil", "task", job.task_id, "task_cancelled")
    await stage.bus.broadcast(Outgoing(told, orders[0].message, orders[0].envelope))
    assert not stage.runtime._entries[CONTEXT.tenant, job.task_id].cancelled
    await stage.bus.publish([sent(later)])
    await eventually(lambda: [name for name, _ in stage.toolbox.calls] == ["look"])


async def test_cancel_stops_a_tool_without_a_row(stage: Stage):
    job = task("nap", {"seconds": 60})
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.toolbox.calls)
    await stage.bus.publish([order(job)])
    await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].status is TaskStatus.CANCELLED
    await eventually(lambda: stage.runtime.running == 0)


@pytest.mark.parametrize("target", ["helper", "look"])
async def test_a_cancel_that_comes_first_keeps_the_task_from_beginning(stage: Stage, target: str):
    job = task(target)
    await stage.bus.publish([order(job)])
    await eventually(lambda: job.task_id in stage.results())
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.runtime.running == 0)
    assert stage.results()[job.task_id].status is TaskStatus.CANCELLED
    assert stage.gateway.asked == []
    assert stage.toolbox.calls == []


@pytest.mark.parametrize("target", ["helper", "look"])
async def test_a_replica_that_started_later_sees_the_tombstone_in_the_journal(stage: Stage, target: str):
    job = task(target)
    await stage.bus.publish([order(job)])
    await eventually(lambda: job.task_id in stage.results())
    stage.runtime._cancelled.clear()
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.asked and stage.runtime.running == 0)
    assert stage.gateway.asked == []
    assert stage.toolbox.calls == []


@pytest.mark.parametrize("target", ["helper", "look"])
async def test_what_waited_while_its_run_was_cancelled_does_not_begin(stage: Stage, target: str):
    """No runtime was there to hear of it: the cancel is on its way still, behind the task."""
    job = task(target)
    stage.orchestrator.over.add(job.task_id)
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.orchestrator.asked and stage.runtime.running == 0)
    assert stage.gateway.asked == []
    assert stage.toolbox.calls == []
    assert stage.results() == {}
    await stage.bus.publish([order(job)])
    await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].status is TaskStatus.CANCELLED


@script(None)
async def test_a_cancel_calls_the_model_call_of_a_dead_replica_off(stage: Stage):
    job = task("helper")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.gateway.asked)
    stage.runtime._entries[CONTEXT.tenant, job.task_id].cancelled = True  # it will not hear of it: as if it were gone
    await stage.bus.publish([order(job)])
    await eventually(lambda: stage.aborted == 1)
    stage.runtime._entries[CONTEXT.tenant, job.task_id].stop()


async def test_many_are_cancelled_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    naps = [task("nap", {"seconds": 60}) for _ in range(20)]
    await stage.bus.publish([sent(nap) for nap in naps])
    await eventually(lambda: len(stage.toolbox.calls) == len(naps))
    append, batches = stage.store.append, list[int]()

    async def counted(appends: Any) -> Any:
        batches.append(len(appends))
        return await append(appends)

    monkeypatch.setattr(stage.store, "append", counted)
    await stage.bus.publish([order(nap) for nap in naps])
    await eventually(lambda: len(stage.results()) == len(naps))
    assert {result.status for result in stage.results().values()} == {TaskStatus.CANCELLED}
    assert max(batches) > 1


async def test_an_outage_of_the_orchestrator_uses_up_no_deliveries(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    get, away = stage.plans.get, [Unavailable("the orchestrator is away")] * 3

    async def sometimes(digest: str, context: Any) -> Any:
        if away:
            raise away.pop()
        return await get(digest, context)

    monkeypatch.setattr(stage.plans, "get", sometimes)
    begin, taken = stage.runtime._begin, list[int]()

    def counted(job: Task, delivery: Delivery, *more: Any) -> None:
        taken.append(delivery.deliveries)
        begin(job, delivery, *more)

    monkeypatch.setattr(stage.runtime, "_begin", counted)
    [result] = await stage.do(task("look", {"n": 1}))
    assert result.status is TaskStatus.COMPLETED
    assert (away, taken) == ([], [1])


@script(says("once"))
async def test_a_finished_task_is_not_run_again_and_a_finished_one_is_not_cancelled(stage: Stage):
    job = task("helper")
    [first] = await stage.do(job)
    count = len(stage.bus.published)
    await stage.bus.publish([sent(job, id="again"), order(job)])
    await eventually(lambda: stage.runtime.running == 0)
    assert len(stage.gateway.asked) == 1
    assert len(stage.bus.published) == count + 2
    assert stage.results()[job.task_id] == first


@script(None)
async def test_a_task_that_a_live_replica_has_is_left_to_it(stage: Stage):
    job = task("helper")
    other = MemoryLeases()
    assert isinstance(stage.leases, MemoryLeases)
    stage.leases.live.add(other.worker)
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.gateway.asked)
    stage.leases.owners[job.task_id] = other.worker
    rival = World(stage.bus, stage.store, stage.leases)
    async with rival.runtime:
        entry = stage.runtime._entries[CONTEXT.tenant, job.task_id]
        await rival.runtime.take([again(entry.deliveries[0])])
        await eventually(lambda: rival.runtime.running == 0)
    assert len(stage.gateway.asked) == 1


async def test_what_is_no_task_is_buried(stage: Stage):
    wrong = sent(task("look"))
    await stage.bus.publish([Outgoing(wrong.subject, cancel(task("look")), wrong.envelope)])
    await eventually(lambda: stage.bus.dead)
    [result] = await stage.do(task("look"))
    assert result.status is TaskStatus.COMPLETED


async def test_concurrency_is_bounded():
    stage = Stage(Gateway(), pools=Pools({"agents": 2}))
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(task("nap", {"seconds": 60})) for _ in range(5)])
        await eventually(lambda: len(stage.toolbox.calls) == 2)
        assert stage.runtime.running == 2
        await stage.bus.drain(0.05)


async def test_a_tool_that_changes_nothing_does_not_keep_the_process_from_stopping():
    stage = Stage(Gateway())
    stage.runtime._drain_s = 600
    async with asyncio.timeout(30), stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(task("nap", {"seconds": 600}))])
        await eventually(lambda: stage.toolbox.calls)
        await stage.bus.drain(0.05)
    assert stage.runtime.running == 0
    assert not stage.results()


async def test_an_effect_under_way_when_the_process_stops_is_in_doubt_not_repeated():
    stage = Stage(Gateway())
    job = task("hang", {"seconds": 60})
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(job)])
        await eventually(lambda: stage.toolbox.calls)
        await stage.bus.drain(0.05)
    heir = World(stage.bus, stage.store)
    async with heir.runtime:
        await heir.runtime.take([again(as_delivered(job))])
        await eventually(lambda: job.task_id in stage.results())
    error = stage.results()[job.task_id].error
    assert error
    assert error.code == "effect_in_doubt"
    assert heir.toolbox.calls == []


@script(says("", ("pay", {"n": 1})), ProviderFailed("no more"), says("", ("pay", {"n": 1})), says("paid"))
async def test_the_next_attempt_does_not_repeat_what_the_first_has_done(stage: Stage):
    first = task("helper")
    second = first.model_copy(update={"attempt": 2, "task_id": derive_id("task", first.run_id, "s", 2)})
    [failure] = await stage.do(first)
    [success] = await stage.do(second)
    assert (failure.status, success.output) == (TaskStatus.FAILED, "paid")
    assert [name for name, _ in stage.toolbox.calls] == ["pay"]


async def test_a_result_that_cannot_be_published_becomes_a_failure(monkeypatch: pytest.MonkeyPatch, stage: Stage):
    publish = stage.bus.publish

    async def refuse(messages: Any) -> None:
        if any(isinstance(m.message, TaskResult) and m.message.output for m in messages):
            raise PayloadTooLarge("too large")
        await publish(messages)

    monkeypatch.setattr(stage.bus, "publish", refuse)
    [result] = await stage.do(task("look", {"n": 1}))
    assert result.error
    assert result.error.code == "payload_too_large"


@script(says("after the outage"))
async def test_outages_of_the_store_and_the_bus_are_waited_out(monkeypatch: pytest.MonkeyPatch, stage: Stage):
    append, publish = stage.store.append, stage.bus.publish
    failures = {"append": 2, "publish": 2}

    async def unsure_append(appends: Any) -> set[str]:
        lost = await append(appends)
        if failures["append"]:
            failures["append"] -= 1
            raise ConnectionResetError("written, but the answer was lost")
        return lost

    async def flaky_publish(messages: Any) -> None:
        if failures["publish"]:
            failures["publish"] -= 1
            raise Unavailable("NATS is away")
        await publish(messages)

    monkeypatch.setattr(stage.store, "append", unsure_append)
    job = task("helper")
    await publish([sent(job)])
    monkeypatch.setattr(stage.bus, "publish", flaky_publish)
    await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].output == "after the outage"
    assert len(stage.gateway.asked) == 1
    assert [e.seq for e in stage.events(job)] == [1, 2, 3]


async def test_the_outbox_outlives_what_cannot_be_published(monkeypatch: pytest.MonkeyPatch, stage: Stage):
    publish, failures = stage.bus.publish, [TypeError("a bug"), TypeError("a bug, alone")]

    async def broken(messages: Any) -> None:
        if failures:
            raise failures.pop()
        await publish(messages)

    job = task("look", {"n": 1})
    await publish([sent(job)])
    monkeypatch.setattr(stage.bus, "publish", broken)
    await eventually(lambda: job.task_id in stage.results())  # its delivery was given back, and came again
    assert [name for name, _ in stage.toolbox.calls] == ["look", "look"]


async def test_a_result_that_is_no_json_becomes_a_failure(monkeypatch: pytest.MonkeyPatch, stage: Stage):
    async def half(*_: Any, **__: Any) -> ToolEnd:
        return ToolEnd(0.1, "half a pair: \ud83d")

    monkeypatch.setattr(stage.toolbox, "call", half)
    [result] = await stage.do(task("look", {"n": 1}))
    assert result.error
    assert result.error.code == "internal"
    assert "cannot be published" in result.error.message


async def test_what_keeps_breaking_fails_visibly(monkeypatch: pytest.MonkeyPatch, stage: Stage):
    async def broken(_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(stage.shop.journal, "append", broken)
    [result] = await stage.do(task("helper"))
    assert result.error
    assert result.error.code == "internal"
    assert {DEAD_TOLD in headers for _, _, headers in stage.bus.dead} == {True}  # its run does not wait for it


async def test_two_writers_of_one_task_in_one_batch_do_not_both_win(stage: Stage):
    page = Page(1, "cause", datetime.now(UTC), (b"{}",))
    appends = [Append("task_x", "default", 0, (page,), status, facts={}) for status in ("queued", "failed")]
    assert list(await stage.shop.journal._append_all(appends)) == [False, True]


async def test_a_plan_is_asked_for_once(stage: Stage):
    await asyncio.gather(*(stage.plans.get(PLAN.digest, CONTEXT) for _ in range(10)))
    assert stage.orchestrator.asked == 1
