"""The ledger of effects as it is entered, resolved and inherited."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import derive_id, new_id
from paracle_domain.plan import Plan, PlannedTool, PlannedWorkflow
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task.effects import EffectState, EffectView, Resolution
from paracle_domain.task.inputs import Outcome
from paracle_domain.task.ledger import Entry, believing, entries, inherited
from paracle_domain.task.machine import decide
from paracle_domain.task.messages import Task
from paracle_domain.task.state import Job, TaskState, evolve
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.workflow.spec import WorkflowSpec

AT = datetime(2026, 1, 1, tzinfo=UTC)
RUN, FORK = new_id("run"), new_id("run")
SPEC = {"description": "pays", "backend": {"type": "builtin", "function": "noop"}, "effect": "at_most_once"}
PAY = PlannedTool(name="pay", revision=3, spec=ToolSpec.model_validate(SPEC))
WORKFLOW = WorkflowSpec.model_validate({"steps": [{"id": "s", "tool": "pay"}]})
PLAN = Plan.pin(PlannedWorkflow(name="w", revision=1, spec=WORKFLOW), {}, {"pay": PAY})
BROKE = ErrorInfo(code="tool_failed", message="it broke")


def task(run_id: str = RUN, **changes: Any) -> Task:
    fields = {"task_id": derive_id("task", run_id, "s", 1), "run_id": run_id, "step": "s", "attempt": 1}
    fields |= {"plan": PLAN.digest, "target_kind": "tool", "target": "pay", "input": {"n": 1}, "effect_scope": "s"}
    return Task.model_validate({**fields, **changes})


def play(job: Task, *messages: Any) -> tuple[TaskState, list[Entry]]:
    """How `job` stands after it was accepted and told `messages`, and what it entered on the way."""
    state, seq, found = TaskState(Job.of(job, PLAN)), 1, list[Entry]()
    for message in messages:
        events = decide(state, message(state) if callable(message) else message).events
        for event in events:
            state = evolve(state, event)
        found += entries(state, events, seq, AT)
        seq += len(events)
    return state, found


def failed(outcome: Outcome) -> Any:
    return lambda state: told.ToolFailed(AT, state.open_calls[0].id, BROKE, 1.0, outcome)


def succeeded(state: TaskState) -> told.ToolSucceeded:
    return told.ToolSucceeded(AT, state.open_calls[0].id, {"id": 7}, 1.0)


@pytest.mark.parametrize(
    ("end", "stands", "reason"),
    [
        (succeeded, EffectState.CONFIRMED, None),
        (failed(Outcome.NOT_DONE), EffectState.FAILED, "it broke"),
        (failed(Outcome.UNKNOWN), EffectState.IN_DOUBT, "it broke"),
    ],
)
def test_each_decision_enters_how_it_leaves_an_effect(end: Any, stands: EffectState, reason: str | None):
    state, found = play(task(), told.AcceptTask(AT), end)
    assert [(one.view.state, one.seq, one.sent) for one in found] == [(EffectState.SENT, 3, True), (stands, 4, True)]
    assert found[1].view.reason == reason
    view = found[1].view
    assert (view.tool, view.revision, view.scope, view.key) == ("pay", 3, "s", state.calls[0].key)


def test_what_is_taken_over_was_not_sent():
    _, [first, _] = play(task(), told.AcceptTask(AT), succeeded)
    known = ev.EarlierEffect(key=first.view.key, done=True, output={"id": 7})
    _, [taken] = play(task(attempt=2), told.AcceptTask(AT, earlier=(known,)))
    assert (taken.view.state, taken.sent, taken.view.attempt) == (EffectState.CONFIRMED, False, 2)


def test_what_is_intended_only_is_entered_so():
    state, _ = play(task(), told.AcceptTask(AT))
    intended = decide(TaskState(Job.of(task(), PLAN)), told.AcceptTask(AT)).events[:2]
    [one] = entries(state, intended, 1, AT)
    assert (one.view.state, one.seq) == (EffectState.INTENDED, 2)


def resolution(outcome: str) -> Resolution:
    parts = {"outcome": outcome, "output": {"id": 7}, "reason": "looked", "principal": "ann", "at": AT}
    return Resolution.model_validate(parts)


def test_what_was_found_out_is_believed():
    keys = [derive_id("eff", RUN, n) for n in range(4)]
    done = ev.EarlierEffect(key=keys[3], done=True, output=1)
    earlier = (*(ev.EarlierEffect(key=key, done=False) for key in keys[:3]), done)
    found = {keys[0]: resolution("done"), keys[1]: resolution("not_done"), keys[3]: resolution("not_done")}
    assert believing(earlier, found) == (
        ev.EarlierEffect(key=keys[0], done=True, output={"id": 7}),
        ev.EarlierEffect(key=keys[2], done=False),
        done,
    )


def doubtful(**changes: Any) -> EffectView:
    _, [_, one] = play(task(), told.AcceptTask(AT), failed(Outcome.UNKNOWN))
    return one.view.model_copy(update=changes)


def test_a_fork_inherits_doubts_and_what_was_found_out_under_its_own_keys():
    _, [mine] = play(task(FORK), told.AcceptTask(AT))
    fork = task(FORK, forked_from=RUN)
    [doubt] = inherited(fork, [doubtful()])
    assert (doubt.key, doubt.done) == (mine.view.key, False)
    [known] = inherited(fork, [doubtful(resolution=resolution("done"))])
    assert (known.key, known.done, known.output) == (mine.view.key, True, {"id": 7})
    assert inherited(fork, [doubtful(resolution=resolution("not_done"))]) == ()


def test_effects_of_other_tasks_of_the_step_are_not_inherited():
    fork = task(FORK, forked_from=RUN)
    assert inherited(fork, [doubtful(scope="s>ask_boss.x.0")]) == ()
    assert inherited(fork, [doubtful(arguments_digest="of something else")]) == ()


@given(st.lists(st.sampled_from([succeeded, *map(failed, Outcome)]), max_size=2), st.booleans())
def test_it_makes_no_difference_whether_pages_are_entered_one_by_one_or_after_a_restart(ends: list[Any], early: bool):
    known = (ev.EarlierEffect(key=derive_id("eff", RUN, "other"), done=early),)
    state, pages = TaskState(Job.of(task(), PLAN)), list[tuple[int, list[ev.TaskEvent], TaskState]]()
    seq = 1
    for message in (told.AcceptTask(AT, earlier=known), *ends):
        if callable(message) and not state.open_calls:
            break
        events = list(decide(state, message(state) if callable(message) else message).events)
        for event in events:
            state = evolve(state, event)
        pages.append((seq, events, state))
        seq += len(events)
    stepwise = {one.view.key: one for first, events, after in pages for one in entries(after, events, first, AT)}
    whole = entries(state, [event for _, events, _ in pages for event in events], 1, AT)
    assert stepwise == {one.view.key: one for one in whole}
