"""Approvals: who may decide, what it takes, and that a decision is bound to what was shown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from run_driver import EPOCH, RUN_ID, Driver, drive

from paracle_domain.errors import Conflict, Forbidden, NotFound
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, RunStatus, StartRun
from paracle_domain.run.directives import ShowApproval
from paracle_domain.run.inbox import Begin, Decide
from paracle_domain.run.machine import Transition
from paracle_domain.run.timing import REDISPATCH

ASK = {"ask": "Refund {{ input.n }}?", "action": {"amount": "{{ input.n }}"}}


def asked(step: dict[str, Any] | None = None, **more: Any) -> Driver:
    run = drive({"id": "ok", "approval": {**ASK, **more}, **(step or {})}, output="{{ steps.ok.output }}")
    run.begin({"n": 5})
    return run


def said_again(run: Driver, made: Transition) -> list[ApprovalView]:
    """What is shown if the mail that led to `made` comes again."""
    return [item.approval for item in run.machine.again(run.state, made.events) if isinstance(item, ShowApproval)]


def test_an_approval_shows_what_is_asked() -> None:
    run = asked(roles=["finance"], principals=["ann"], quorum=2)
    shown = run.approval("ok")
    assert (shown.ask, shown.action, shown.status) == ("Refund 5?", {"amount": 5}, ApprovalStatus.OPEN)
    assert (shown.principals, shown.roles, shown.quorum, shown.own) == (("ann",), ("finance",), 2, False)
    assert (shown.run_id, shown.step, shown.requested_by, shown.workflow) == (RUN_ID, "ok", "ada", "w")
    assert run.status("ok") == "waiting"


def test_an_approval_lets_the_run_go_on() -> None:
    run = asked()
    made = run.decide("ok", reason="fine")
    assert run.types[-3:] == ["approval.decided:ok", "step.completed:ok", "run.completed"]
    decision = {"principal": "ann", "decision": "approve", "reason": "fine", "at": "2026-01-01T00:00:00Z"}
    assert run.state.output == {"approved": True, "decisions": [decision]}
    assert run.approval("ok").status is ApprovalStatus.APPROVED
    assert said_again(run, made) == [run.approval("ok")]


def test_a_quorum_takes_so_many_people() -> None:
    run = asked(quorum=2)
    run.decide("ok", by="ann")
    assert run.status("ok") == "waiting"
    assert run.decide("ok", by="ann").events == ()
    run.decide("ok", by="bob")
    assert run.state.status is RunStatus.COMPLETED


def test_one_rejection_rejects() -> None:
    run = asked(quorum=2)
    run.decide("ok", by="ann")
    run.decide("ok", "reject", by="bob", reason="too much")
    assert run.state.error is not None
    assert run.state.error.code == "approval_rejected"
    assert "bob rejected: too much" in run.state.error.message
    assert run.approval("ok").status is ApprovalStatus.REJECTED


def test_a_rejection_may_be_tolerated() -> None:
    run = asked({"on_error": "continue"})
    run.decide("ok", "reject")
    assert run.state.status is RunStatus.DEGRADED


@pytest.mark.parametrize(
    ("approvers", "by", "roles", "allowed"),
    [
        ({}, "zoe", (), True),
        ({"principals": ["ann"]}, "ann", (), True),
        ({"principals": ["ann"]}, "bob", (), False),
        ({"roles": ["finance"]}, "bob", ("hr", "finance"), True),
        ({"roles": ["finance"]}, "bob", ("hr",), False),
        ({}, "ada", (), False),
        ({"own": True}, "ada", (), True),
    ],
)
def test_who_may_decide(approvers: dict[str, Any], by: str, roles: tuple[str, ...], allowed: bool) -> None:
    run = asked(**approvers)
    decision = run.decision("ok", by=by, roles=roles)
    objection = run.machine.objection(run.state, decision, run.now)
    assert objection is None if allowed else isinstance(objection, Forbidden)
    assert bool(run.tell(decision).events) is allowed
    assert run.machine.objection(run.state, decision, run.now) is None or not allowed


def test_whoever_started_the_run_may_still_reject() -> None:
    run = asked()
    run.decide("ok", "reject", by="ada")
    assert run.state.status is RunStatus.FAILED


def test_a_decision_counts_only_for_what_was_shown() -> None:
    run = asked()
    other = run.decision("ok", digest="sha256:other")
    assert isinstance(run.machine.objection(run.state, other, run.now), Conflict)
    assert run.tell(other).events == ()
    unknown = Decide("ann", (), "apr_x", other.digest, "approve")
    assert isinstance(run.machine.objection(run.state, unknown, run.now), NotFound)
    assert run.tell(unknown).events == ()


def test_the_digest_covers_everything() -> None:
    digests = {asked().approval("ok").digest, asked(quorum=2).approval("ok").digest}
    run = drive({"id": "ok", "approval": ASK})
    run.begin({"n": 6})
    digests.add(run.approval("ok").digest)
    run = drive({"id": "ok", "approval": ASK}, output="{{ steps.ok.output }}")
    run.tell(Begin(RUN_ID, "other", "ada", StartRun(workflow="w", input={"n": 5})))
    digests.add(run.approval("ok").digest)
    assert len(digests) == 4
    assert asked().approval("ok").digest == asked().approval("ok").digest


def test_changing_ones_mind_and_coming_late_are_conflicts() -> None:
    run = asked(quorum=2)
    run.decide("ok", by="ann")
    assert isinstance(run.machine.objection(run.state, run.decision("ok", "reject", by="ann"), run.now), Conflict)
    run.decide("ok", by="bob")
    late = run.decision("ok", by="cid")
    assert isinstance(run.machine.objection(run.state, late, run.now), Conflict)
    assert run.machine.objection(run.state, run.decision("ok", by="bob"), run.now) is None
    assert run.tell(late).events == ()


def test_an_approval_expires() -> None:
    run = asked(expires_s=10)
    assert run.wake_at == EPOCH + timedelta(seconds=10)
    run.tick(10)
    assert run.state.error is not None
    assert run.state.error.code == "approval_expired"
    assert run.approval("ok").status is ApprovalStatus.EXPIRED


def test_an_approval_escalates_to_others() -> None:
    others = {"roles": ["boss"], "expires_s": 30}
    run = asked(principals=["ann", "bob"], quorum=2, expires_s=10, on_expiry="escalate", escalate_to=others)
    run.decide("ok", by="ann")
    made = run.tick(10)
    assert run.types[-1] == "approval.escalated:ok"
    assert said_again(run, made) == [run.approval("ok")]
    shown = run.approval("ok")
    assert (shown.escalated, shown.principals, shown.roles) == (True, (), ("boss",))
    assert run.decide("ok", by="bob").events == ()
    run.decide("ok", by="eve", roles=("boss",))
    assert run.state.status is RunStatus.COMPLETED


def test_what_is_decided_too_late_does_not_count_though_nobody_has_looked_at_the_clock() -> None:
    run = asked(expires_s=10)
    late = run.decision("ok")
    run.now += timedelta(seconds=10)
    objection = run.machine.objection(run.state, late, run.now)
    assert isinstance(objection, Conflict)
    assert "is over: it is expired" in objection.message
    run.tell(late)
    assert run.types[-3:] == ["step.failed:ok", "run.failing", "run.failed"]
    assert run.approval("ok").status is ApprovalStatus.EXPIRED
    assert run.approval("ok").decisions == ()


def test_an_approval_may_escalate_when_somebody_decides_too_late() -> None:
    run = asked(principals=["ann"], expires_s=10, on_expiry="escalate", escalate_to={"roles": ["boss"]})
    run.now += timedelta(seconds=10)
    late = run.decision("ok")
    assert isinstance(run.machine.objection(run.state, late, run.now), Forbidden)
    run.tell(late)
    assert run.types[-1] == "approval.escalated:ok"
    assert run.approval("ok").roles == ("boss",)
    run.decide("ok", by="eve", roles=("boss",))
    assert run.state.status is RunStatus.COMPLETED


def test_a_decision_after_the_time_of_its_step_does_not_count() -> None:
    run = asked({"timeout_s": 5})
    run.now += timedelta(seconds=5)
    late = run.decision("ok")
    assert isinstance(run.machine.objection(run.state, late, run.now), Conflict)
    run.tell(late)
    assert run.approval("ok").status is ApprovalStatus.VOID


def test_an_escalated_approval_expires_in_the_end() -> None:
    others = {"principals": ["eve"], "expires_s": 30}
    run = asked(expires_s=10, on_expiry="escalate", escalate_to=others)
    run.tick(10)
    assert run.wake_at is not None
    assert run.wake_at <= EPOCH + timedelta(seconds=40)
    run.tick(30)
    assert run.state.status is RunStatus.FAILED


def test_an_approval_may_have_the_time_of_its_step() -> None:
    run = asked({"timeout_s": 5})
    run.tick(5)
    assert run.types[-3:] == ["step.timed_out:ok", "run.failing", "run.failed"]
    assert run.approval("ok").status is ApprovalStatus.VOID


def test_an_approval_is_void_when_its_run_is_cancelled() -> None:
    run = asked()
    made = run.cancel()
    assert run.approval("ok").status is ApprovalStatus.VOID
    assert said_again(run, made) == [run.approval("ok")]


def test_an_approval_is_shown_again_while_nobody_decides() -> None:
    run = asked()
    assert run.wake_at == EPOCH + REDISPATCH
    assert run.tick(1).directives == ()
    (again,) = run.tick(REDISPATCH.total_seconds()).directives
    assert isinstance(again, ShowApproval)
    assert again.approval == run.approval("ok")


def test_what_is_asked_must_be_text() -> None:
    run = drive({"id": "ok", "approval": {"ask": "{{ input.n }}"}})
    run.begin({"n": 5})
    assert run.state.error is not None
    assert "must give text (it gave 5)" in run.state.error.message
