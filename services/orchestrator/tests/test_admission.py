"""Who may start, where there are limits: never too many, in the right order, and nobody for ever."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.ids import new_id
from paracle_domain.plan import Plan
from paracle_domain.run.commands import GetRun, Parent, PauseRun, QueuePlace, ResumeRun, RunStatus, StartRun
from paracle_domain.run.messages import ChildCancel, ChildStart
from paracle_orchestrator import admitting
from paracle_orchestrator.admission import Limits, Running, Waiting, choose

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALL = Context("acme")


# ── the choice ────────────────────────────────────────────────────────────────────────────────────────────────────────


def waiting(number: int, **more: Any) -> Waiting:
    known: dict[str, Any] = {
        "tenant": "acme",
        "workflow": "w",
        "priority": 0,
        "created_at": NOW + timedelta(seconds=number),
    }
    return Waiting(id=f"run_{number:03}", **(known | more))


def ids(runs: list[Waiting]) -> list[int]:
    return [int(run.id[4:]) for run in runs]


def test_the_highest_priority_goes_first_and_then_the_oldest() -> None:
    line = [waiting(3), waiting(1, priority=-5), waiting(2), waiting(4, priority=7)]
    assert ids(choose(line, Running(), Limits(), 3)) == [4, 2, 3]


def test_what_runs_takes_slots() -> None:
    line = [waiting(n, max_runs=3) for n in range(5)]
    assert ids(choose(line, Running({("acme", "w"): 2}), Limits(), 9)) == [0]
    assert ids(choose(line, Running(tenants={"acme": 1}), Limits(of_tenant={"acme": 2}), 9)) == [0]
    assert choose(line, Running({("acme", "w"): 4}), Limits(), 9) == []


def test_who_waits_for_his_workflow_holds_up_no_other() -> None:
    line = [waiting(0, max_runs=0, priority=9), waiting(1, workflow="v")]
    assert ids(choose(line, Running(), Limits(), 9)) == [1]


def test_tenants_are_dealt_one_each_in_turn() -> None:
    line = [waiting(n) for n in range(50)] + [waiting(90 + n, tenant="late") for n in range(3)]
    assert ids(choose(line, Running(), Limits(), 7)) == [0, 90, 1, 91, 2, 92, 3]


def test_a_child_counts_for_its_workflow_only_and_goes_before_others() -> None:
    line = [waiting(0, priority=9), waiting(1, child=True, max_runs=2), waiting(2, child=True, max_runs=2)]
    limits = Limits(per_tenant=1)
    assert ids(choose(line, Running({("acme", "w"): 1}, {"acme": 1}), limits, 9)) == [1]
    assert ids(choose(line, Running(), limits, 9)) == [1, 2, 0]


RUNS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        tenant=st.sampled_from(["a", "b", "c"]),
        workflow=st.sampled_from(["v", "w"]),
        priority=st.integers(-1, 1),
        max_runs=st.none() | st.integers(0, 3),
        child=st.booleans(),
    ),
    max_size=12,
)
COUNTS = st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("vw")), st.integers(0, 3))


@given(RUNS, COUNTS, st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 4)), st.integers(0, 12))
def test_slots_are_never_too_many_never_left_over_and_fair(
    given_runs: list[dict[str, Any]], counts: dict[Any, int], of_tenant: dict[str, int | None], most: int
) -> None:
    line = [waiting(number, **run) for number, run in enumerate(given_runs)]
    tenants = Counter({tenant: number for (tenant, _), number in counts.items()})
    limits = Limits(of_tenant=of_tenant)
    chosen = choose(line, Running(counts, tenants), limits, most)
    assert len(chosen) <= most
    assert len(set(ids(chosen))) == len(chosen)
    workflows = Counter(counts)
    for one in chosen:  # each fitted when it was chosen
        assert _fits(one, workflows, tenants, limits)
        workflows[one.scope] += 1
        tenants[one.tenant] += not one.child
    left = [one for one in line if one not in chosen]
    if len(chosen) < most:
        assert not [one for one in left if _fits(one, workflows, tenants, limits)]
    dealt = Counter(one.tenant for one in chosen)
    for one in left:
        if _fits(one, workflows, tenants, limits):
            assert dealt[one.tenant] >= max(dealt.values(), default=0) - 1
            before = [other for other in chosen if (other.scope, other.child) == (one.scope, one.child)]
            assert all(other.place < one.place for other in before)


def _fits(one: Waiting, workflows: Counter[Any], tenants: Counter[str], limits: Limits) -> bool:
    limit = limits.tenant(one.tenant)
    return (one.max_runs is None or workflows[one.scope] < one.max_runs) and (
        one.child or limit is None or tenants[one.tenant] < limit
    )


# ── runs that wait ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def limited(tools: Any) -> Any:
    """A desk whose workflow `w` may have two runs at once; `free` is another one."""
    desk = tools.desk()
    desk.knows("w", tools.plan_of({"id": "a"}, max_runs=2))
    desk.knows("free", tools.plan_of({"id": "a"}, description="free"))
    return desk


async def start(desk: Any, number: int) -> list[str]:
    """Runs, a second apart."""
    found = []
    for n in range(number):
        desk.now += timedelta(seconds=1)
        found.append(await desk.start(key=f"k{n}"))
    return found


async def status(desk: Any, run_id: str) -> RunStatus:
    found: RunStatus = (await desk.service.get_run(GetRun(run_id=run_id), CALL)).run.status
    return found


async def test_without_a_limit_nothing_waits(limited: Any, tools: Any) -> None:
    run_id = await limited.start("free")
    assert await status(limited, run_id) is RunStatus.RUNNING
    assert len(tools.tasks(limited.bus.take())) == 1


async def test_runs_wait_for_a_slot_and_get_it_as_soon_as_one_ends(limited: Any, tools: Any) -> None:
    bell: list[None] = []
    limited.host.queue_moved = lambda: bell.append(None)
    runs = await start(limited, 4)
    assert tools.tasks(limited.bus.take()) == []
    assert len(bell) == 4
    assert await limited.admitter.round() == 0
    started = tools.tasks(limited.bus.take())
    assert {task.run_id for task in started} == set(runs[:2])
    assert await limited.admitter.round() > 0
    assert [await status(limited, run_id) for run_id in runs[2:]] == [RunStatus.QUEUED] * 2
    rung = len(bell)
    await limited.finish(started[0])
    assert len(bell) == rung + 1
    await limited.admitter.round()
    assert {task.run_id for task in tools.tasks(limited.bus.take())} == {runs[2]}


async def test_a_view_says_why_a_run_waits(limited: Any) -> None:
    runs = await start(limited, 4)
    await limited.admitter.round()
    view = await limited.service.get_run(GetRun(run_id=runs[3]), CALL)
    assert view.queue == QueuePlace(ahead=1, workflow_running=2, workflow_limit=2, tenant_running=2)
    assert (await limited.service.get_run(GetRun(run_id=runs[0]), CALL)).queue is None


async def test_a_claim_without_its_message_is_made_good(limited: Any, tools: Any) -> None:
    """As after a crash between the two."""
    run_id = await limited.start()
    await limited.queue.claim(limited.admitter.limits, 9)
    other = tools.desk(limited)
    await other.admitter.round()
    assert await status(limited, run_id) is RunStatus.RUNNING
    before = limited.store.writes
    await limited.admitter.round()
    assert limited.store.writes == before


async def test_a_queued_run_can_be_cancelled_and_takes_no_slot(limited: Any) -> None:
    runs = await start(limited, 3)
    await limited.cancel(runs[0])
    assert await status(limited, runs[0]) is RunStatus.CANCELLED
    await limited.admitter.round()
    assert [await status(limited, run_id) for run_id in runs[1:]] == [RunStatus.RUNNING] * 2


async def test_a_queued_run_that_was_paused_takes_no_slot(limited: Any) -> None:
    runs = await start(limited, 3)
    await limited.order(PauseRun(run_id=runs[0]), key="pause")
    await limited.admitter.round()
    assert [await status(limited, run_id) for run_id in runs[1:]] == [RunStatus.RUNNING] * 2
    await limited.order(ResumeRun(run_id=runs[0]), key="resume")
    await limited.admitter.round()
    assert await status(limited, runs[0]) is RunStatus.QUEUED


async def test_a_run_that_breaks_when_it_is_admitted_holds_up_no_other(
    limited: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = await start(limited, 2)
    entry = await limited.host.read(runs[0])
    decide = type(entry.machine).decide

    def breaks(self: Any, state: Any, *more: Any) -> Any:
        if state.started_event.run_id == runs[0]:
            raise ZeroDivisionError
        return decide(self, state, *more)

    with monkeypatch.context() as broken:
        broken.setattr(type(entry.machine), "decide", breaks)
        broken.setattr(admitting, "MOST", 1)  # it stands before the other one, and would each time
        for _ in range(3):
            await limited.admitter.round()
    assert caplog.text.count("cannot be admitted") == 1
    assert await status(limited, runs[1]) is RunStatus.RUNNING
    limited.admitter._broken[runs[0]] = 0.0
    await limited.admitter.round()
    assert await status(limited, runs[0]) is RunStatus.RUNNING


async def test_tenants_have_limits_of_their_own(tools: Any) -> None:
    desk = tools.desk(limits=Limits(per_tenant=1, of_tenant={"big": None}))
    desk.knows("w", tools.plan_of({"id": "a"}))
    runs = await start(desk, 2)
    receipt = await desk.order(StartRun(workflow="w"), key="big", tenant="big")
    assert receipt.answers[0].status is RunStatus.RUNNING
    await desk.admitter.round()
    assert [await status(desk, run_id) for run_id in runs] == [RunStatus.RUNNING, RunStatus.QUEUED]


async def test_children_wait_for_their_workflow_but_not_for_their_tenant(tools: Any) -> None:
    desk = tools.desk(limits=Limits(per_tenant=1))
    plan, narrow = tools.plan_of({"id": "a"}), tools.plan_of({"id": "a"}, max_runs=1)
    limited_plan = Plan.pin(narrow.workflow.model_copy(update={"name": "narrow"}), {}, {})
    for one in (plan, limited_plan):
        await desk.shelf.put("acme", one)
    desk.knows("w", plan)
    parent = await desk.start()
    pinned = (plan, limited_plan, limited_plan)
    children = [await _child(desk, tools, parent, one.digest, n) for n, one in enumerate(pinned)]
    assert [await status(desk, child) for child in children] == [RunStatus.RUNNING, *[RunStatus.QUEUED] * 2]
    await desk.admitter.round()
    assert await status(desk, parent) is RunStatus.RUNNING
    assert sorted([await status(desk, child) for child in children[1:]]) == [RunStatus.QUEUED, RunStatus.RUNNING]
    cancelled = await _child(desk, tools, parent, limited_plan.digest, 9, cancelled=True)
    assert await status(desk, cancelled) is RunStatus.CANCELLED


async def _child(desk: Any, tools: Any, parent: str, plan: str, number: int, *, cancelled: bool = False) -> str:
    run_id = new_id("run")
    start = ChildStart(
        run_id=run_id,
        parent=Parent(run_id=parent, step="a", attempt=number, root_run_id=parent, depth=1),
        workflow="w",
        plan=plan,
        principal="ada",
    )
    message = ChildCancel(start=start, reason="enough") if cancelled else start
    subject = subjects.result("acme", run_id)
    mail = tools.delivery(
        subject, message.encode(), tools.receipt(), key=f"{run_id}.start", type_name=message.type_name
    )
    await desk.service.take_in([mail])
    return run_id
