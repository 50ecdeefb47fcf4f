"""What every `TriggerStore` promises, in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from trigger_memory import MemoryTriggerStore

from paracle_chassis.event_store import Append, Page, PostgresEventStore
from paracle_chassis.postgres import Queries
from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import id_from_key
from paracle_domain.plan import Plan, PlannedWorkflow
from paracle_domain.registry import TriggerChange
from paracle_domain.run.commands import RunStatus, StartRun
from paracle_domain.trigger.commands import Cause, FireStatus, TriggerCounts
from paracle_domain.workflow.spec import WorkflowSpec
from paracle_orchestrator.adapters import trigger_store
from paracle_orchestrator.adapters.postgres import RUN_TABLES
from paracle_orchestrator.adapters.trigger_store import KEPT_STARTS, PostgresTriggerStore
from paracle_orchestrator.facts import facts_of
from paracle_orchestrator.triggers.learning import learn
from paracle_orchestrator.triggers.ports import Decided, MessageKey, Start, Trigger, TriggerStore

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTELY = {"workflow": "w", "input": {"é": "{{ trigger.name }}\n"}, "schedule": {"cron": "* * * * *"}}
ORDERS = {"workflow": "w", "subject": {"topic": "orders.*"}}
KEY = ("acme", "t")
SPEC = WorkflowSpec.model_validate({"steps": [{"id": "a", "tool": "t"}]})
PLAN = Plan.pin(PlannedWorkflow(name="w", revision=1, spec=SPEC), {}, {})


@dataclass
class World:
    """A store, and a way to say how the runs are that it knows of."""

    store: TriggerStore
    pool: Any = None

    async def run(self, run_id: str, status: RunStatus) -> None:
        if isinstance(self.store, MemoryTriggerStore):
            self.store.runs[run_id] = status
            return
        facts = facts_of(PLAN, principal="trigger:t", request="r", labels={})
        events = PostgresEventStore(self.pool, RUN_TABLES)
        loaded = await events.load([run_id])
        seq = loaded[run_id].version if run_id in loaded else 0
        page = Page(seq + 1, f"c{seq}", AT, (b'{"type":"x"}',))
        finished = AT if status.terminal else None
        lost = await events.append(
            [Append(run_id, "acme", seq, (page,), status.value, None, finished, None if seq else facts)]
        )
        assert not lost

    async def learn(self, *changes: TriggerChange, tenant: str = "acme", version: int = 1) -> None:
        await self.store.learn(tenant, changes, version, AT, partial(_learn, tenant))

    async def get(self, name: str = "t") -> Trigger:
        found = await self.store.get("acme", name)
        assert found is not None
        return found


def _learn(tenant: str, known: Trigger | None, changed: TriggerChange) -> Trigger | None:
    return learn(known, changed, tenant)


def change(name: str = "t", revision: int = 1, spec: Any = MINUTELY, **more: Any) -> TriggerChange:
    return TriggerChange(name=name, revision=revision, spec=spec, author="ann", at=AT, version=revision, **more)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return World(MemoryTriggerStore())
    pool = request.getfixturevalue("pool")
    return World(PostgresTriggerStore(pool, Queries.load("paracle_orchestrator")), pool)


def start(number: int = 1, **more: Any) -> Start:
    """A start of the trigger, of minute `number`."""
    run_id = id_from_key("run", f"start {number}", number)
    given: dict[str, Any] = {
        "cause": Cause.SCHEDULE,
        "at": AT,
        "command": StartRun(workflow="w", input={"n": number}, run_id=run_id),
        "scheduled_at": AT + timedelta(minutes=number),
    }
    return Start(run_id, *KEY, **(given | more))


def deciding(*starts: Start, **changes: Any) -> Any:
    def decide(trigger: Trigger, under_way: Sequence[str]) -> Decided:
        return Decided(replace(trigger, due_at=None, **changes), starts)

    return decide


# ── what the registry has ────────────────────────────────────────────────────────────────────────────────────────────


async def test_triggers_are_learned_and_come_back_as_they_were(world: World) -> None:
    assert await world.store.version("acme") == 0
    await world.learn(change(), change("o", spec=ORDERS), version=3)
    assert await world.store.version("acme") == 3
    found = await world.get()
    assert (found.revision, found.cursor, found.due_at) == (1, AT, AT + timedelta(minutes=1))
    assert found.spec.model_dump(mode="json", exclude_unset=True) == MINUTELY
    assert found.counts == TriggerCounts()
    assert [one.name for one in await world.store.on_messages(["acme", "other"])] == ["o"]


async def test_versions_and_revisions_never_go_back(world: World) -> None:
    await world.learn(change(revision=2), version=5)
    await world.learn(change(revision=1, spec=ORDERS), version=4)
    assert (await world.get()).revision == 2
    assert await world.store.version("acme") == 5


async def test_who_learns_late_takes_nothing_back(world: World) -> None:
    async def learn_and_change(number: int) -> None:
        await world.learn(change())
        await world.store.change(*KEY, lambda trigger: trigger.after_command(str(number)))

    await asyncio.gather(*(learn_and_change(number) for number in range(8)))
    assert [number for _, number in (await world.get()).commands] == list(range(1, 9))


async def test_what_is_deleted_is_gone_and_may_come_again(world: World) -> None:
    await world.learn(change())
    await world.store.decide_due(
        AT + timedelta(minutes=2), 9, deciding(commands=(("c", 1),), counts=TriggerCounts(skipped=1))
    )
    await world.learn(change(revision=2, spec=None))
    assert await world.store.get(*KEY) is None
    assert await world.store.page("acme", "", 9) == []
    assert await world.store.soonest() is None
    assert await world.store.change(*KEY, lambda same: same) is None
    await world.learn(change(revision=1))
    assert await world.store.get(*KEY) is None
    await world.learn(change(revision=3))
    again = await world.get()
    assert (again.revision, again.counts) == (3, TriggerCounts())
    assert again.after_command("d").commands == (("c", 1), ("d", 2))


async def test_tenants_are_apart(world: World) -> None:
    await world.learn(change())
    await world.learn(change(spec=ORDERS), tenant="other")
    assert (await world.get()).spec.schedule is not None
    assert await world.store.on_messages(["acme"]) == []
    assert [one.tenant for one in await world.store.on_messages(["other"])] == ["other"]
    assert await world.store.get("nobody", "t") is None


async def test_triggers_are_listed_by_name_page_by_page(world: World) -> None:
    await world.learn(*(change(name) for name in ("c", "a", "b")))
    first = await world.store.page("acme", "", 2)
    assert [one.name for one in first] == ["a", "b"]
    assert [one.name for one in await world.store.page("acme", "b", 2)] == ["c"]


async def test_tenants_that_nobody_asked_about_are_handed_out_once(world: World) -> None:
    await world.learn(change())
    await world.learn(tenant="other")
    later = AT + timedelta(minutes=1)
    assert await world.store.unchecked(AT, AT, 9) == []
    assert sorted(await world.store.unchecked(later, later, 9)) == ["acme", "other"]
    assert await world.store.unchecked(later, later, 9) == []


async def test_a_change_is_kept(world: World) -> None:
    await world.learn(change())

    def pause(trigger: Trigger) -> Trigger:
        return replace(
            trigger, paused=True, paused_by="ann", paused_at=AT, paused_reason="é", problem="p"
        ).after_command("c1")

    assert await world.store.change(*KEY, pause) == await world.get()
    found = await world.get()
    assert (found.paused, found.paused_by, found.paused_at, found.paused_reason) == (True, "ann", AT, "é")
    assert (found.problem, found.commands) == ("p", (("c1", 1),))


# ── schedules ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_due_is_decided_and_what_is_not_waits(world: World) -> None:
    await world.learn(change(), change("o", spec=ORDERS))
    due = AT + timedelta(minutes=1)
    assert await world.store.soonest() == due
    assert await world.store.decide_due(due - timedelta(seconds=1), 9, deciding()) == 0
    counts = TriggerCounts(skipped=2, dropped=3, failed=1)
    assert await world.store.decide_due(due, 9, deciding(cursor=due, counts=counts)) == 1
    found = await world.get()
    assert (found.cursor, found.due_at, found.counts) == (due, None, counts)
    assert await world.store.decide_due(due, 9, deciding()) == 0


async def test_no_more_than_the_limit_is_decided(world: World) -> None:
    await world.learn(change("a"), change("b"), change("c"))
    later = AT + timedelta(hours=1)
    assert await world.store.decide_due(later, 2, deciding()) == 2
    assert await world.store.decide_due(later, 2, deciding()) == 1


async def due_again(world: World) -> list[str]:
    """What the trigger is told to be under way."""
    seen: list[str] = []

    def decide(trigger: Trigger, under_way: Sequence[str]) -> Decided:
        seen.extend(under_way)
        return Decided(trigger)

    await world.store.change(*KEY, lambda trigger: replace(trigger, due_at=AT))
    await world.store.decide_due(AT, 9, decide)
    return seen


async def test_runs_are_under_way_from_the_decision_to_their_end(world: World) -> None:
    await world.learn(change())
    one = start()
    await world.store.decide_due(AT + timedelta(hours=1), 9, deciding(one))
    assert await due_again(world) == [one.run_id]
    await world.run(one.run_id, RunStatus.RUNNING)
    await world.store.settle(one, None)
    assert await due_again(world) == [one.run_id]
    await world.run(one.run_id, RunStatus.COMPLETED)
    assert await due_again(world) == []
    assert await due_again(world) == []


async def test_a_run_that_was_refused_or_forgotten_is_not_under_way(world: World) -> None:
    await world.learn(change())
    refused, forgotten = start(1), start(2)
    await world.store.decide_due(AT + timedelta(hours=1), 9, deciding(refused, forgotten))
    await world.store.settle(refused, ErrorInfo(code="not_found", message="no"))
    await world.store.settle(forgotten, None)
    assert await due_again(world) == []


# ── starts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def claimed(world: World, now: datetime = AT, lease_s: int = 15) -> list[Start]:
    return list(await world.store.claim_pending(now, now + timedelta(seconds=lease_s), 9))


async def test_starts_of_a_schedule_are_handed_out_in_order_each_to_one(world: World) -> None:
    await world.learn(change())
    one, two = start(1), start(2, cancels=(id_from_key("run", "x"),))
    await world.store.decide_due(AT + timedelta(hours=1), 9, deciding(two, one))
    now = AT + timedelta(hours=1)
    assert await claimed(world, now) == [one]
    assert await claimed(world, now) == []
    await world.store.settle(one, None)
    assert await claimed(world, now) == [two]


async def test_a_start_that_nobody_settled_is_handed_out_again(world: World) -> None:
    await world.learn(change())
    one = start()
    now = AT + timedelta(hours=1)
    await world.store.decide_due(now, 9, deciding(one))
    assert await claimed(world, now) == [one]
    assert await claimed(world, now + timedelta(seconds=14)) == []
    assert await claimed(world, now + timedelta(seconds=15)) == [one]


async def test_what_could_not_be_computed_is_never_handed_out(world: World) -> None:
    await world.learn(change())
    error = ErrorInfo(code="expression_failed", message="é", path="spec.input")
    await world.store.decide_due(
        AT + timedelta(hours=1), 9, deciding(start(command=None, status=FireStatus.FAILED, error=error))
    )
    assert await claimed(world, AT + timedelta(hours=1)) == []
    (last,) = await world.store.last(*KEY, 9)
    assert (last.status, last.error) == (FireStatus.FAILED, error)
    assert await due_again(world) == []


async def test_a_start_is_counted_once_whoever_settles_it(world: World) -> None:
    await world.learn(change())
    one, two = start(1), start(2)
    await world.store.decide_due(AT + timedelta(hours=1), 9, deciding(one, two))
    await world.store.settle(one, None)
    await world.store.settle(one, None)
    await world.store.settle(one, ErrorInfo(code="x", message="too late"))
    await world.store.settle(two, ErrorInfo(code="x", message="no"))
    found = await world.get()
    assert (found.counts, found.last_at) == (TriggerCounts(fired=1, failed=1), AT)
    last = await world.store.last(*KEY, 9)
    assert [(item.status, item.error and item.error.message) for item in last] == [
        (FireStatus.FAILED, "no"),
        (FireStatus.STARTED, None),
    ]


async def test_counting_survives_other_changes(world: World) -> None:
    await world.learn(change())
    one = start()
    await world.store.decide_due(AT + timedelta(hours=1), 9, deciding(one))
    await world.store.settle(one, None)
    await world.store.change(*KEY, lambda trigger: replace(trigger, paused=True))
    assert (await world.get()).counts.fired == 1


async def test_a_start_by_command_is_kept_once(world: World) -> None:
    await world.learn(change())
    one = start(cause=Cause.COMMAND, scheduled_at=None)
    later = AT + timedelta(seconds=15)
    assert await world.store.add(one, later) == one
    again = replace(one, command=StartRun(workflow="other", run_id=one.run_id))
    assert await world.store.add(again, later) == one
    assert await claimed(world) == []
    assert await claimed(world, later) == [one]
    refused = start(
        2, cause=Cause.COMMAND, command=None, status=FireStatus.FAILED, error=ErrorInfo(code="x", message="no")
    )
    for _ in range(2):
        assert await world.store.add(refused, later) == refused
    assert (await world.get()).counts.failed == 1


async def test_the_last_runs_come_newest_first_with_their_state(world: World) -> None:
    await world.learn(change())
    starts = [start(number, at=AT + timedelta(minutes=number)) for number in range(4)]
    await world.store.decide_due(AT + timedelta(hours=1), 9, deciding(*starts))
    await world.run(starts[3].run_id, RunStatus.RUNNING)
    last = await world.store.last(*KEY, 3)
    assert [item.run_id for item in last] == [item.run_id for item in reversed(starts[1:])]
    assert [item.run_status for item in last] == [RunStatus.RUNNING, None, None]
    assert last[0].scheduled_at == AT + timedelta(minutes=3)
    assert await world.store.last("other", "t", 3) == []


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def key(value: str, run: str, seconds: int = 60, trigger: str = "t") -> MessageKey:
    return MessageKey("acme", trigger, value, id_from_key("run", run), AT + timedelta(seconds=seconds))


async def test_a_key_is_the_first_run_s_until_it_expires(world: World) -> None:
    one, two = key("k", "one"), key("k", "two", 600)
    assert await world.store.take_keys([one, key("other", "three")], AT) == {
        one.run_id,
        key("other", "three").run_id,
    }
    assert await world.store.take_keys([two], AT + timedelta(seconds=59)) == set()
    assert await world.store.take_keys([one], AT + timedelta(seconds=59)) == {one.run_id}
    assert await world.store.take_keys([key("k", "two", trigger="u")], AT) == {two.run_id}
    assert await world.store.take_keys([two], AT + timedelta(seconds=60)) == {two.run_id}


async def test_of_several_runs_that_want_a_key_together_whose_it_was_or_the_first_has_it(world: World) -> None:
    one, two, three = key("k", "one"), key("k", "two"), key("k", "three", 600)
    for _ in range(2):  # whatever the ids are, and in whichever order the messages come again after a crash
        assert await world.store.take_keys([two, one, three, key("l", "four")], AT) == {
            two.run_id,
            key("l", "four").run_id,
        }
    assert await world.store.take_keys([one, three, two], AT) == {two.run_id}
    assert await world.store.take_keys([three, one], AT + timedelta(seconds=60)) == {three.run_id}


async def test_a_key_that_is_released_is_free(world: World) -> None:
    one, two = key("k", "one"), key("k", "two")
    await world.store.take_keys([one], AT)
    await world.store.release_keys([two])
    assert await world.store.take_keys([two], AT) == set()
    await world.store.release_keys([one])
    assert await world.store.take_keys([two], AT) == {two.run_id}


async def test_of_many_at_once_one_has_the_key(world: World) -> None:
    taken = await asyncio.gather(*(world.store.take_keys([key("k", f"run {n}")], AT) for n in range(8)))
    assert len([run for own in taken for run in own]) == 1


async def test_messages_are_counted_once_however_often_they_are_recorded(world: World) -> None:
    await world.learn(change(spec=ORDERS), change("u", spec=ORDERS))
    began = start(1, cause=Cause.MESSAGE, command=None, scheduled_at=None, status=FireStatus.STARTED)
    refused = start(
        2, cause=Cause.MESSAGE, command=None, status=FireStatus.FAILED, error=ErrorInfo(code="x", message="no")
    )
    for _ in range(2):
        await world.store.record([began, refused], {})
    await world.store.record([], {KEY: TriggerCounts(dropped=2, duplicates=3, failed=1)})
    assert (await world.get()).counts == TriggerCounts(fired=1, failed=2, dropped=2, duplicates=3)
    assert (await world.get()).last_at == AT
    assert (await world.get("u")).counts == TriggerCounts()
    assert len(await world.store.last(*KEY, 9)) == 2
    assert await due_again(world) == []


async def test_records_at_once_do_not_hold_each_other_up(world: World) -> None:
    await world.learn(change("a", spec=ORDERS), change("b", spec=ORDERS))
    names = [("acme", "a"), ("acme", "b")]

    async def record(number: int) -> None:
        both = {names[number % 2]: TriggerCounts(dropped=1), names[(number + 1) % 2]: TriggerCounts(dropped=1)}
        await world.store.record([], both)

    await asyncio.gather(*(record(number) for number in range(20)))
    assert [(await world.get(name)).counts.dropped for name in ("a", "b")] == [20, 20]


async def test_what_is_old_is_forgotten_but_not_what_is_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, however little is forgotten at once: else it would pile up where more comes in."""
    monkeypatch.setattr(trigger_store, "_TIDY_LIMIT", 1)
    await world.learn(change())
    number = KEPT_STARTS + 5
    starts = [start(n, at=AT + timedelta(minutes=n)) for n in range(number)]
    await world.store.decide_due(AT + timedelta(hours=9), 9, deciding(*starts))
    for one in starts[2:]:
        await world.store.settle(one, ErrorInfo(code="x", message="no"))
    await world.store.settle(starts[1], None)
    await world.run(starts[1].run_id, RunStatus.RUNNING)
    await world.store.take_keys([key("k", "one", 60), key("j", "three", 60), key("l", "two", 600)], AT)
    await world.store.tidy(AT + timedelta(seconds=60))
    left = [item.run_id for item in await world.store.last(*KEY, 999)]
    assert left == [one.run_id for one in reversed([*starts[:2], *starts[5:]])]
    new = [key(name, f"new-{name}") for name in "jkl"]
    assert await world.store.take_keys(new, AT) == {one.run_id for one in new[:2]}
