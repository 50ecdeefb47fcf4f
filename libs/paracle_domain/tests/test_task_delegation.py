"""Delegation in the task machine: who is asked, within what, and what becomes of the answer."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from paracle_domain.agent.spec import AgentSpec, Delegate
from paracle_domain.errors import ErrorInfo, Finding, InvalidInput, LimitExceeded, NotFound
from paracle_domain.inference.request import LONGEST_LABEL
from paracle_domain.inference.usage import Usage
from paracle_domain.plan import Plan, PlannedAgent
from paracle_domain.task import inputs as told
from paracle_domain.task import prompt
from paracle_domain.task.delegation import MAX_DEPTH, Helper, asked_again, child_task, limits_of, share
from paracle_domain.task.directives import AskAgent, CallModel, CheckOutput, InvokeTool
from paracle_domain.task.machine import decide
from paracle_domain.task.messages import Allowance, Task, TaskParent, TaskResult, TaskStatus
from paracle_domain.task.state import Job, TaskState, evolve
from paracle_domain.task.story import wishes

from .test_task_machine import AT, TOOLS, Play, completion, plan, task, wish

DELEGATES = [
    {"agent": "writer", "description": "Writes."},
    {"agent": "helper"},
    {"agent": "writer", "mode": "handoff"},
]
OBJECT = {"type": "object", "properties": {"topic": {"type": "string"}}}


def agent(name: str, **spec: Any) -> PlannedAgent:
    return PlannedAgent(name=name, revision=2, spec=AgentSpec.model_validate(spec))


def tree(**spec: Any) -> Plan:
    """A helper that may ask a writer, itself, or hand over to the writer."""
    base = plan({"delegates": DELEGATES, **spec})
    writer = agent("writer", description="A writer.", delegates=[{"agent": "helper"}])
    return Plan.pin(base.workflow, {**base.agents, "writer": writer}, base.tools)


class Team(Play):
    """A play with delegates."""

    def __init__(self, spec: dict[str, Any] | None = None, **changes: Any) -> None:
        super().__init__()
        self.state = TaskState(Job.of(task(**changes), tree(**(spec or {}))))
        self.accept()

    @property
    def asked(self) -> list[Task]:
        return [d.task for d in self.directives if isinstance(d, AskAgent)]

    def ends(self, output: Any = "done", index: int = 0, **result: Any) -> list[str]:
        call = self.state.open_calls[index]
        child = child_task(self.state, call)
        fields = {"status": "completed", "output": output, "usage": used(model_calls=1), **result}
        base = {"task_id": child.task_id, "run_id": child.run_id, "step": "s", "attempt": 1}
        at = fields.pop("at", AT)
        return self.tell(told.DelegateEnded(at, call.id, TaskResult.model_validate({**base, **fields}), 1.0))

    def fails(self, code: str = "tool_failed") -> list[str]:
        return self.ends(None, status="failed", error=ErrorInfo(code=code, message="no"))


def used(**parts: Any) -> Usage:
    return Usage.model_validate(parts)


def test_a_delegate_is_a_tool_to_the_model_and_a_task_of_its_own_to_us():
    team = Team()
    offered = {t.name: t for t in prompt.model_request(team.state).tools}
    assert list(offered) == [*TOOLS, "ask_writer", "ask_helper", "hand_to_writer"]
    assert offered["ask_writer"].description == "Writes."
    assert offered["ask_helper"].description == "The agent helper."
    assert offered["hand_to_writer"].description == "Hands the task over, for good. Who answers then: A writer."
    assert offered["ask_writer"].input_schema["required"] == ["text"]
    assert team.reply(wish("ask_writer", text="poem"), wish("look", "c2")) == ["task.model_replied", "task.delegated"]
    [child] = team.asked
    assert [type(d) for d in team.directives] == [AskAgent, InvokeTool]
    assert (child.target, child.input, child.step, child.attempt) == ("writer", {"text": "poem"}, "s", 1)
    assert child.parent
    assert (child.parent.task_id, child.parent.depth, child.parent.agent) == (team.state.job.task.task_id, 1, "helper")
    assert child.effect_scope.startswith("s>ask_writer.")
    assert team.asked == [child], "it is the same whenever it is asked for"
    assert team.tell(told.Resume(AT)) == []
    assert team.asked == [child]
    assert team.tell(told.DelegateEnded(AT, team.state.open_calls[1].id, told_result(team), 1.0)) == [], (
        "it is a tool's"
    )
    assert team.ends("a poem", waited_s=2.0) == ["task.tool_returned"]
    team.returns()
    assert [type(d) for d in team.directives] == [CallModel]
    assert [r.content for r in team.state.messages[-1].tool_results] == ["a poem", "ok"]
    assert team.tell(told.DelegateEnded(AT, "call_x", told_result(team), 1.0)) == []
    team.reply(text="here")
    assert (team.state.spent.model_calls, team.state.spent.tool_calls) == (3, 2)


def test_a_delegates_calls_are_accounted_with_those_of_its_parent():
    team = Team(principal="ada", project="atlas")
    own = prompt.model_request(team.state).labels
    assert (own.principal, own.project, own.parent_task_id) == ("ada", "atlas", None)
    team.reply(wish("ask_writer", text="poem"))
    [child] = team.asked
    begun = TaskState(Job.of(child, team.state.job.plan))
    for event in decide(begun, told.AcceptTask(AT)).events:
        begun = evolve(begun, event)
    labels = prompt.model_request(begun).labels
    assert (labels.principal, labels.project, labels.agent) == ("ada", "atlas", "writer")
    assert (labels.task_id, labels.parent_task_id) == (child.task_id, team.state.job.task.task_id)


def test_no_job_is_made_whose_calls_nobody_could_account_for():
    assert Team(principal="a" * LONGEST_LABEL).state.job.task.principal == "a" * LONGEST_LABEL
    with pytest.raises(InvalidInput, match="has 257 characters; models are asked for at most 256") as caught:
        Team(principal="a" * (LONGEST_LABEL + 1))
    assert caught.value.path == "principal"


def told_result(team: Team) -> TaskResult:
    return TaskResult(task_id=team.state.job.task.task_id, run_id=team.state.job.task.run_id, step="s", attempt=1,
                      status=TaskStatus.COMPLETED)  # fmt: skip


def test_what_a_delegate_failed_at_is_told_to_the_model():
    team = Team()
    team.reply(wish("ask_writer", text="poem"))
    assert team.fails() == ["task.tool_returned"]
    assert team.state.messages[-1].tool_results[0].content == "tool_failed: no"
    assert [type(d) for d in team.directives] == [CallModel]


@pytest.mark.parametrize("code", ["effect_in_doubt", "loop"])
def test_what_asking_again_would_make_worse_ends_the_parent_too(code: str):
    team = Team()
    team.reply(wish("ask_writer", text="poem"))
    assert team.fails(code) == ["task.tool_returned", "task.failed"]
    assert team.error == f"{code}: no"


def test_who_is_handed_the_task_gives_its_answer():
    team = Team()
    team.reply(wish("hand_to_writer", text="all of it"))
    assert team.ends({"poem": 1}) == ["task.tool_returned", "task.completed"]
    assert team.state.output == {"poem": 1}
    failed = Team()
    failed.reply(wish("hand_to_writer", text="all of it"))
    assert failed.fails() == ["task.tool_returned", "task.failed"]
    assert failed.error == "tool_failed: no"


@pytest.mark.parametrize(("output", "text"), [('{"a": 1}', '{"a": 1}'), ({"a": 1}, '{"a": 1}')])
def test_an_answer_from_whom_it_was_handed_to_has_to_fit_all_the_same(output: Any, text: str):
    team = Team({"output": {"type": "object"}})
    team.reply(wish("hand_to_writer", text="x"))
    assert team.ends(output) == ["task.tool_returned"]
    assert list(team.directives) == [CheckOutput(1, text)]
    assert team.tell(told.OutputChecked(AT, 1, {"a": 1})) == ["task.completed"]
    bad = Team({"output": {"type": "object"}})
    bad.reply(wish("hand_to_writer", text="x"))
    bad.ends(output)
    assert bad.tell(told.OutputChecked(AT, 1, None, (Finding(path="a", message="is wrong"),))) == ["task.failed"]
    assert "what the agent that took over answered does not fit" in bad.error


def test_a_handover_stands_alone_in_its_turn():
    team = Team()
    team.reply(wish("hand_to_writer", text="x"), wish("look", "c2"))
    assert [type(d) for d in team.directives] == [InvokeTool]
    assert "hand over in a turn of its own" in str(team.state.calls[0].result)


def test_arguments_that_do_not_fit_start_nothing():
    team = Team()
    team.reply(wish("ask_writer", text=1), refused={0: "text must be a string"})
    assert team.asked == []


def test_a_delegate_gets_its_share_of_what_is_left():
    team = Team({"limits": {"turns": 10, "tool_calls": 12, "tokens": 1015, "cost_usd": 2, "wall_time_s": 100}})
    reply = completion(wish("ask_writer", text="a"), wish("ask_writer", "c2", text="b"), cost_usd=Decimal(1))
    team.tell(told.ReplyCame(AT + timedelta(seconds=40), team.state.model_call_id, reply))
    allowances = [child.allowance for child in team.asked]
    assert allowances == [Allowance(turns=4, tool_calls=5, tokens=500, cost_usd=Decimal("0.5"), wall_time_s=60.0)] * 2
    child = team.asked[0]
    narrow = Job.of(child, tree())
    assert narrow.limits
    assert (narrow.limits.turns, narrow.limits.tokens, narrow.limits.wall_time_s) == (4, 500, 60.0)
    assert narrow.limits.cost_usd == Decimal("0.5")
    team.ends(usage=used(model_calls=6, input_tokens=1500))
    team.ends(usage=used())
    assert "limits.tokens: 1,515 of 1,015 tokens are used" in team.error


def test_turns_are_those_of_the_whole_tree():
    team = Team({"limits": {"turns": 4}})
    team.reply(wish("ask_writer", text="a"))
    team.ends(usage=used(model_calls=3))
    assert "limits.turns: all 4 turns are used up" in team.error


@pytest.mark.parametrize(
    ("limits", "usage", "why"),
    [
        ({"turns": 2}, {}, "limits.turns: 1 of 2 are used, none is left for a delegate"),
        ({"tokens": 15}, {}, "limits.tokens: 15 of 15 are used, none is left"),
        ({"cost_usd": 1}, {"cost_usd": None}, "limits.cost_usd: the price of a call is unknown"),
        ({"cost_usd": 1}, {"cost_usd": 1}, "limits.cost_usd: 1 of 1 USD are spent"),
    ],
)
def test_nobody_is_asked_with_nothing_left(limits: Any, usage: Any, why: str):
    team = Team({"limits": limits})
    team.reply(wish("ask_writer", text="a"), **usage)
    assert team.asked == []
    assert why in str(team.state.calls[0].result)


def test_a_task_without_a_money_limit_gives_none_and_free_work_is_free():
    limits = limits_of(agent("a"), None)
    free = share(limits, 0, used(), 1, 1)
    assert isinstance(free, Allowance)
    assert free.cost_usd is None
    priced = limits_of(agent("a", limits={"cost_usd": 0}), free)
    assert priced.cost_usd == 0
    unpaid = share(priced, 0, used(), 0, 1)
    assert isinstance(unpaid, Allowance)
    assert (unpaid.cost_usd, unpaid.wall_time_s) == (Decimal(0), 0.001)


def line_of(*questions: str) -> Task:
    parent = TaskParent(task_id=task().task_id, call_id="c", agent="a", depth=max(1, len(questions)), lineage=questions)
    return task(parent=parent)


def test_delegation_has_a_depth():
    deep = line_of(*map(str, range(MAX_DEPTH)))
    refused = asked_again(deep, "writer", {})
    assert isinstance(refused, LimitExceeded)
    assert "5 agents deep at most" in refused.message
    play = Play()
    play.state = TaskState(Job.of(deep, tree()))
    play.accept()
    assert [t.name for t in prompt.model_request(play.state).tools] == list(TOOLS)
    play.reply(wish("ask_writer", text="a"))
    assert "5 agents deep" in str(play.state.calls[0].result)


def test_waits_are_told_to_whoever_watches_the_step_however_deep():
    team, plans = Team(input={"text": "hi"}), tree()
    root = team.state.job.task.task_id
    assert team.state.job.task.root is None
    assert prompt.model_request(team.state).waits_to is None
    for name in ("ask_writer", "ask_helper"):
        team.reply(wish(name, text=name))
        child = team.asked[0]
        team.state = evolve_all(TaskState(Job.of(child, plans)))
        assert child.root == root
        assert prompt.model_request(team.state).waits_to == root


def test_two_that_ask_each_other_the_same_are_stopped_in_their_third_lap():
    team, plans = Team(input={"text": "hi"}), tree()
    asked = ["helper"]
    while True:
        name = "ask_writer" if team.state.job.task.target == "helper" else "ask_helper"
        team.reply(wish(name, text="hi"))
        if not team.asked:
            break
        child = team.asked[0]
        asked.append(child.target)
        team.state = evolve_all(TaskState(Job.of(child, plans)))
    assert asked == ["helper", "writer", "helper", "writer"]
    assert team.error == "loop: agent 'helper' was asked the very same 2 times on the way here"


def evolve_all(state: TaskState) -> TaskState:
    for event in decide(state, told.AcceptTask(AT)).events:
        state = evolve(state, event)
    return state


def test_while_a_delegate_works_its_own_time_counts():
    team = Team({"limits": {"wall_time_s": 10}})
    team.reply(wish("ask_writer", text="a"))
    assert team.state.due_at is None
    assert team.tell(told.DeadlinePassed(AT + timedelta(seconds=11))) == []
    team.ends(at=AT + timedelta(seconds=70), waited_s=65)
    assert team.state.due_at == AT + timedelta(seconds=75)
    assert team.state.waited_s == 65
    assert team.tell(told.DeadlinePassed(AT + timedelta(seconds=75))) == ["task.timed_out"]


def test_waits_of_a_turn_overlap_and_no_wait_moves_the_deadline():
    team = Team({"limits": {"wall_time_s": 10}}, deadline_at=AT + timedelta(seconds=30))
    team.reply(wish("ask_writer", text="a"), wish("ask_writer", "c2", text="b"))
    assert team.state.due_at == AT + timedelta(seconds=30)
    team.ends(waited_s=15)
    team.ends(waited_s=10)
    assert team.state.waited_s == 15
    assert team.state.due_at == AT + timedelta(seconds=25)
    team.reply(wish("ask_writer", text="c"))
    team.ends(waited_s=60)
    assert team.state.due_at == AT + timedelta(seconds=30)


@pytest.mark.parametrize(
    ("schema", "seen", "given"),
    [
        (OBJECT, OBJECT, {"input": "x"}),
        ({"properties": {}}, {"type": "object", "properties": {}}, {"input": "x"}),
        (
            {"type": "string"},
            {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]},
            "x",
        ),
    ],
)
def test_an_input_of_any_shape_can_be_asked_for(schema: Any, seen: Any, given: Any):
    helper = Helper(Delegate(agent="writer"), agent("writer", input=schema))
    assert helper.input_schema == seen
    assert helper.input_of({"input": "x"}) == given


def test_a_plan_without_the_delegate_is_no_plan():
    base = plan({"delegates": DELEGATES})
    with pytest.raises(NotFound, match="no agent 'writer'"):
        Job.of(task(), base)


def test_the_same_question_twice_has_effects_of_its_own_each_time():
    team = Team()
    team.reply(wish("ask_writer", text="a"))
    first = team.asked[0].effect_scope
    team.ends("one")
    team.reply(wish("ask_writer", text="a"))
    assert team.asked[0].effect_scope != first
    other = Team(attempt=2, task_id="task_01JTQ000000000000000000002")
    other.reply(wish("ask_writer", text="a"))
    assert other.asked[0].effect_scope == first
    assert wishes(other.state)


def test_tools_that_take_turns_are_stopped_after_three_laps_unless_something_changes():
    team = Team()
    for lap in range(3):
        team.reply(wish("look", q=1))
        team.returns("same")
        team.reply(wish("save", q=2))
        team.returns(f"new {lap}")
    assert team.reply(wish("look", q=1)) == ["task.model_replied"]
    team.returns("same")
    stuck = Team()
    for _ in range(3):
        stuck.reply(wish("look", q=1))
        stuck.returns("same")
        stuck.reply(wish("ask_writer", text="a"))
        stuck.ends("same")
    stuck.reply(wish("look", q=1))
    assert stuck.error.startswith("loop: the model called 'look' and 'ask_writer' 3 times over")


def test_the_same_several_times_in_one_turn_is_a_loop_only_once_it_gave_the_same():
    team = Team()
    five = [wish("look", str(n), q=1) for n in range(5)]
    assert team.reply(*five) == ["task.model_replied"], "nobody knows yet what each of them gives"
    for _ in five:
        team.returns("same")
    team.reply(*five)
    assert team.error.startswith("loop: the model called 'look' 3 times over")
