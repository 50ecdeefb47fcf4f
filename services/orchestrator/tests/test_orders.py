"""What people ask of runs that were started: decide, signal, pause, fork. The machine's own tests say what runs do."""

from __future__ import annotations

from typing import Any

import pytest
from nested import nested

from paracle_domain.envelope import Context
from paracle_domain.errors import (
    Conflict,
    Forbidden,
    InputInvalid,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    Unavailable,
)
from paracle_domain.ids import new_id
from paracle_domain.messages import JsonObject
from paracle_domain.run.commands import (
    ApprovalStatus,
    ApprovalView,
    CancelRun,
    DecideApproval,
    ForkRun,
    GetRun,
    ListApprovals,
    PauseRun,
    ResumeRun,
    RunStatus,
    RunView,
    SignalRun,
    StartRun,
    StepStatus,
)
from paracle_domain.run.nodes import MOST_LEVELS
from paracle_domain.task.sessions import ListTurnsBefore
from paracle_orchestrator.orders import MAX_INPUT_BYTES

CALL = Context("acme", "bob", roles=("finance",))
ASK = {"ask": "Pay {{ input.n }}?", "action": {"n": "{{ input.n }}"}, "roles": ["finance", "lead"]}


@pytest.fixture
def asking(desk: Any, tools: Any) -> Any:
    """A desk whose workflow asks before it pays."""
    desk.knows("w", tools.plan_of({"id": "ok", "approval": ASK}, {"id": "pay", "needs": ["ok"]}))
    return desk


async def asked(desk: Any, **query: Any) -> ApprovalView:
    (found,) = (await desk.service.list_approvals(ListApprovals(**query), CALL)).approvals
    return found


def yes(one: ApprovalView, **more: Any) -> DecideApproval:
    given = {"approval_id": one.approval_id, "digest": one.digest, "decision": "approve", "reason": "fine"} | more
    return DecideApproval.model_validate(given)


async def view(desk: Any, run_id: str) -> RunView:
    found = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert isinstance(found, RunView)
    return found


async def test_a_decision_lets_the_run_go_on(asking: Any, tools: Any) -> None:
    run_id = await asking.start(value={"n": 12})
    one = await asked(asking, mine=True)
    assert (one.run_id, one.ask, one.action, one.status) == (run_id, "Pay 12?", {"n": 12}, ApprovalStatus.OPEN)
    assert tools.tasks(asking.bus.take()) == []
    receipt = await asking.order(yes(one), key="yes", by="bob", roles="finance")
    assert (receipt.answers[0].run_id, receipt.answers[0].created) == (run_id, False)
    outbox = asking.bus.take()
    assert [task.step for task in tools.tasks(outbox)] == ["pay"]
    (decided,) = [event for event in tools.events(outbox) if event["type"] == "approval.decided"]
    assert (decided["data"]["principal"], decided["data"]["reason"]) == ("bob", "fine")
    assert {item.envelope.context.principal for item in outbox} == {"bob"}
    shown = await asked(asking)
    assert (shown.status, [made.principal for made in shown.decisions]) == (ApprovalStatus.APPROVED, ["bob"])


@pytest.mark.parametrize(
    ("changes", "by", "kind"),
    [
        ({"digest": "sha256:of-something-else"}, {"by": "bob", "roles": "finance"}, Conflict),
        ({}, {"by": "eve", "roles": "sales"}, Forbidden),
        ({}, {}, Forbidden),
        ({"approval_id": "apr_" + "0" * 26}, {"by": "bob", "roles": "finance"}, NotFound),
        ({"approval_id": "apr_" + "0" * 26, "run_id": None}, {"by": "bob", "roles": "finance"}, NotFound),
        ({}, {"by": "bob", "roles": "finance", "tenant": "evil"}, NotFound),
        ({"run_id": new_id("run")}, {"by": "bob", "roles": "finance"}, NotFound),
    ],
    ids=["another digest", "another role", "nobody", "of no run", "unknown", "another tenant", "another run"],
)
async def test_what_does_not_count_changes_nothing(
    asking: Any, changes: dict[str, Any], by: dict[str, Any], kind: type[Exception]
) -> None:
    run_id = await asking.start(value={"n": 12})
    one = await asked(asking)
    asking.bus.take()
    given = {"run_id": run_id} | changes if "approval_id" in changes else changes
    receipt = await asking.order(yes(one, **given), key="yes", **by)
    assert [type(answer) for answer in receipt.answers] == [kind]
    assert (await asking.store.load([run_id]))[run_id].version == 2
    assert asking.bus.take() == []
    assert await asked(asking) == one


async def test_whoever_starts_a_run_may_not_approve_it(asking: Any) -> None:
    await asking.order(StartRun(workflow="w", input={"n": 1}), by="bob", roles="finance")
    one = await asked(asking)
    assert isinstance((await asking.order(yes(one), by="bob", roles="finance")).answers[0], Forbidden)
    assert (await asking.order(yes(one), key="2", by="ann", roles="lead")).answers[0].status is RunStatus.RUNNING


async def test_nobody_knows_whether_anonymous_started_the_run(desk: Any, tools: Any) -> None:
    desk.knows("w", tools.plan_of({"id": "ok", "approval": {"ask": "Go?"}}))
    await desk.start()
    refused = (await desk.order(yes(await asked(desk)), key="yes")).answers[0]
    assert isinstance(refused, Forbidden)
    assert "say who you are" in str(refused)


async def test_a_decision_that_comes_again_is_the_same_decision(asking: Any, replica: Any, tools: Any) -> None:
    await asking.start(value={"n": 12})
    one = await asked(asking)
    bob = {"by": "bob", "roles": "finance"}
    first = await asking.order(yes(one), key="yes", **bob)
    (pay,) = tools.tasks(asking.bus.take())
    for desk in (asking, replica):
        again = await desk.order(yes(one), key="yes", deliveries=2, **bob)
        assert again.answers == first.answers
        assert [task.task_id for task in tools.tasks(desk.bus.take())] == [pay.task_id]
    resent = await asking.order(yes(one), key="yes-again", **bob)
    assert resent.answers == first.answers
    changed = await asking.order(yes(one, decision="reject"), key="no", **bob)
    assert isinstance(changed.answers[0], Conflict)
    late = await asking.order(yes(one), key="late", by="ann", roles="lead")
    assert isinstance(late.answers[0], Conflict)


async def test_a_decision_is_shown_even_if_the_crash_came_before_that(asking: Any) -> None:
    await asking.start(value={"n": 12})
    one = await asked(asking)
    bob = {"by": "bob", "roles": "finance"}
    show = asking.approvals.show

    async def away(_: Any) -> None:
        raise Unavailable("PostgreSQL is away")

    asking.approvals.show = away
    with pytest.raises(Unavailable):
        await asking.order(yes(one), key="yes", **bob)
    asking.approvals.show = show
    assert (await asked(asking)).status is ApprovalStatus.OPEN
    await asking.order(yes(one), key="yes", deliveries=2, **bob)
    assert (await asked(asking)).status is ApprovalStatus.APPROVED


async def test_what_is_not_decided_in_time_is_shown_as_such(desk: Any, tools: Any) -> None:
    escalation = {"on_expiry": "escalate", "escalate_to": {"roles": ["lead"], "expires_s": 10}}
    desk.knows("w", tools.plan_of({"id": "ok", "approval": ASK | {"expires_s": 10} | escalation}))
    run_id = await desk.start(value={"n": 1})
    assert await desk.tick(10) == 1
    one = await asked(desk)
    assert (one.escalated, one.roles, one.status) == (True, ("lead",), ApprovalStatus.OPEN)
    assert isinstance((await desk.order(yes(one), by="bob", roles="finance")).answers[0], Forbidden)
    assert await desk.tick(10) == 1
    assert (await asked(desk)).status is ApprovalStatus.EXPIRED
    assert (await view(desk, run_id)).run.status is RunStatus.FAILED


async def test_an_approval_is_void_once_its_run_is_cancelled(asking: Any) -> None:
    run_id = await asking.start(value={"n": 1})
    one = await asked(asking)
    await asking.cancel(run_id)
    assert (await asked(asking)).status is ApprovalStatus.VOID
    assert isinstance((await asking.order(yes(one), by="bob", roles="finance")).answers[0], Conflict)


async def test_the_id_of_another_message_makes_no_decision(asking: Any) -> None:
    run_id = await asking.start(value={"n": 1}, key="mine")
    refused = await asking.order(yes(await asked(asking)), key="mine", by="eve")
    assert isinstance(refused.answers[0], Forbidden)
    paused = PauseRun(run_id=run_id)
    assert (await asking.order(paused, key="pause")).answers[0].status is RunStatus.PAUSED
    await asking.cancel(run_id)
    assert (await asking.order(paused, key="pause", deliveries=2)).answers[0].status is RunStatus.CANCELLED
    assert isinstance((await asking.order(paused, key="other")).answers[0], Conflict)


@pytest.fixture
def waiting(desk: Any, tools: Any) -> Any:
    """A desk whose workflow waits for a payment after a step."""
    paid = {"id": "paid", "needs": ["a"], "wait": {"signal": "paid"}}
    desk.knows("w", tools.plan_of({"id": "a"}, paid, output="{{ steps.paid.output }}"))
    return desk


async def test_a_signal_is_kept_if_it_comes_early(waiting: Any, tools: Any) -> None:
    run_id = await waiting.start()
    signal = SignalRun(run_id=run_id, signal="paid", payload={"amount": 12})
    for _ in range(2):
        receipt = await waiting.order(signal, key="p-1")
        assert receipt.answers[0].status is RunStatus.RUNNING
    (task,) = {task.task_id: task for task in tools.tasks(waiting.bus.take())}.values()
    await waiting.finish(task)
    found = await view(waiting, run_id)
    assert (found.run.status, found.output) == (RunStatus.COMPLETED, {"amount": 12})
    again = await waiting.order(signal, key="p-1", deliveries=2)
    assert again.answers[0].status is RunStatus.COMPLETED
    late = await waiting.order(signal, key="p-2")
    assert isinstance(late.answers[0], Conflict)
    assert "completed" in str(late.answers[0])


async def test_a_signal_has_to_fit_and_to_find_a_run(waiting: Any) -> None:
    run_id = await waiting.start()
    large = SignalRun(run_id=run_id, signal="paid", payload="x" * MAX_INPUT_BYTES)
    refused = (await waiting.order(large, key="1")).answers[0]
    assert isinstance(refused, PayloadTooLarge)
    assert refused.path == "payload"
    deep = SignalRun(run_id=run_id, signal="paid", payload=nested(MOST_LEVELS + 1))
    refused = (await waiting.order(deep, key="3")).answers[0]
    assert (type(refused), refused.path) == (InvalidInput, "payload")
    nowhere = SignalRun(run_id=new_id("run"), signal="paid")
    assert isinstance((await waiting.order(nowhere, key="2")).answers[0], NotFound)


async def test_a_paused_run_starts_nothing_until_it_is_resumed(desk: Any, replica: Any, tools: Any) -> None:
    run_id = await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    for key in ("1", "2"):
        receipt = await desk.order(PauseRun(run_id=run_id, reason="audit"), key=key, by="ann")
        assert receipt.answers[0].status is RunStatus.PAUSED
    await replica.finish(task)
    assert tools.tasks(desk.bus.take()) == []
    assert (await desk.store.load([run_id]))[run_id].status == "paused"
    for key in ("3", "4"):
        receipt = await replica.order(ResumeRun(run_id=run_id), key=key)
        assert receipt.answers[0].status is RunStatus.RUNNING
    (task,) = {task.task_id: task for task in tools.tasks(desk.bus.take())}.values()
    await desk.finish(task)
    assert (await view(desk, run_id)).run.status is RunStatus.COMPLETED
    for command in (PauseRun(run_id=run_id), ResumeRun(run_id=run_id)):
        assert isinstance((await desk.order(command, key=command.verb)).answers[0], Conflict)


@pytest.mark.parametrize("hung", [False, True])
async def test_a_pause_that_comes_again_late_undoes_nothing(desk: Any, replica: Any, hung: bool) -> None:
    """After a crash it is delivered again; or a replica that hung has it in hand, and the run as it was."""
    run_id = await desk.start()
    await replica.service.get_run(GetRun(run_id=run_id), CALL)
    pause = PauseRun(run_id=run_id)
    assert (await desk.order(pause, key="pause")).answers[0].status is RunStatus.PAUSED
    assert (await desk.order(ResumeRun(run_id=run_id), key="resume")).answers[0].status is RunStatus.RUNNING
    last = await (replica.order(pause, key="pause") if hung else desk.order(pause, key="pause", deliveries=2))
    assert last.answers[0].status is RunStatus.RUNNING
    assert (await desk.order(pause, key="another", deliveries=2)).answers[0].status is RunStatus.PAUSED


async def test_a_pause_that_another_replica_obeys_while_the_run_is_read_undoes_nothing(
    desk: Any, replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await desk.start()
    pause = PauseRun(run_id=run_id)
    store = replica.host._store
    load, moved = store.load, False

    async def overtaken(*given: Any) -> Any:
        nonlocal moved
        found = await load(*given)
        if not moved:
            moved = True
            await desk.order(pause, key="pause")
            await desk.order(ResumeRun(run_id=run_id), key="resume")
        return found

    monkeypatch.setattr(store, "load", overtaken)
    last = await replica.order(pause, key="pause", deliveries=2)
    assert last.answers[0].status is RunStatus.RUNNING


async def failed(desk: Any, tools: Any) -> str:
    """A run whose second step failed."""
    run_id: str = await desk.start(value={"n": 1})
    (task,) = tools.tasks(desk.bus.take())
    await desk.finish(task, output={"kept": True})
    (task,) = tools.tasks(desk.bus.take())
    await desk.finish(task, tools.failed)
    assert (await view(desk, run_id)).run.status is RunStatus.FAILED
    desk.bus.take()
    return run_id


async def test_a_fork_does_again_what_failed_and_keeps_the_rest(desk: Any, tools: Any) -> None:
    run_id = await failed(desk, tools)
    fork = ForkRun(run_id=run_id, from_step="b")
    answers = [(await desk.order(fork, key="again", by="ann")).answers[0] for _ in range(2)]
    assert [answer.created for answer in answers] == [True, False]
    (new_id_,) = {answer.run_id for answer in answers}
    (task,) = {task.task_id: task for task in tools.tasks(desk.bus.take())}.values()
    assert (task.step, task.run_id) == ("b", new_id_)
    await desk.finish(task, output="done")
    found = await view(desk, new_id_)
    assert (found.run.status, found.output, found.input) == (RunStatus.COMPLETED, "done", {"n": 1})
    assert [(step.id, step.status, step.output) for step in found.steps] == [
        ("a", StepStatus.COMPLETED, {"kept": True}),
        ("b", StepStatus.COMPLETED, "done"),
    ]
    row = (await desk.store.load([new_id_]))[new_id_]
    assert (row.facts["forked_from"], row.facts["principal"], row.facts["labels"]) == (run_id, "ann", "{}")


async def test_a_fork_may_take_another_revision_and_input(desk: Any, tools: Any) -> None:
    run_id = await failed(desk, tools)
    newer = tools.plan_of(
        {"id": "a"}, {"id": "b", "needs": ["a"], "input": "{{ input }}"}, output="{{ steps.b.output }}"
    )
    desk.knows("w", newer)
    fork = ForkRun(
        run_id=run_id, from_step="b", revision=2, input={"n": 2}, labels={"x": "y"}, new_run_id=new_id("run")
    )
    assert (await desk.order(fork, key="1")).answers[0].run_id == fork.new_run_id
    assert [(task.step, task.input) for task in tools.tasks(desk.bus.take())] == [("b", {"n": 2})]
    assert desk.bus.asked[-1].revision == 2
    assert (await view(desk, fork.new_run_id or "")).run.plan == newer.digest
    other = await desk.order(fork.model_copy(update={"from_step": "a"}), key="2")
    assert isinstance(other.answers[0], Conflict)


async def test_a_fork_asks_again_and_takes_no_decision_of_the_old_run(asking: Any, tools: Any) -> None:
    run_id = await asking.start(value={"n": 12})
    old = await asked(asking)
    bob = {"by": "bob", "roles": "finance"}
    await asking.order(yes(old), key="yes", **bob)
    (pay,) = tools.tasks(asking.bus.take())
    await asking.finish(pay, tools.failed)
    fork = ForkRun(run_id=run_id, from_step="pay", input={"n": 1_000_000})
    forked = (await asking.order(fork, key="fork")).answers[0].run_id
    new = await asked(asking, run_id=forked)
    assert (new.status, new.action, new.decisions) == (ApprovalStatus.OPEN, {"n": 1_000_000}, ())
    assert new.digest != old.digest
    replayed = yes(old, approval_id=new.approval_id)
    assert isinstance((await asking.order(replayed, key="replay", **bob)).answers[0], Conflict)
    assert tools.tasks(asking.bus.take()) == []


@pytest.mark.parametrize(
    ("changes", "more", "kind", "path"),
    [
        ({"from_step": "c"}, {}, NotFound, "from_step"),
        ({"from_step": "a[3]"}, {}, InvalidInput, "from_step"),
        ({"run_id": new_id("run")}, {}, NotFound, "run_id"),
        ({}, {"tenant": "evil"}, NotFound, "run_id"),
        ({"input": {"n": "many"}}, {}, InputInvalid, "input.n"),
    ],
)
async def test_a_fork_that_cannot_be_is_refused(
    desk: Any, tools: Any, changes: dict[str, Any], more: dict[str, Any], kind: type[Exception], path: str
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    desk.knows("w", tools.plan_of({"id": "a"}, {"id": "b", "needs": ["a"]}, input=schema))
    run_id = await failed(desk, tools)
    fork = ForkRun.model_validate({"run_id": run_id, "from_step": "b"} | changes)
    (error,) = (await desk.order(fork, key="1", **more)).answers
    assert (type(error), error.path) == (kind, path)
    assert desk.bus.take() == []


async def test_a_run_of_an_agent_has_no_revisions_to_fork_with(desk: Any, tools: Any) -> None:
    plan = tools.plan_of({"id": "a"}, {"id": "b", "needs": ["a"]})
    nameless = plan.workflow.model_copy(update={"revision": 0})
    desk.knows("w", type(plan).pin(nameless, {}, {}))
    run_id = await failed(desk, tools)
    (error,) = (await desk.order(ForkRun(run_id=run_id, from_step="b", revision=1), key="1")).answers
    assert (type(error), error.path) == (InvalidInput, "revision")
    assert (await desk.order(ForkRun(run_id=run_id, from_step="b"), key="2")).answers[0].created


async def test_runs_of_agents_are_turns_of_the_session_that_their_input_names(desk: Any, tools: Any) -> None:
    desk.knows("agent", tools.plan_of({"id": "invoke"}, revision=0))
    value: JsonObject = {"text": "Hi", "session": new_id("ses")}
    starts = [
        StartRun(agent="agent", input=value),
        StartRun(workflow="w", input=value),
        StartRun(agent="agent", input={}),
    ]
    runs = [(await desk.order(start, key=f"start-{n}")).answers[0].run_id for n, start in enumerate(starts)]
    fork = ForkRun(run_id=runs[0], from_step="invoke")
    forked = (await desk.order(fork, key="fork")).answers[0].run_id
    found = [
        (await desk.service.list_turns_before(ListTurnsBefore(run_id=run_id), Context("acme"))).run_ids
        for run_id in (*runs, forked)
    ]
    assert found == [(), (), (), (runs[0],)]


async def test_only_a_start_says_that_it_created_a_run(desk: Any, tools: Any) -> None:
    run_id = new_id("run")
    start, pause = tools.receipt(), tools.receipt()
    batch = [
        desk.command(StartRun(workflow="w", run_id=run_id), start, key="s"),
        desk.command(PauseRun(run_id=run_id), pause, key="p"),
    ]
    await desk.service.obey(batch)
    assert (start.answers[0].created, pause.answers[0].created) == (True, False)


async def test_a_run_can_begin_and_be_told_what_changes_nothing_in_one_batch(desk: Any, tools: Any) -> None:
    """Senders that wait for an answer ask again: nobody else's command may fail for that."""
    run_id = new_id("run")
    commands = [
        StartRun(workflow="w", run_id=run_id),
        StartRun(workflow="w", run_id=run_id),
        StartRun(workflow="w", run_id=run_id, input={"n": 1}),
        CancelRun(run_id=run_id),
        PauseRun(run_id=run_id),
        StartRun(workflow="w"),
    ]
    receipts = [tools.receipt() for _ in commands]
    orders = zip(commands, receipts, strict=True)
    await desk.service.obey([desk.command(command, told, key=f"k{n}") for n, (command, told) in enumerate(orders)])
    first, again, other, cancel, pause, neighbour = (receipt.answers[0] for receipt in receipts)
    assert (first.created, again.created, cancel.created) == (True, False, False)
    assert neighbour.created
    assert isinstance(other, Conflict)
    assert isinstance(pause, Conflict)
