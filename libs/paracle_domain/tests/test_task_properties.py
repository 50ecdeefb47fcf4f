"""What holds for the task machine whatever happens, in whatever order and however often."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from paracle_domain.agent.spec import AgentSpec
from paracle_domain.errors import ErrorInfo, Finding
from paracle_domain.inference.chat import ToolCallPart
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import fold
from paracle_domain.plan import PlannedAgent
from paracle_domain.run.commands import ApprovalStatus, ApprovalView
from paracle_domain.run.deciding import asked
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task import prompt
from paracle_domain.task.directives import AskAgent, AskForRaise, AskPeople, CallModel, InvokeTool, ProbeEffect
from paracle_domain.task.machine import decide
from paracle_domain.task.messages import TaskResult, TaskStatus
from paracle_domain.task.state import Job, TaskState, evolve
from paracle_domain.task.story import wishes

from .test_run_deciding import REQUEST
from .test_task_delegation import tree
from .test_task_machine import AT, RUN, TASK, completion, task

GOLDEN = Path(__file__).parent / "golden" / "v1"
SHAPES: list[dict[str, Any]] = [
    {},
    {"output": {"type": "object"}},
    {"limits": {"turns": 3, "tool_calls": 4}},
    {"limits": {"turns": 9, "tool_calls": 9, "tokens": 300, "cost_usd": 1}},
    {"compaction": {"above_tokens": 100, "keep_last": 1}},
    {"tools": ["look", "pay", "wire"]},
    {"approvals": {"pay": {}, "look": {"when": "arguments.n", "on_rejection": "fail"}}},
]
TARGETS: list[dict[str, Any]] = [{}, *({"target_kind": "tool", "target": t} for t in ("look", "save", "pay", "wire"))]

calls = st.builds(
    ToolCallPart,
    id=st.sampled_from(["a", "b"]),
    name=st.sampled_from(["look", "save", "pay", "wire", "ghost", "ask_writer", "ask_helper", "hand_to_writer"]),
    arguments=st.sampled_from([{}, {"n": 1}, {"n": None}]),
    invalid=st.sampled_from([None, None, "[1"]),
)
replies = st.lists(calls, max_size=3).flatmap(
    lambda c: st.sampled_from(["", "{}", "hello"]).map(lambda text: completion(*c, text=text, cost_usd="0.2"))
)
failure = st.builds(
    ErrorInfo,
    code=st.sampled_from(["provider_failed", "tool_unavailable"]),
    message=st.just("no"),
    retryable=st.booleans(),
)
findings = st.sampled_from([(), (Finding(path="a", message="b"),)])
seconds = st.integers(min_value=0, max_value=900)
broke = ErrorInfo(
    code="budget_exceeded",
    message="no money",
    details={
        "budget": "b",
        "subject": "s",
        "period": "total",
        "on_hit": "ask",
        "spent_usd": "2",
        "limit_usd": "1",
        "question": "q",
    },
)
KINDS = "accept reply reply model_failed ok failed probed probed delegate people checked cancel deadline resume"
kinds = st.sampled_from(KINDS.split())


@st.composite
def delegate_results(draw: st.DrawFn, state: TaskState, call_id: str) -> TaskResult:
    """What a delegate may have come to: within its allowance, but for its last model call."""
    call = state.call(call_id)
    allowed = call.delegated.allowance if call is not None and call.delegated is not None else None
    turns = draw(st.integers(0, allowed.turns if allowed else 3))
    status = draw(st.sampled_from([TaskStatus.COMPLETED, TaskStatus.FAILED]))
    code = draw(st.sampled_from(["tool_failed", "loop", "effect_in_doubt"]))
    return TaskResult(
        task_id=state.job.task.task_id,
        run_id=state.job.task.run_id,
        step="s",
        attempt=1,
        status=status,
        output=draw(st.sampled_from(["x", {"y": None}])) if status is TaskStatus.COMPLETED else None,
        error=None if status is TaskStatus.COMPLETED else ErrorInfo(code=code, message="no"),
        usage=Usage(
            model_calls=turns,
            tool_calls=draw(st.integers(0, allowed.tool_calls if allowed else 3)),
            input_tokens=min(15 * turns, allowed.tokens + 14) if allowed else 0,
            cost_usd=Decimal("0.2") * turns if allowed and allowed.cost_usd is None else Decimal(0),
        ),
        waited_s=draw(st.sampled_from([0.0, 7.0])),
    )


@st.composite
def views(draw: st.DrawFn, state: TaskState, call_id: str) -> ApprovalView:
    """How the approval of a held call may stand; of any other call, one that nobody asked for."""
    asks = [wish.request for wish in wishes(state) if isinstance(wish, AskPeople)]
    mine = [ask for ask in asks if state.call(call_id) and question_id(state, call_id) == ask.approval_id]
    mine += [wish.request for wish in wishes(state) if isinstance(wish, AskForRaise)]
    view = asked(mine[0] if mine else REQUEST, "w", "ann")
    digest = draw(st.sampled_from([view.digest, view.digest, "sha256:other"]))
    return view.model_copy(update={"status": draw(st.sampled_from(list(ApprovalStatus))), "digest": digest})


@st.composite
def decisions(draw: st.DrawFn, state: TaskState, call_id: str, at: datetime) -> told.TaskInput:
    """How it came out what people were asked, about the call or about a budget."""
    view = draw(views(state, call_id))
    if state.held is None:
        return told.CallDecided(at, call_id, view)
    lifted = draw(st.integers(0, 2)) == 0
    return told.BudgetLifted(at, view.approval_id) if lifted else told.RaiseDecided(at, view)


def question_id(state: TaskState, call_id: str) -> str | None:
    call = state.call(call_id)
    return call.held.approval_id if call is not None and call.held is not None else None


@st.composite
def inputs(draw: st.DrawFn, state: TaskState) -> told.TaskInput:
    """Something that a task in `state` may be told: fitting more often than not."""
    at = AT + timedelta(seconds=draw(seconds))
    call = draw(st.sampled_from([c.id for c in state.calls] or ["call_none"]))
    match draw(kinds):
        case "accept":
            return told.AcceptTask(at, draw(findings))
        case "reply":
            return told.ReplyCame(at, state.model_call_id, draw(replies), draw(st.sampled_from([{}, {0: "wrong"}])))
        case "model_failed":
            return told.ModelFailed(at, state.model_call_id, draw(st.one_of(failure, st.just(broke))))
        case "ok":
            results: list[JsonValue] = [None, "x", {"y": None}]
            return told.ToolSucceeded(at, call, draw(st.sampled_from(results)), 0.1)
        case "failed":
            return told.ToolFailed(at, call, draw(failure), 0.1, draw(st.sampled_from(list(told.Outcome))))
        case "probed":
            doubts = [(c.id, c.doubt.tried) for c in state.calls if c.doubt is not None]
            probed, tried = draw(st.sampled_from(doubts or [(call, 0)]))
            return told.Probed(at, probed, tried, draw(st.sampled_from(list(told.Outcome))), 0.1)
        case "delegate":
            return told.DelegateEnded(at, call, draw(delegate_results(state, call)), 0.1)
        case "people":
            return draw(decisions(state, call, at))
        case "checked":
            return told.OutputChecked(at, state.turn, {}, draw(findings))
        case "cancel":
            return told.CancelRequested(at, "enough")
        case "deadline":
            return told.DeadlinePassed(at)
        case _:
            return told.Resume(at)


@given(st.data(), st.sampled_from(SHAPES), st.sampled_from(TARGETS))
def test_replay_equals_live_and_terminal_states_absorb(data: st.DataObject, agent: Any, target: Any) -> None:
    start = TaskState(Job.of(task(**target), tree(**agent)))
    state = start
    history: list[ev.TaskEvent] = []
    keys: list[str] = []
    for number in range(1 + data.draw(st.integers(0, 25))):
        message = data.draw(inputs(state)) if number else told.AcceptTask(AT)
        decision = decide(state, message)
        if state.status.terminal:
            assert decision.events == ()
        state = fold(evolve, state, decision.events)
        assert decision.state == state
        history += decision.events
        if not isinstance(message, told.Resume):
            keys += [wish.key for wish in decision.directives if isinstance(wish, InvokeTool) and wish.key]
        if state.status.terminal:
            begins = [w for w in decision.directives if isinstance(w, CallModel | InvokeTool | ProbeEffect | AskAgent)]
            assert begins == [], "nothing begins once the task has ended"
        assert {repr(w) for w in decision.directives} <= {repr(w) for w in wishes(state)}
        again = decide(state, message)
        if not isinstance(message, told.ReplyCame | told.ModelFailed | told.CancelRequested):
            assert again.events == ()
    kept = [ev.dump_event(event) for event in history]
    assert fold(evolve, start, [ev.load_event(body) for body in kept]) == state
    records = [ev.event_record(TASK, RUN, event, seq=1, at=AT, cause="x") for event in history]
    assert [json.loads(ev.untyped(body)) for body in kept] == [record.data for record in records]
    if not state.status.terminal:
        assert wishes(state), "a task that is not done has something to do"
    _check_limits(state)
    raises = Counter(e.approval_id for e in history if isinstance(e, ev.BudgetReleased))
    assert all(number == 1 for number in raises.values()), "nobody is asked twice about one raise"
    released = {e.call_id for e in history if isinstance(e, ev.CallReleased) and e.verdict is ApprovalStatus.APPROVED}
    held = {e.call_id for e in history if isinstance(e, ev.CallHeld)}
    assert {e.call_id for e in history if isinstance(e, ev.EffectSent)} & held <= released, "nothing unapproved is sent"
    _check_effects(state, history, keys)


def _check_effects(state: TaskState, history: list[ev.TaskEvent], keys: list[str]) -> None:
    """What is in doubt is sent again only if a probe said, once it had settled, that it was not done."""
    doubtful = {e.key for e in history if isinstance(e, ev.EffectInDoubt) and state.effect(e.tool) == "at_most_once"}
    probed = [e for e in history if isinstance(e, ev.EffectProbed) and e.retry_at is None]
    undone = Counter(e.key for e in probed if e.outcome == "not_done")
    sendings = Counter(e.key for e in history if isinstance(e, ev.EffectSent))
    assert all(keys.count(key) == sendings[key] <= 1 + undone[key] for key in doubtful)
    if state.status.terminal:
        settled = {e.key for e in history if isinstance(e, ev.EffectConfirmed | ev.EffectFailed)}
        once = {e.key for e in history if isinstance(e, ev.EffectIntended) and e.effect == "at_most_once"}
        sent = {e.key for e in history if isinstance(e, ev.EffectSent)}
        assert once & sent <= settled | doubtful, "what was sent is known to be done or not, or it is in doubt"
        assert not [call for call in state.calls if call.doubt], "nothing is probed once the task has ended"


def _check_limits(state: TaskState) -> None:
    """Nothing was used beyond a limit but by the last model call: turns and tool calls not even by that."""
    limits, spent = state.job.limits, state.spent
    if limits is None:
        return
    assert state.turns <= limits.turns
    made = [call for call in state.calls if call.key or call.delegated]
    assert len(made) + state.delegated.tool_calls <= limits.tool_calls
    assert spent.total_tokens < limits.tokens + 15 * (1 + len(made))
    shares = [call.delegated.allowance for call in state.calls if call.delegated]
    assert all(share.turns < limits.turns and share.tokens <= limits.tokens for share in shares)


@given(st.text(st.sampled_from("a }%#\r\n")))
def test_instructions_without_a_template_are_what_rendering_makes_of_them(text: str) -> None:
    plain, rendered = (
        PlannedAgent(name="a", revision=1, spec=AgentSpec.model_validate({"instructions": said}))
        for said in (text, "{{ input }}" + text)
    )
    assert prompt.instructions(plain, "") == prompt.instructions(rendered, "")


def test_golden_streams_load_and_fold() -> None:
    found = sorted(GOLDEN.glob("task_*.json"))
    assert found
    for path in found:
        golden = json.loads(path.read_text())
        events = [ev.load_event(json.dumps(event)) for event in golden["events"]]
        accepted = events[0]
        assert isinstance(accepted, ev.TaskAccepted)
        start = TaskState(Job.of(accepted.task, tree(**golden["agent"])))
        state = fold(evolve, start, events)
        assert state.status == TaskStatus(golden["status"]), path.name
        assert json.loads(json.dumps(state.output)) == golden["output"], path.name
        assert state.spent == Usage.model_validate(golden["usage"]), path.name
        assert isinstance(accepted.expires_at, datetime)
