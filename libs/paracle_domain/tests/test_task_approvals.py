"""Approvals of tool calls in the task machine: when people are asked, and what their word is bound to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from paracle_domain.errors import ErrorInfo
from paracle_domain.plan import Plan, PlannedTool
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, Decision
from paracle_domain.run.deciding import asked
from paracle_domain.task import inputs as told
from paracle_domain.task.approvals import cost_of, loosened, question, stricter, wanted
from paracle_domain.task.directives import AskPeople, CallModel, InvokeTool
from paracle_domain.task.state import Job, TaskState
from paracle_domain.tool.spec import ToolApproval, ToolSpec

from .test_task_machine import AT, TOOLS, Play, plan, task, wish

LATER = AT + timedelta(seconds=90)


def policy(**fields: Any) -> ToolApproval:
    return ToolApproval.model_validate(fields)


def guarded(name: str, effect: str = "none", revision: int = 3, **spec: Any) -> PlannedTool:
    backend = {"type": "builtin", "function": "noop"}
    found = {"description": name, "backend": backend, "effect": effect, **spec}
    return PlannedTool(name=name, revision=revision, spec=ToolSpec.model_validate(found))


def guarded_plan(agent: dict[str, Any] | None = None, **pay: Any) -> Plan:
    base = plan(agent)
    tools = {**TOOLS, "pay": guarded("pay", "at_most_once", **{"approval": {}, **pay})}
    return Plan.pin(base.workflow, base.agents, tools)


class Guarded(Play):
    """A play in which paying needs people's word."""

    def __init__(self, agent: dict[str, Any] | None = None, changes: dict[str, Any] | None = None, **pay: Any) -> None:
        super().__init__()
        self.state = TaskState(Job.of(task(**(changes or {})), guarded_plan(agent, **pay)))
        self.accept()

    @property
    def asks(self) -> list[AskPeople]:
        return [d for d in self.directives if isinstance(d, AskPeople)]

    def view(self, ask: AskPeople, status: str, **more: Any) -> ApprovalView:
        opened = asked(ask.request, "w", "ann")
        return opened.model_copy(update={"status": ApprovalStatus(status), **more})

    def decided(self, ask: AskPeople, status: str, at: Any = LATER, **more: Any) -> list[str]:
        return self.tell(told.CallDecided(at, ask.call_id, self.view(ask, status, **more)))


def test_a_held_call_is_not_in_the_ledger_and_others_go_on_meanwhile():
    play = Guarded()
    assert play.reply(wish("pay", "a", n=1), wish("save", "b")) == [
        "task.model_replied",
        "task.call_held",
        "effect.intended",
        "effect.sent",
    ]
    [ask], [invoke] = play.asks, [d for d in play.directives if isinstance(d, InvokeTool)]
    assert invoke.tool == "save"
    request = ask.request
    assert (request.tool, request.ask, request.step) == ("pay", "Call the tool pay?", "s")
    assert request.action["arguments"] == {"n": 1}
    assert (request.action["agent"], request.action["agent_revision"], request.action["tool_revision"]) == (
        "helper",
        7,
        3,
    )
    assert play.tell(told.ToolSucceeded(AT, ask.call_id, "forged", 0.1)) == []
    assert play.tell(told.ToolFailed(AT, ask.call_id, ErrorInfo(code="tool_failed", message="no"), 0.1)) == []
    play.returns(index=1)
    assert play.tell(told.Resume(AT)) == []
    assert play.asks == [ask], "a process that takes the task up asks the same"
    assert play.decided(ask, "open") == []
    assert play.decided(ask, "approved") == ["task.call_released", "effect.intended", "effect.sent"]
    assert [d.tool for d in play.directives if isinstance(d, InvokeTool)] == ["pay"]
    assert play.decided(ask, "rejected") == []
    play.returns("paid")
    assert [type(d) for d in play.directives] == [CallModel]


@pytest.mark.parametrize(
    ("status", "decisions", "said"),
    [
        ("rejected", ("too much",), "approval_rejected: bob rejected this call: too much"),
        ("rejected", ("",), "approval_rejected: bob rejected this call"),
        ("rejected", (), "approval_rejected: somebody rejected this call"),
        ("expired", (), "approval_expired: nobody, or too few, decided about this call in time"),
        ("void", (), "conflict: the approval of this call is void"),
    ],
)
def test_what_is_not_approved_is_told_to_the_model(status: str, decisions: tuple[str, ...], said: str):
    play = Guarded()
    play.reply(wish("pay"))
    made = tuple(Decision(principal="bob", decision="reject", reason=why, at=AT) for why in decisions)
    assert play.decided(play.asks[0], status, decisions=made) == ["task.call_released", "task.tool_returned"]
    assert play.state.messages[-1].tool_results[0].content.startswith(said)
    assert [type(d) for d in play.directives] == [CallModel]


def test_or_it_fails_the_task_if_the_policy_says_so():
    play = Guarded(approval={"on_rejection": "fail"})
    play.reply(wish("pay"))
    assert play.decided(play.asks[0], "expired") == ["task.call_released", "task.failed"]
    assert play.error.startswith("approval_expired")


def test_a_tools_own_task_asks_as_well():
    play = Guarded(changes={"target_kind": "tool", "target": "pay", "input": {"n": 1}})
    assert [event.type for event in play.events] == ["task.accepted", "task.call_held"]
    [ask] = play.asks
    assert ask.request.action["agent"] is None
    assert play.decided(ask, "approved") == ["task.call_released", "effect.intended", "effect.sent"]
    other = Guarded(changes={"target_kind": "tool", "target": "pay", "input": {"n": 1}})
    assert other.decided(other.asks[0], "rejected")[-1] == "task.failed"


@pytest.mark.parametrize(
    "changed",
    [
        {"agent": {"instructions": "Other."}},
        {"revision": 4},
        {"approval": {"quorum": 2}},
        {"input": {"type": "object", "properties": {"n": {}}}},
    ],
)
def test_anything_changed_voids_the_approval(changed: dict[str, Any]):
    play = Guarded()
    play.reply(wish("pay"))
    ask = play.asks[0]
    new_plan = guarded_plan(changed.pop("agent", None), **changed)
    play.state = replace(play.state, job=Job.of(task(plan=new_plan.digest), new_plan))
    play.decided(ask, "approved")
    assert "is void" in play.state.messages[-1].tool_results[0].content


def test_an_approval_of_something_else_is_void():
    play = Guarded()
    play.reply(wish("pay"))
    play.decided(play.asks[0], "approved", digest="sha256:other")
    assert "is void" in play.state.messages[-1].tool_results[0].content


def test_a_policy_that_is_gone_voids_as_well():
    play = Guarded()
    play.reply(wish("pay"))
    ask = play.asks[0]
    play.state = replace(play.state, job=Job.of(task(), plan()))
    play.decided(ask, "approved")
    assert "is void" in play.state.messages[-1].tool_results[0].content


def test_wall_time_stands_still_while_people_decide():
    play = Guarded({"limits": {"wall_time_s": 60}})
    play.reply(wish("pay"))
    assert play.state.due_at is None
    play.decided(play.asks[0], "approved")
    assert play.state.waited_s == 90
    due = play.state.expires_at
    assert due == AT + timedelta(seconds=150)
    play.returns()
    play.reply(text="paid")
    [report] = play.directives
    assert report.result.waited_s == 90


@pytest.mark.parametrize(
    ("fields", "arguments", "cost", "asks"),
    [
        ({}, {}, None, True),
        ({"when": "arguments.n > 5"}, {"n": 6}, None, True),
        ({"when": "arguments.n > 5"}, {"n": 5}, None, False),
        ({"when": "arguments.n > 5"}, {}, None, True),
        ({"above_usd": 1}, {}, Decimal(2), True),
        ({"above_usd": 1}, {}, Decimal(1), False),
        ({"above_usd": 1}, {}, None, True),
        ({"above_usd": 1, "when": "arguments.n"}, {"n": 1}, Decimal(0), True),
    ],
)
def test_when_people_are_asked(fields: Any, arguments: Any, cost: Decimal | None, asks: bool):
    assert wanted(policy(**fields), arguments, cost) is asks


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        (None, None),
        ("0.5", Decimal("0.5")),
        ("{{ (arguments.n | float) * 2 }}", Decimal(6)),
        ("{{ arguments.m }}", None),
        ("much", None),
        ("{{ 'NaN' }}", None),
    ],
)
def test_what_a_call_costs(text: str | None, cost: Decimal | None):
    assert cost_of(guarded("t", cost_usd=text), {"n": 3}) == cost


def test_an_agent_may_ask_more_and_of_fewer_but_not_less():
    base, own = policy(principals=["ann", "bob"], when="arguments.n > 5"), policy(principals=["bob"], quorum=1)
    assert stricter(base, own) is own
    assert stricter(None, own) is own
    assert stricter(base, None) is base
    assert stricter(base, policy()) is base
    agent = {"approvals": {"pay": {"principals": ["bob"]}}}
    play = Guarded(agent, approval={"principals": ["ann", "bob"], "when": "arguments.n > 5"})
    play.reply(wish("pay", n=1))
    assert play.asks[0].request.principals == ("bob",)
    calm = Guarded(approval={"when": "arguments.n > 5"})
    assert "effect.sent" in calm.reply(wish("pay", n=1))


@pytest.mark.parametrize(
    ("base", "own", "field"),
    [
        ({"quorum": 2}, {}, "quorum"),
        ({}, {"own": True}, "own"),
        ({"expires_s": 5}, {}, "expires_s"),
        ({"expires_s": 5}, {"expires_s": 6}, "expires_s"),
        ({"on_rejection": "fail"}, {}, "on_rejection"),
        ({}, {"on_expiry": "escalate", "expires_s": 1, "escalate_to": {"roles": ["x"]}}, "escalate_to"),
        ({"roles": ["x"]}, {"principals": ["x"]}, "principals"),
        ({"roles": ["x"]}, {}, "principals"),
        ({"quorum": 2, "roles": ["x"]}, {"quorum": 3, "roles": ["x"]}, None),
    ],
)
def test_looser_policies_are_known(base: Any, own: Any, field: str | None):
    assert [name for name, _ in loosened(policy(**base), policy(**own))] == ([field] if field else [])


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("Pay {{ arguments.n }} now?", "Pay 3 now?"),
        ("Pay {{ arguments.m }}?", "Call the tool pay?"),
        ("{{ arguments.n }}", "Call the tool pay?"),
    ],
)
def test_the_question_may_quote_the_arguments(ask: str, said: str):
    play = Guarded(approval={"ask": ask})
    play.reply(wish("pay", n=3))
    assert play.asks[0].request.ask == said
    found = question(play.state.job, play.state.calls[0])
    assert found is not None
    assert found.digest == play.asks[0].request.digest
