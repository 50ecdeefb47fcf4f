"""The task machine, scenario by scenario, without I/O."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from paracle_domain.agent.spec import AgentSpec
from paracle_domain.errors import ErrorInfo, Finding, MalformedMessage, NotFound
from paracle_domain.inference.chat import ChatMessage, Role, ToolCallPart
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.plan import Plan, PlannedAgent, PlannedTool, PlannedWorkflow
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task import prompt
from paracle_domain.task.directives import CallModel, CheckOutput, InvokeTool, ReportResult
from paracle_domain.task.inputs import Outcome
from paracle_domain.task.ledger import earlier_effects
from paracle_domain.task.limits import next_turn_refused, tool_calls_refused
from paracle_domain.task.machine import MODEL_RETRIES, decide
from paracle_domain.task.messages import Task, TaskStatus
from paracle_domain.task.state import Job, TaskState, evolve
from paracle_domain.task.story import wishes
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.workflow.spec import WorkflowSpec

AT = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
RUN = "run_01JTQ000000000000000000000"
TASK = "task_01JTQ000000000000000000001"


def tool(name: str, effect: str = "none", **more: Any) -> PlannedTool:
    backend = {"type": "builtin", "function": "noop"}
    spec = ToolSpec.model_validate({"description": f"does {name}", "backend": backend, "effect": effect, **more})
    return PlannedTool(name=name, revision=3, spec=spec)


TOOLS = {t.name: t for t in (tool("look"), tool("save", "idempotent"), tool("pay", "at_most_once"))}
ASKING = {"type": "object", "properties": {"n": {}, "idempotency_key": {"type": "string"}}}
PROBED = {t.name: t for t in (tool("wire", "at_most_once", probe={"tool": "trace"}), tool("trace", input=ASKING))}
"""A tool with a probe, for agents that name it."""


def plan(agent: dict[str, Any] | None = None) -> Plan:
    spec = AgentSpec.model_validate({"instructions": "Mind {{ input.text }}.", "tools": list(TOOLS), **(agent or {})})
    workflow = WorkflowSpec.model_validate({"steps": [{"id": "s", "agent": "helper"}]})
    return Plan.pin(
        PlannedWorkflow(name="w", revision=1, spec=workflow),
        {"helper": PlannedAgent(name="helper", revision=7, spec=spec)},
        {**TOOLS, **PROBED},
    )


def task(**changes: Any) -> Task:
    fields = {"task_id": TASK, "run_id": RUN, "step": "s", "attempt": 1, "plan": "sha256:0", "target_kind": "agent"}
    return Task.model_validate({**fields, "target": "helper", "input": {"text": "hi"}, "effect_scope": "s", **changes})


def completion(*calls: ToolCallPart, text: str = "", finish: FinishReason | None = None, **usage: Any) -> Completion:
    return Completion(
        message=ChatMessage.assistant(text, *calls),
        finish_reason=finish or (FinishReason.TOOL_CALLS if calls else FinishReason.STOP),
        usage=Usage.model_validate({"input_tokens": 10, "output_tokens": 5, "model_calls": 1, **usage}),
        provider="sandbox",
        model="rules",
        latency_s=0.1,
    )


def wish(name: str, ref: str = "c1", **arguments: Any) -> ToolCallPart:
    return ToolCallPart(id=ref, name=name, arguments=arguments)


class Play:
    """A task that is told things; keeps its history."""

    def __init__(self, agent: dict[str, Any] | None = None, **changes: Any) -> None:
        self.state = TaskState(Job.of(task(**changes), plan(agent)))
        self.events: list[ev.TaskEvent] = []
        self.directives: tuple[Any, ...] = ()

    def tell(self, message: told.TaskInput) -> list[str]:
        decision = decide(self.state, message)
        for event in decision.events:
            self.state = evolve(self.state, event)
        self.events += decision.events
        self.directives = decision.directives
        return [event.type for event in decision.events]

    def accept(self) -> Play:
        self.tell(told.AcceptTask(AT))
        return self

    def reply(self, *calls: ToolCallPart, **kwargs: Any) -> list[str]:
        refused = kwargs.pop("refused", {})
        return self.tell(told.ReplyCame(AT, self.state.model_call_id, completion(*calls, **kwargs), refused))

    def returns(self, output: Any = "ok", index: int = 0) -> list[str]:
        return self.tell(told.ToolSucceeded(AT, self.state.open_calls[index].id, output, 0.01))

    def breaks(self, outcome: Outcome = Outcome.NOT_DONE) -> list[str]:
        error = ErrorInfo(code="tool_unavailable", message="busy", retryable=True)
        return self.tell(told.ToolFailed(AT, self.state.open_calls[0].id, error, 0.01, outcome))

    @property
    def error(self) -> str:
        assert self.state.error is not None
        return f"{self.state.error.code}: {self.state.error.message}"


def test_an_agent_answers_in_text():
    play = Play().accept()
    assert [type(d) for d in play.directives] == [CallModel]
    request = prompt.model_request(play.state)
    assert [m.text for m in request.messages] == ["Mind hi.", "hi"]
    assert request.stream_to == TASK
    assert [t.name for t in request.tools] == ["look", "save", "pay"]
    assert play.reply(text="hello") == ["task.model_replied", "task.completed"]
    [report] = play.directives
    assert isinstance(report, ReportResult)
    assert (report.result.status, report.result.output) == (TaskStatus.COMPLETED, "hello")
    assert report.result.usage.total_tokens == 15


def test_tools_of_a_turn_are_called_at_once_and_answered_in_the_order_of_the_wishes():
    play = Play().accept()
    play.reply(wish("look", "a", q=1), wish("look", "b", q=2))
    assert [d.arguments for d in play.directives] == [{"q": 1}, {"q": 2}]
    assert play.returns({"n": 2}, index=1) == ["task.tool_returned"]
    assert list(play.directives) == []
    play.returns("one")
    assert [type(d) for d in play.directives] == [CallModel]
    told_back = play.state.messages[-1]
    assert told_back.role is Role.TOOL
    assert [(r.call_id, r.content) for r in told_back.tool_results] == [("a", "one"), ("b", '{"n": 2}')]


@pytest.mark.parametrize(
    ("value", "text"), [("x", "x"), ({"text": "y"}, "y"), ({"text": "y", "z": 1}, None), ([1], "[1]")]
)
def test_input_is_read_as_text_or_as_json(value: Any, text: str | None):
    assert prompt.input_text(value) == (text or '{"text": "y", "z": 1}')


def test_unknown_tools_and_bad_arguments_go_back_to_the_model():
    play = Play().accept()
    bad = ToolCallPart.parse("b", "look", "[1")
    types = play.reply(wish("hammer", "a"), bad, wish("pay", "c", n="x"), refused={2: "n: must be a number"})
    assert types == ["task.model_replied"] + ["task.tool_returned"] * 3
    assert [type(d) for d in play.directives] == [CallModel]
    contents = [r.content for r in play.state.messages[-1].tool_results]
    assert "your tools are: look, save, pay" in contents[0]
    assert contents[1].startswith("input_schema_mismatch")
    assert "n: must be a number" in contents[2]
    assert all(r.is_error for r in play.state.messages[-1].tool_results)
    assert play.state.spent.tool_calls == 3


def test_an_agent_without_tools_is_told_so():
    play = Play({"tools": []}).accept()
    play.reply(wish("look"))
    assert "your tools are: none" in play.state.messages[-1].tool_results[0].content


def test_structured_output_is_checked_and_mended_within_limits():
    play = Play({"output": {"type": "object"}, "limits": {"output_repairs": 1}}).accept()
    assert prompt.model_request(play.state).output is not None
    play.reply(text="[]")
    assert play.directives == (CheckOutput(1, "[]"),)
    problems = (Finding(path="output", message="is no object"),)
    assert play.tell(told.OutputChecked(AT, 1, problems=problems)) == ["task.output_rejected"]
    assert "- output: is no object" in play.state.messages[-1].text
    assert play.tell(told.OutputChecked(AT, 1, problems=problems)) == []
    play.reply(text="{}")
    assert play.tell(told.OutputChecked(AT, 1, value={})) == []
    assert play.tell(told.OutputChecked(AT, 2, value={})) == ["task.completed"]
    assert play.state.output == {}


def test_output_that_stays_wrong_is_a_failure_not_a_guess():
    play = Play({"output": {"type": "object"}, "limits": {"output_repairs": 0}}).accept()
    play.reply(text="[]")
    types = play.tell(told.OutputChecked(AT, 1, problems=(Finding(path="", message="no"),)))
    assert types == ["task.output_rejected", "task.failed"]
    assert play.error.startswith("output_invalid")


def test_an_empty_answer_is_no_answer():
    play = Play().accept()
    assert play.reply(text="  ") == ["task.model_replied", "task.output_rejected"]
    assert [type(d) for d in play.directives] == [CallModel]


@pytest.mark.parametrize(
    ("finish", "code"), [(FinishReason.LENGTH, "limit_exceeded"), (FinishReason.CONTENT_FILTER, "content_refused")]
)
def test_a_reply_that_was_cut_off_is_a_failure(finish: FinishReason, code: str):
    play = Play().accept()
    play.reply(text="half an ans", finish=finish)
    assert play.error.startswith(code)


@pytest.mark.parametrize(
    ("limits", "usage", "says"),
    [
        ({"turns": 1}, {}, "limits.turns"),
        ({"tokens": 12}, {}, "limits.tokens"),
        ({"cost_usd": "0.01"}, {"cost_usd": Decimal("0.02")}, "limits.cost_usd: 0.02"),
        ({"cost_usd": "0.01"}, {"cost_usd": None}, "price of a call is unknown"),
    ],
)
def test_limits_stop_a_task_before_the_next_call(limits: dict[str, Any], usage: dict[str, Any], says: str):
    play = Play({"limits": limits}).accept()
    play.reply(wish("look"), **usage)
    play.returns()
    assert play.state.status is TaskStatus.FAILED
    assert "limit_exceeded" in play.error
    assert says in play.error


def test_a_money_limit_that_is_not_reached_lets_the_task_go_on():
    play = Play({"limits": {"cost_usd": "0"}}).accept()
    play.reply(wish("look"))
    play.returns()
    assert [type(d) for d in play.directives] == [CallModel]


def test_tool_calls_beyond_the_limit_do_not_begin():
    play = Play({"limits": {"tool_calls": 1}}).accept()
    assert play.reply(wish("pay", "a"), wish("pay", "b", n=1)) == ["task.model_replied", "task.failed"]
    assert "limits.tool_calls" in play.error


def test_the_same_call_over_and_over_is_broken_off():
    play = Play().accept()
    for _ in range(3):
        play.reply(wish("look", q=1))
        play.returns()
    play.reply(wish("look", q=1))
    assert "loop: the model called 'look' 3 times over" in play.error


def test_effects_are_in_the_ledger_before_they_are_sent():
    play = Play().accept()
    types = play.reply(wish("pay", n=1))
    assert types == ["task.model_replied", "effect.intended", "effect.sent"]
    [invoke] = play.directives
    assert isinstance(invoke, InvokeTool)
    assert invoke.key is not None
    assert invoke.key.startswith("eff_")
    assert play.returns() == ["effect.confirmed", "task.tool_returned"]


def test_a_key_is_the_same_on_every_attempt_and_differs_by_occurrence():
    keys = []
    for attempt, task_id in ((1, TASK), (2, TASK[:-1] + "2")):
        play = Play(attempt=attempt, task_id=task_id).accept()
        play.reply(wish("save", "a", n=1), wish("save", "b", n=1), wish("save", "c", n=2))
        keys.append([d.key for d in play.directives])
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 3


def test_calling_again_after_a_failure_is_the_same_effect_again():
    play = Play().accept()
    play.reply(wish("save", n=1))
    [first] = play.directives
    assert play.breaks(Outcome.UNKNOWN) == ["effect.in_doubt", "task.tool_returned"]
    play.reply(wish("save", n=1))
    [second] = play.directives
    assert second.key == first.key
    assert second.call_id != first.call_id
    play.returns()
    play.reply(wish("save", n=1))
    assert play.directives[0].key != first.key


def second_attempt(first: Play, **changes: Any) -> Play:
    play = Play(attempt=2, task_id=TASK[:-1] + "2", **changes)
    play.tell(told.AcceptTask(AT, earlier=earlier_effects([first.events])))
    return play


def test_what_an_earlier_attempt_has_done_is_not_done_again():
    first = Play().accept()
    first.reply(wish("pay", "a", n=1), wish("save", "b"))
    first.returns("receipt 7")
    first.breaks()
    second = second_attempt(first)
    types = second.reply(wish("pay", "a", n=1), wish("save", "b"), wish("pay", "c", n=1))
    assert types[1:4] == ["effect.intended"] * 3
    assert types[4:] == ["effect.confirmed", "task.tool_returned", "effect.sent", "effect.sent"]
    assert [d.tool for d in second.directives] == ["save", "pay"]
    third = earlier_effects([first.events, second.events])
    assert [(effect.done, effect.output) for effect in third] == [(True, "receipt 7"), (False, None), (False, None)]


def test_what_an_earlier_attempt_may_have_done_is_in_doubt():
    first = Play(target_kind="tool", target="pay", input={}).accept()
    second = second_attempt(first, target_kind="tool", target="pay", input={})
    assert second.error.startswith("effect_in_doubt")
    assert second.error.endswith(f"say so with `paracle effects resolve {second.state.calls[0].key}`")
    again = Play(target_kind="tool", target="save", input={}).accept()
    assert [d.tool for d in second_attempt(again, target_kind="tool", target="save", input={}).directives] == ["save"]


@pytest.mark.parametrize("outcome", [None, Outcome.DONE])
def test_a_tool_task_takes_the_result_of_its_earlier_attempt(outcome: Outcome | None):
    first = Play(target_kind="tool", target="pay", input={}).accept()
    if outcome is None:
        first.returns("receipt")
    else:
        first.breaks(outcome)
    second = second_attempt(first, target_kind="tool", target="pay", input={})
    assert (second.state.status, second.state.output) == (first.state.status, first.state.output)
    assert [type(d) for d in second.directives] == [ReportResult]


@pytest.mark.parametrize(
    ("name", "outcome", "types"),
    [
        ("look", Outcome.UNKNOWN, ["task.tool_returned"]),
        ("pay", Outcome.NOT_DONE, ["effect.failed", "task.tool_returned"]),
        ("pay", Outcome.DONE, ["effect.confirmed", "task.tool_returned"]),
        ("pay", Outcome.UNKNOWN, ["effect.in_doubt", "task.tool_returned", "task.failed"]),
    ],
)
def test_a_failed_tool_is_told_to_the_model_unless_its_effect_is_in_doubt(
    name: str, outcome: Outcome, types: list[str]
):
    play = Play().accept()
    play.reply(wish(name))
    assert play.breaks(outcome) == types


def test_resuming_asks_for_what_was_under_way_and_nothing_else():
    play = Play().accept()
    before = play.directives
    assert play.tell(told.Resume(AT)) == []
    assert play.directives == before
    play.reply(wish("look", "a"), wish("save", "b"))
    [_, save] = play.directives
    play.returns()
    play.tell(told.Resume(AT))
    assert play.directives == (save,)


def test_resuming_never_repeats_an_at_most_once_call():
    play = Play().accept()
    play.reply(wish("pay"))
    assert play.tell(told.Resume(AT)) == ["effect.in_doubt", "task.failed"]
    assert play.error.startswith("effect_in_doubt")
    assert [type(d) for d in play.directives] == [ReportResult]


def test_model_failures_are_seen_and_retried_within_bounds():
    play = Play().accept()
    error = ErrorInfo(code="provider_unavailable", message="503", retryable=True, retry_after_s=2.5)
    seen = set()
    for n in range(MODEL_RETRIES):
        seen.add(play.state.model_call_id)
        assert play.tell(told.ModelFailed(AT, play.state.model_call_id, error)) == ["task.model_call_failed"], n
        [call] = play.directives
        assert call.not_before >= AT + timedelta(seconds=2.5)
    assert len(seen) == MODEL_RETRIES
    assert play.tell(told.ModelFailed(AT, play.state.model_call_id, error)) == ["task.model_call_failed", "task.failed"]
    assert play.error.startswith("provider_unavailable")


def test_a_model_call_that_nobody_answered_is_asked_again_under_its_id():
    """The gateway may have made it, and knows it by its id; what it said itself asks for another one."""
    play = Play().accept()
    first = play.state.model_call_id
    silent = ErrorInfo(code="unavailable", message="silent", retryable=True)
    for n in range(MODEL_RETRIES - 1):
        assert play.tell(told.ModelFailed(AT + timedelta(seconds=30 * n), first, silent)) == ["task.model_call_failed"]
        [call] = play.directives
        assert (call.call_id, call.not_before > AT + timedelta(seconds=30 * n)) == (first, True)
        assert prompt.model_request(play.state).attempts_before == 1_000 * (n + 1), "deltas replace those of before"
    said = ErrorInfo(code="provider_unavailable", message="503", retryable=True)
    play.tell(told.ModelFailed(AT, first, said))
    second = play.state.model_call_id
    assert second != first
    assert play.tell(told.ModelFailed(AT, second, silent)) == ["task.model_call_failed", "task.failed"]


def test_model_failures_that_cannot_be_mended_end_the_task():
    play = Play().accept()
    error = ErrorInfo(code="provider_failed", message="400")
    assert play.tell(told.ModelFailed(AT, "call_other", error)) == []
    play.tell(told.ModelFailed(AT, play.state.model_call_id, error))
    assert play.error.startswith("provider_failed")


def test_no_retry_is_planned_beyond_the_deadline():
    play = Play(deadline_at=AT + timedelta(seconds=1)).accept()
    error = ErrorInfo(code="provider_unavailable", message="503", retryable=True, retry_after_s=2.5)
    play.tell(told.ModelFailed(AT, play.state.model_call_id, error))
    assert play.state.status is TaskStatus.FAILED


@pytest.mark.parametrize(
    ("changes", "seconds", "code"),
    [({}, 600, "limit_exceeded"), ({"deadline_at": AT + timedelta(seconds=5)}, 5, "deadline_exceeded")],
)
def test_time_runs_out(changes: dict[str, Any], seconds: int, code: str):
    play = Play(**changes).accept()
    assert play.state.expires_at == AT + timedelta(seconds=seconds)
    assert play.tell(told.DeadlinePassed(AT)) == []
    assert play.tell(told.DeadlinePassed(AT + timedelta(seconds=seconds))) == ["task.timed_out"]
    assert play.error.startswith(code)


def test_a_model_that_did_not_answer_is_told_when_time_runs_out():
    play = Play().accept()
    error = ErrorInfo(code="provider_unavailable", message="no connection", retryable=True)
    play.tell(told.ModelFailed(AT, play.state.model_call_id, error))
    play.tell(told.DeadlinePassed(AT + timedelta(seconds=600)))
    assert play.error.endswith("took longer than 600 s; its model did not answer: no connection")


def test_a_task_that_comes_too_late_does_not_begin():
    play = Play(deadline_at=AT).accept()
    assert play.state.status is TaskStatus.TIMED_OUT


def test_time_that_runs_out_during_an_at_most_once_call_leaves_it_in_doubt():
    play = Play().accept()
    play.reply(wish("pay"))
    assert play.tell(told.DeadlinePassed(AT + timedelta(hours=1))) == ["effect.in_doubt", "task.failed"]


def test_cancel_stops_at_any_moment():
    early = Play()
    assert early.tell(told.CancelRequested(AT, "enough")) == ["task.cancelled"]
    assert early.tell(told.AcceptTask(AT)) == []
    assert early.directives[0].result.status is TaskStatus.CANCELLED
    late = Play().accept()
    late.reply(wish("pay"), wish("look", "b"))
    assert late.tell(told.CancelRequested(AT, "enough")) == ["effect.in_doubt", "task.cancelled"]
    assert late.error == "cancelled: enough"
    assert late.tell(told.ToolSucceeded(AT, late.state.calls[0].id, "x", 0.1)) == []


def test_a_tool_task_is_one_call():
    play = Play(target_kind="tool", target="look", input={"q": 1}).accept()
    [invoke] = play.directives
    assert (invoke.tool, invoke.arguments, invoke.key) == ("look", {"q": 1}, None)
    assert play.returns([1]) == ["task.tool_returned", "task.completed"]
    assert play.state.output == [1]
    assert play.state.expires_at is None


def test_a_tool_task_fails_with_the_error_of_its_tool():
    play = Play(target_kind="tool", target="save", input={}).accept()
    assert play.breaks() == ["effect.failed", "task.tool_returned", "task.failed"]
    assert play.error == "tool_unavailable: busy"


def test_input_that_does_not_fit_fails_before_anything_is_called():
    play = Play(target_kind="tool", target="pay", input=[1]).accept()
    assert "named arguments" in play.error
    other = Play()
    other.tell(told.AcceptTask(AT, (Finding(path="input.text", message="is no number"),)))
    assert other.error.startswith("input_schema_mismatch")


def test_instructions_that_cannot_be_rendered_fail_the_task():
    play = Play({"instructions": "Greet\n{{ input.absent.deeper }}"}, input={"name": "Ada Lovelace"}).accept()
    why = "`input.absent` is undefined in line 2 (write `| default(…)` if it may be absent)"
    assert play.error == f"expression_failed: instructions of agent 'helper' cannot be rendered: {why}"
    odd = Play({"instructions": "{{ input.name + 1 }}"}, input={"name": "Ada Lovelace"}).accept()
    assert odd.error.startswith("expression_failed")
    assert "Ada" not in odd.error, "what was asked stands in no error"
    endless = Play({"instructions": "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"})
    assert "takes more than 200,000 instructions" in endless.accept().error


def test_what_comes_twice_or_too_late_changes_nothing():
    play = Play().accept()
    assert play.tell(told.AcceptTask(AT)) == []
    late = told.ReplyCame(AT, play.state.model_call_id, completion(wish("look")))
    play.tell(late)
    assert play.tell(late) == []
    call = play.state.open_calls[0].id
    play.returns()
    assert play.tell(told.ToolSucceeded(AT, call, "again", 0.1)) == []
    assert play.tell(told.ToolFailed(AT, call, ErrorInfo(code="x", message="y"), 0.1)) == []
    assert evolve(play.state, ev.ToolReturned(call_id=call, tool="look")) == play.state


def test_a_plan_without_the_target_is_a_clear_error():
    with pytest.raises(NotFound, match="has no agent 'ghost'; it has helper"):
        Job.of(task(target="ghost"), plan())


def test_a_tool_asks_no_model():
    with pytest.raises(TypeError, match="asks no model"):
        prompt.model_request(Play(target_kind="tool", target="look", input={}).accept().state)


def test_limits_of_agents_do_not_bind_tools():
    state = Play(target_kind="tool", target="look", input={}).accept().state
    assert next_turn_refused(state) is None
    assert tool_calls_refused(state) is None


def test_no_instructions_no_system_message():
    assert prompt.model_request(Play({"instructions": ""}).accept().state).messages[0].role is Role.USER


def test_long_tool_output_is_cut_and_says_so():
    part = prompt.tool_result("c", "x" * (prompt.TOOL_TEXT_LIMIT + 1), None)
    assert part.content.endswith("of 100,001 characters are shown]")


def test_events_go_there_and_back():
    play = Play().accept()
    play.reply(wish("pay", n=None, m={"deep": None}))
    play.breaks(Outcome.UNKNOWN)
    assert [ev.load_event(ev.dump_event(event)) for event in play.events] == play.events
    with pytest.raises(MalformedMessage):
        ev.load_event(b'{"type": "task.invented"}')


def test_records_are_numbered_and_correlated():
    record = ev.event_record(TASK, RUN, ev.TaskCompleted(output=1), seq=4, at=AT, cause="msg")
    assert (record.message_id("acme"), record.type, record.correlation_id) == (f"{TASK}.4", "task.completed", RUN)
    assert record.data == {"output": 1}


def test_what_is_kept_of_an_event_is_published_without_its_type():
    assert ev.untyped(ev.dump_event(ev.TaskCompleted(output={"a": [1, "b,c"]}))) == b'{"output":{"a":[1,"b,c"]}}'
    assert ev.untyped(ev.dump_event(ev.TaskCompleted())) == b"{}"


def test_wishes_of_a_task_that_has_not_begun_are_none():
    assert wishes(Play().state) == ()


def test_guards_go_with_every_model_call_of_the_agent():
    request = prompt.model_request(Play({"guards": [{"name": "pii", "type": "pii"}]}).accept().state)
    assert [guard.name for guard in request.guards] == ["pii"]
    assert request.guarded("input")
    assert not prompt.model_request(Play().accept().state).guarded("output")
