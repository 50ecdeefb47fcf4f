"""The ledger of effects: what lists show, what people resolve, and who believes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from memory_ports import MemoryEffects
from pydantic import JsonValue
from runtime_peers import says
from runtime_plan import CONTEXT, sent, task
from runtime_stage import Stage, script

from paracle_agent_runtime.adapters.effects import PostgresEffects
from paracle_agent_runtime.ports import Effects
from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import migrated
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, InvalidInput, NotFound
from paracle_domain.ids import derive_id, new_id
from paracle_domain.machine import EventRecord
from paracle_domain.task.effects import (
    EffectFilter,
    EffectState,
    EffectView,
    GetEffect,
    ListEffects,
    Resolution,
    ResolveEffect,
)
from paracle_domain.task.ledger import Entry
from paracle_domain.task.messages import TaskStatus

RUN = new_id("run")
AT = datetime(2026, 1, 1, tzinfo=UTC)
FOUND = Resolution(outcome="done", output={"id": "7\x00"}, reason="the bank says so", principal="ann", at=AT)


def entry(n: int = 0, state: str = "sent", attempt: int = 1, seq: int = 2, *, sent: bool = True, **more: Any) -> Entry:
    at = AT + timedelta(seconds=n)
    fields = {
        "key": derive_id("eff", RUN, n),
        "state": state,
        "effect": "at_most_once",
        "tool": "pay",
        "revision": 1,
        "run_id": RUN,
        "step": "s",
        "attempt": attempt,
        "task_id": derive_id("task", RUN, "s", attempt),
        "call_id": derive_id("call", RUN, n),
        "scope": "s",
        "arguments_digest": "d",
        "intended_at": at,
        "changed_at": at,
    }
    return Entry(EffectView.model_validate({**fields, **more}), seq, sent)


@pytest.fixture
def in_memory() -> Effects:
    return MemoryEffects()


@pytest.fixture
async def in_postgres(postgres_dsn: str) -> AsyncIterator[Effects]:
    await migrated(postgres_dsn, "paracle_agent_runtime")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_agent_runtime") as database:
        yield PostgresEffects(database.pool, Queries.load("paracle_agent_runtime"))


@pytest.fixture(params=["in_memory", pytest.param("in_postgres", marks=pytest.mark.connected)])
def effects(request: pytest.FixtureRequest) -> Effects:
    found: Effects = request.getfixturevalue(request.param)
    return found


async def states(effects: Effects, **wanted: Any) -> list[tuple[str, str]]:
    page = await effects.page(ListEffects(filter=EffectFilter(**wanted)), "acme")
    return [(one.key, one.state) for one in page.effects]


async def test_what_is_known_last_counts_in_whatever_order_it_comes(effects: Effects):
    first, doubt = entry(seq=3), entry(state="in_doubt", seq=5, reason="it\x00broke")
    await effects.enter([("acme", doubt), ("acme", first)])
    await effects.enter([("acme", first)])
    await effects.enter([])
    found = await effects.get("acme", first.view.key)
    assert found == doubt.view
    assert await effects.get("evil", first.view.key) is None
    later = entry(state="confirmed", attempt=2, seq=2)
    await effects.enter([("acme", later)])
    await effects.enter([("acme", doubt)])
    assert await effects.get("acme", first.view.key) == later.view


async def test_lists_are_filtered_and_paged(effects: Effects):
    many = [entry(n) for n in range(5)]
    await effects.enter([("acme", one) for one in many] + [("evil", entry(9))])
    await effects.enter([("acme", entry(2, "in_doubt", seq=3))])
    keys = [one.view.key for one in many]
    assert [key for key, _ in await states(effects)] == keys[::-1]
    assert await states(effects, state="in_doubt") == [(keys[2], "in_doubt")]
    assert await states(effects, tool="save") == []
    assert await states(effects, run_id=new_id("run")) == []
    since, until = AT + timedelta(seconds=1), AT + timedelta(seconds=3)
    assert [key for key, _ in await states(effects, since=since, until=until, tool="pay", run_id=RUN)] == keys[2:0:-1]
    first = await effects.page(ListEffects(limit=3), "acme")
    second = await effects.page(ListEffects(limit=3, cursor=first.next_cursor), "acme")
    assert [one.key for one in (*first.effects, *second.effects)] == keys[::-1]
    assert second.next_cursor is None


async def test_only_what_is_in_doubt_is_resolved_and_calling_again_makes_that_void(effects: Effects):
    key = entry().view.key
    assert not await effects.resolve("acme", key, FOUND)
    await effects.enter([("acme", entry(state="in_doubt", seq=3)), ("acme", entry(1, "confirmed", seq=3))])
    assert not await effects.resolve("evil", key, FOUND)
    assert await effects.resolve("acme", key, FOUND)
    assert not await effects.resolve("acme", key, FOUND)
    assert await effects.resolutions("acme", [key, entry(1).view.key]) == {key: FOUND}
    assert [one.key for one in await effects.doubtful("acme", RUN, "s")] == [key]
    assert await effects.doubtful("acme", RUN, "t") == []
    await effects.enter([("acme", entry(state="in_doubt", attempt=2, sent=False))])
    view = await effects.get("acme", key)
    assert view is not None
    assert (view.state, view.resolution, view.resolved, view.attempt) == (EffectState.RESOLVED, FOUND, 1, 2)
    await effects.enter([("acme", entry(state="in_doubt", attempt=3))])
    view = await effects.get("acme", key)
    assert view is not None
    assert (view.state, view.resolution, view.resolved) == (EffectState.IN_DOUBT, None, 1)


async def test_what_is_being_probed_is_resolved_only_once_that_is_over(effects: Effects):
    probe = {"tool": "find", "tried": 1, "outcome": "unknown", "reason": "away\x00", "open": True}
    asked = entry(state="in_doubt", seq=3, probe=probe, called=entry(1).view.key)
    await effects.enter([("acme", asked)])
    assert await effects.get("acme", asked.view.key) == asked.view
    assert not await effects.resolve("acme", asked.view.key, FOUND)
    await effects.enter([("acme", entry(state="in_doubt", seq=4, probe={**probe, "open": False}))])
    assert await effects.resolve("acme", asked.view.key, FOUND)


@pytest.mark.connected
@pytest.mark.parametrize("cursor", ["x", "eA==", "w7w=", "MjAyNi0wMS0wMSBydW5fMQ=="])
async def test_a_cursor_is_taken_as_it_is(in_postgres: Effects, cursor: str):
    with pytest.raises(InvalidInput, match="is no cursor"):
        await in_postgres.page(ListEffects(cursor=cursor), "acme")


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def listed(stage: Stage, **wanted: Any) -> list[EffectView]:
    page = await stage.bus.call(ListEffects(filter=EffectFilter(**wanted)), CONTEXT)
    return list(page.effects)


async def resolve(stage: Stage, key: str, outcome: str = "done", context: Context = CONTEXT) -> EffectView:
    output = {"id": 7} if outcome == "done" else None
    command = ResolveEffect(key=key, outcome=outcome, output=output, reason="looked")
    return EffectView.model_validate(await stage.bus.command(command, context, timeout_s=5))


async def doubt(stage: Stage, **changes: Any) -> Any:
    """A task whose one call of `pay` is in doubt."""
    job, begun = task("hang", {"seconds": 60}, **changes), len(stage.toolbox.calls)
    late = job.model_copy(update={"deadline_at": stage.shop.clock() + timedelta(seconds=20)})
    doing = asyncio.create_task(stage.do(late))
    await eventually(lambda: len(stage.toolbox.calls) > begun)
    stage.later(20)  # a call may take longer
    [result] = await doing
    assert result.error is not None
    assert result.error.code == "effect_in_doubt"
    return job


@script(says("", ("save", {"a": 1}), ("look", {"n": 1})), says("done"))
async def test_what_is_done_is_listed(stage: Stage):
    job = task("helper", "go")
    await stage.do(job)
    [view] = await listed(stage)
    assert (view.state, view.tool, view.run_id, view.task_id) == ("confirmed", "save", job.run_id, job.task_id)
    assert await stage.bus.call(GetEffect(key=view.key), CONTEXT) == view
    with pytest.raises(NotFound):
        await stage.bus.call(GetEffect(key=view.key), replace(CONTEXT, tenant="evil"))


async def test_what_somebody_knows_to_be_done_is_not_done_again(stage: Stage):
    job = await doubt(stage)
    [view] = await listed(stage, state="in_doubt")
    assert view.reason == "the time was up while it was being called"
    found = await resolve(stage, view.key)
    assert found.resolution is not None
    assert (found.state, found.resolution.principal, found.resolution.reason) == ("resolved", "ada", "looked")
    assert await resolve(stage, view.key) == found
    with pytest.raises(Conflict, match="is resolved, not in doubt"):
        await resolve(stage, view.key, "not_done")
    told = [m.message for m in stage.bus.published if isinstance(m.message, EventRecord)]
    audit = [one for one in told if one.entity == "effect"]
    assert {(one.id, one.seq, one.type, one.data["principal"]) for one in audit} == {
        (view.key, 1, "effect.resolved", "ada")
    }
    [result] = await stage.do(job.model_copy(update={"task_id": derive_id("task", job.run_id, 2), "attempt": 2}))
    assert (result.status, result.output) == (TaskStatus.COMPLETED, {"id": 7})
    assert len(stage.toolbox.calls) == 1


async def test_what_was_not_done_has_no_output(stage: Stage):
    await doubt(stage)
    [view] = await listed(stage)
    command = ResolveEffect(key=view.key, outcome="not_done", output={"id": 7}, reason="looked")
    with pytest.raises(InvalidInput, match="has answered nothing"):
        await stage.bus.command(command, CONTEXT, timeout_s=5)
    assert await listed(stage, state="in_doubt") == [view]


async def test_an_output_that_nests_deeper_than_lists_of_effects_may_is_refused(stage: Stage):
    await doubt(stage)
    [view] = await listed(stage)
    deep: JsonValue = 1
    for _ in range(151):
        deep = [deep]
    command = ResolveEffect(key=view.key, outcome="done", output=deep, reason="looked")
    with pytest.raises(InvalidInput, match="more than 150 levels") as caught:
        await stage.bus.command(command, CONTEXT, timeout_s=5)
    assert caught.value.path == "output"
    assert await listed(stage, state="in_doubt") == [view]


async def test_what_was_not_done_may_be_done_by_the_next_attempt(stage: Stage):
    job = await doubt(stage)
    [view] = await listed(stage)
    await resolve(stage, view.key, "not_done")
    await doubt(stage, run_id=job.run_id, task_id=derive_id("task", job.run_id, 2), attempt=2)
    assert [key for _, key in stage.toolbox.calls] == [view.key] * 2
    [again] = await listed(stage, state="in_doubt")
    assert (again.key, again.attempt, again.resolution) == (view.key, 2, None)


async def test_a_fork_goes_by_the_ledger_of_what_it_is_forked_from(stage: Stage):
    job = await doubt(stage)
    [view] = await listed(stage)
    fork = task("hang", {"seconds": 60}, forked_from=job.run_id)
    [result] = await stage.do(fork)
    assert result.error is not None
    assert result.error.code == "effect_in_doubt"
    await resolve(stage, view.key)
    [result] = await stage.do(task("hang", {"seconds": 60}, forked_from=job.run_id))
    assert result.output == {"id": 7}
    assert len(stage.toolbox.calls) == 1


async def test_what_there_is_not_cannot_be_resolved(stage: Stage):
    with pytest.raises(NotFound, match="there is no effect"):
        await resolve(stage, derive_id("eff", RUN, "x"))


async def test_a_ledger_that_is_away_is_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    keep, tries = stage.effects.enter, SimpleNamespace(count=0)

    async def enter(entries: Any) -> None:
        tries.count += 1
        if tries.count == 1:
            raise ConnectionRefusedError
        await keep(entries)

    monkeypatch.setattr(stage.effects, "enter", enter)
    job = task("save", {"a": 1})
    await stage.bus.publish([sent(job)])
    await eventually(lambda: job.task_id in stage.results())
    assert [view.state for view in await listed(stage)] == [EffectState.CONFIRMED]
    assert len(stage.toolbox.calls) == 1
