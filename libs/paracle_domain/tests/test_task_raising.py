"""Budgets that ask: the task waits for people, and goes on with what they agreed to, or fails."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.budget.messages import BudgetList, BudgetUse, BudgetView, RaiseBudget
from paracle_domain.budget.spec import Budget, BudgetApproval, OnHit
from paracle_domain.errors import BudgetExceeded, Conflict, ErrorInfo, NotFound, ParacleError
from paracle_domain.run import deciding
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, Decision
from paracle_domain.task import inputs as told
from paracle_domain.task.directives import AskForRaise, CallModel, ReportResult
from paracle_domain.task.events import BudgetHeld, BudgetReleased
from paracle_domain.task.messages import TaskStatus
from paracle_domain.task.raising import has_room, order_of, rounded, shortage
from paracle_domain.task.story import wishes

from .test_task_machine import AT, Play, wish

LATER = AT + timedelta(seconds=90)


def used_up(**details: str) -> ErrorInfo:
    known = {
        "budget": "team",
        "subject": "atlas",
        "period": "2026-05-04",
        "on_hit": "ask",
        "spent_usd": "1.0004",
        "limit_usd": "1",
        "estimate_usd": "0.02",
        "question": "q1",
    }
    return BudgetExceeded("budget team of atlas is used up", details={**known, **details}).to_info()


def stopped(error: ErrorInfo | None = None) -> Play:
    play = Play({"tools": ["look"]}).accept()
    play.tell(told.ModelFailed(AT, play.state.model_call_id, error or used_up()))
    return play


def asked(play: Play) -> AskForRaise:
    [wanted] = wishes(play.state)
    assert isinstance(wanted, AskForRaise)
    return wanted


def view(play: Play, status: ApprovalStatus = ApprovalStatus.APPROVED, **changes: Any) -> ApprovalView:
    shown = deciding.asked(asked(play).request, "w", "ada")
    verdict: Any = "reject" if status is ApprovalStatus.REJECTED else "approve"
    made = Decision(principal="bob", decision=verdict, reason="too dear", at=LATER)
    return shown.model_copy(update={"status": status, "decisions": (made,), **changes})


def test_people_are_asked_about_exactly_one_raise() -> None:
    play = stopped(used_up(approval=BudgetApproval(roles=("finance",), expires_s=60).model_dump_json()))
    assert [event.type for event in play.events[1:]] == ["task.model_call_failed", "task.budget_held"]
    wanted = asked(play)
    request = wanted.request
    assert (request.ask, request.roles, request.expires_s) == (
        "Raise the budget team of atlas by 0.10 USD?",
        ("finance",),
        60,
    )
    assert (request.tool, request.asked_at, request.own) == (None, AT, False)
    assert request.action["raise_usd"] == "0.10"
    assert (request.action["period"], request.action["raise_tokens"]) == ("2026-05-04", None)
    order = order_of(view(play), wanted.short)
    assert order is not None
    assert (order.name, order.subject, order.usd, order.tokens) == ("team", "atlas", Decimal("0.10"), None)
    assert (order.key, order.period, order.question) == (request.approval_id, "2026-05-04", "q1")
    assert play.directives == (wanted,)
    assert play.tell(told.Resume(AT)) == []
    assert play.directives == (wanted,), "whoever takes the task up asks the same again"


def test_once_they_agree_the_model_is_asked_again_and_the_wait_costs_no_time() -> None:
    play = Play({"tools": ["look"]}).accept()
    first = play.state.model_call_id
    play.tell(told.ModelFailed(AT, first, used_up()))
    expires = play.state.expires_at
    assert play.state.due_at is None, "wall time stands still"
    assert expires is not None
    assert play.tell(told.RaiseDecided(LATER, view(play))) == ["task.budget_released"]
    [call] = play.directives
    assert isinstance(call, CallModel)
    assert call.call_id == first, "if the model had answered, and a guard had no money, the gateway still knows"
    assert (play.state.waited_s, play.state.expires_at) == (90.0, expires + timedelta(seconds=90))
    assert play.tell(told.RaiseDecided(LATER, view_of(play))) == [], "it is decided once"
    play.reply(text="done")
    assert play.state.output == "done"


def view_of(play: Play) -> ApprovalView:
    held = next(event for event in play.events if isinstance(event, BudgetHeld))
    other = stopped()
    shown = view(other)
    return shown.model_copy(update={"approval_id": held.approval_id})


def test_waits_for_people_and_for_calls_of_the_same_turn_add_up() -> None:
    play = Play({"tools": ["look"], "approvals": {"look": {}}}).accept()
    play.reply(wish("look", n=1))
    [question] = play.directives
    call = deciding.asked(question.request, "w", "ada").model_copy(update={"status": ApprovalStatus.APPROVED})
    play.tell(told.CallDecided(AT + timedelta(seconds=30), question.call_id, call))
    play.returns()
    play.tell(told.ModelFailed(AT, play.state.model_call_id, used_up()))
    play.tell(told.RaiseDecided(LATER, view(play)))
    assert play.state.waited_s == 120.0


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (ApprovalStatus.REJECTED, "budget team of atlas is used up (bob rejected raising it: too dear)"),
        (ApprovalStatus.EXPIRED, "budget team of atlas is used up (nobody, or too few, agreed in time to raise it)"),
    ],
)
def test_without_a_raise_the_task_fails_with_the_budget(status: ApprovalStatus, says: str) -> None:
    play = stopped()
    assert play.tell(told.RaiseDecided(LATER, view(play, status))) == ["task.budget_released", "task.failed"]
    assert play.error.startswith("budget_exceeded: ")
    assert says in play.error
    assert play.state.error is not None
    assert play.state.error.details is not None
    assert play.state.error.details["limit_usd"] == "1"
    assert [type(one) for one in play.directives] == [ReportResult]


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "sha256:other"},
        {"ask": "Give everybody a raise?"},
        {"action": None},
        {"action": {"budget": "team", "subject": "borg", "period": "2026-05-04", "raise_usd": "9"}},
    ],
)
def test_an_approval_of_something_else_raises_nothing(changes: dict[str, Any]) -> None:
    play = stopped()
    other = view(play, **changes)
    assert order_of(other, asked(play).short) is None
    assert play.tell(told.RaiseDecided(LATER, other))[-1] == "task.failed"
    released = play.events[-2]
    assert isinstance(released, BudgetReleased)
    assert released.verdict is ApprovalStatus.VOID
    assert "the approval of raising it is void" in play.error


def test_all_that_find_the_budget_used_up_ask_the_same_and_go_by_what_the_first_asked() -> None:
    first, second = stopped(), stopped(used_up(spent_usd="1.3"))
    ours, theirs = asked(first), asked(second)
    assert ours.request.approval_id == theirs.request.approval_id
    assert (ours.request.action["raise_usd"], theirs.request.action["raise_usd"]) == ("0.10", "0.32")
    decided = view(first)
    order = order_of(decided, theirs.short)
    assert order is not None
    assert order == order_of(decided, ours.short)
    assert order.usd == Decimal("0.10")
    assert second.tell(told.RaiseDecided(LATER, decided)) == ["task.budget_released"]
    raised = asked(stopped(used_up(question="q2")))
    assert raised.request.approval_id != ours.request.approval_id, "once it was raised, it is a question anew"


@pytest.mark.parametrize("status", [ApprovalStatus.REJECTED, ApprovalStatus.EXPIRED, ApprovalStatus.VOID])
def test_what_was_over_before_the_task_asked_says_nothing_to_it(status: ApprovalStatus) -> None:
    play, other = stopped(), stopped()
    before = asked(play).request.approval_id
    past = view(play, status, decided_at=AT - timedelta(seconds=1))
    assert play.tell(told.RaiseDecided(LATER, past)) == ["task.budget_released", "task.budget_held"]
    released, held = play.events[-2:]
    assert isinstance(released, BudgetReleased)
    assert isinstance(held, BudgetHeld)
    assert (released.verdict, released.decisions, released.waited_s) == (ApprovalStatus.VOID, (), 90.0)
    assert play.directives == (asked(play),), "people are asked anew"
    assert asked(play).request.approval_id == held.approval_id != before
    assert (held.short, held.at) == (asked(other).short, LATER)
    other.tell(told.RaiseDecided(LATER, past))
    assert asked(other).request.approval_id == held.approval_id, "and all ask the same again"


def test_who_is_gone_is_asked_for_no_more_but_what_was_approved_counts() -> None:
    play = stopped()
    void = view(play, ApprovalStatus.VOID, decided_at=LATER)
    assert play.tell(told.RaiseDecided(LATER, void)) == ["task.budget_released", "task.budget_held"]
    approved = view(play, decided_at=AT - timedelta(days=1))
    assert play.tell(told.RaiseDecided(LATER, approved)) == ["task.budget_released"]
    assert isinstance(play.directives[0], CallModel)


def test_where_there_is_room_nobody_waits_any_longer() -> None:
    play = stopped()
    waiting = asked(play).request.approval_id
    assert play.tell(told.BudgetLifted(LATER, "apr_01JTQ000000000000000000000")) == []
    assert play.tell(told.BudgetLifted(LATER, waiting)) == ["task.budget_released"]
    released = play.events[-1]
    assert isinstance(released, BudgetReleased)
    assert (released.verdict, released.lifted, released.waited_s) == (ApprovalStatus.VOID, True, 90.0)
    assert isinstance(play.directives[0], CallModel)
    assert play.tell(told.BudgetLifted(LATER, waiting)) == []


NOBODY_NAMED = BudgetApproval()


def listed(
    budget: str = "team",
    subject: str = "atlas",
    approval: BudgetApproval = NOBODY_NAMED,
    on_hit: OnHit = OnHit.ASK,
    **use: Any,
) -> BudgetList:
    uses = (BudgetUse.model_validate({"subject": subject, "period": "2026-05-04"} | use),)
    known = Budget(name=budget, limit_usd=Decimal(1), on_hit=on_hit, approval=approval)
    return BudgetList(budgets=(BudgetView(budget=known, revision=1, set_by="ada", set_at=AT, uses=uses),))


def test_a_budget_has_room_unless_a_limit_of_it_was_spent() -> None:
    short = asked(stopped()).short
    usd: dict[str, Any] = {"limit_usd": Decimal("1.00")}
    tokens: dict[str, Any] = {"limit_tokens": 10}
    both = asked(stopped(used_up(limit_tokens="10", spent_tokens="9"))).short
    assert has_room(BudgetList(budgets=()), short), "it is gone"
    assert has_room(listed(**usd, **tokens, spent_usd=Decimal("0.9"), spent_tokens=9), short)
    assert not has_room(listed(**usd, spent_usd=Decimal(1)), short)
    assert not has_room(listed(**usd, **tokens, spent_tokens=10), both)
    assert has_room(listed(**usd, spent_usd=Decimal(1), subject="borg"), short)
    assert has_room(listed(**usd, spent_usd=Decimal(1), budget="other"), short)


def test_of_a_budget_that_was_changed_something_else_is_asked() -> None:
    short = asked(stopped()).short
    spent: dict[str, Any] = {"spent_usd": Decimal(1)}
    assert not has_room(listed(**spent, limit_usd=Decimal(1)), short)
    assert has_room(listed(**spent, limit_usd=Decimal("0.01")), short), "what people see was not asked about that"
    assert has_room(listed(**spent, limit_usd=Decimal(1), limit_tokens=5), short)
    others = BudgetApproval(roles=("finance",))
    assert has_room(listed(**spent, limit_usd=Decimal(1), approval=others), short), "others decide now"
    assert has_room(listed(**spent, limit_usd=Decimal(1), on_hit=OnHit.STOP), short), "nobody is asked any more"


def test_what_is_open_or_of_another_question_changes_nothing() -> None:
    play = stopped()
    assert play.tell(told.RaiseDecided(LATER, view(play, ApprovalStatus.OPEN))) == []
    other = view(play).model_copy(update={"approval_id": "apr_01JTQ000000000000000000000"})
    assert play.tell(told.RaiseDecided(LATER, other)) == []
    assert play.tell(told.ModelFailed(AT, play.state.model_call_id, used_up())) == []
    assert Play().accept().tell(told.RaiseDecided(LATER, other)) == []


def test_a_raise_that_cannot_be_made_fails_the_task() -> None:
    play = stopped()
    wrong = ErrorInfo(code="invalid_input", message="too much")
    assert play.tell(told.RaiseDecided(LATER, view(play), wrong)) == ["task.budget_released", "task.failed"]
    assert play.state.error == wrong


@pytest.mark.parametrize("error", [Conflict("it was changed"), NotFound("it is gone")])
def test_what_was_agreed_to_of_a_budget_that_is_another_now_is_void(error: ParacleError) -> None:
    play = stopped()
    first = asked(play).request.approval_id
    decided = told.RaiseDecided(LATER, view(play), error.to_info())
    assert play.tell(decided) == ["task.budget_released"]
    released = play.events[-1]
    assert isinstance(released, BudgetReleased)
    assert (released.verdict, released.lifted) == (ApprovalStatus.VOID, True)
    assert [made.principal for made in released.decisions] == ["bob"], "the history says who agreed to it"
    [call] = play.directives
    assert isinstance(call, CallModel), "whether there is room now, the call finds out"
    play.tell(told.ModelFailed(LATER, call.call_id, used_up(question="q2")))
    assert asked(play).request.approval_id == asked(stopped(used_up(question="q2"))).request.approval_id != first


def test_what_is_void_is_not_taken_for_an_answer_if_the_budget_is_as_it_was_again() -> None:
    play = stopped()
    ids = []
    for _ in range(3):
        ids.append(asked(play).request.approval_id)
        play.tell(told.RaiseDecided(LATER, view(play), Conflict("it was changed").to_info()))
        play.tell(told.ModelFailed(LATER, play.state.model_call_id, used_up()))
    assert len(set(ids)) == 3, "people are asked anew each time"
    other = stopped()
    for expected in ids:
        assert asked(other).request.approval_id == expected, "and all ask the same again"
        other.tell(told.BudgetLifted(LATER, expected))
        other.tell(told.ModelFailed(LATER, other.state.model_call_id, used_up()))


def test_a_budget_that_stops_fails_the_task_at_once() -> None:
    play = stopped(used_up(on_hit="stop"))
    assert [event.type for event in play.events[1:]] == ["task.model_call_failed", "task.failed"]
    assert play.state.error is not None
    assert (play.state.error.code, play.state.error.retryable) == ("budget_exceeded", False)


@pytest.mark.parametrize(
    "details",
    [
        {"spent_usd": "0.5"},
        {"limit_usd": "a lot"},
        {"limit_usd": "NaN"},
        {"budget": "no such name"},
        {"approval": "{"},
        {"approval": '{"quorum": 0}'},
    ],
)
def test_what_a_raise_would_not_mend_is_not_asked(details: dict[str, str]) -> None:
    assert shortage(used_up(**details)) is None
    assert stopped(used_up(**details)).state.status is TaskStatus.FAILED


def test_what_lacks_its_facts_is_not_asked() -> None:
    error = used_up()
    assert error.details is not None
    for name in ("subject", "spent_usd", "limit_usd", "question"):
        rest = {key: value for key, value in error.details.items() if key != name}
        assert shortage(error.model_copy(update={"details": rest})) is None
    assert shortage(error.model_copy(update={"details": None})) is None
    assert shortage(error.model_copy(update={"code": "limit_exceeded"})) is None


def test_tokens_are_raised_in_whole_ones() -> None:
    short = shortage(
        used_up(spent_usd="0", spent_tokens="1030", limit_tokens="1000", estimate_tokens="2077", period="total")
    )
    assert short is not None
    assert (short.usd, short.tokens) == (None, 2200)
    play = stopped(used_up(spent_usd="0", spent_tokens="25", limit_tokens="5"))
    assert asked(play).request.ask == "Raise the budget team of atlas by 20 tokens?"
    play = stopped(used_up(spent_tokens="25", limit_tokens="5"))
    assert asked(play).request.ask == "Raise the budget team of atlas by 0.10 USD and 20 tokens?"


amounts = st.decimals(min_value="0.000000001", max_value=10**9, allow_nan=False, places=9)


@given(amounts, amounts, amounts)
def test_a_raise_makes_room_for_the_call(limit: Decimal, over: Decimal, estimate: Decimal) -> None:
    spent = limit + over
    details = {"limit_usd": str(limit), "spent_usd": str(spent), "estimate_usd": str(estimate)}
    short = shortage(used_up(**details))
    if short is None:
        assert over + estimate > 10**8, "only what no budget may have"
        return
    assert short.usd is not None
    assert limit + short.usd >= spent + estimate
    assert short.usd >= limit / 10
    assert short.usd <= max(over + estimate, limit / 10) * Decimal("1.1") + Decimal("1e-9")
    RaiseBudget(name="b", subject="s", key="k", usd=short.usd)


@given(st.decimals(min_value="0.0000000001", max_value=10**12, allow_nan=False), st.sampled_from([0, -9]))
def test_rounding_never_gives_less(amount: Decimal, finest: int) -> None:
    given_more = rounded(amount, finest)
    assert amount <= given_more <= amount * Decimal("1.1") + Decimal(10) ** finest
    assert given_more == rounded(given_more, finest)
