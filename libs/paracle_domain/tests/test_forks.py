"""Forks of random runs: whatever is kept, nothing that a person guarded is done without asking a person again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from run_driver import RUN_ID, Driver, drive

from paracle_domain.run.commands import StepStatus
from paracle_domain.run.directives import DispatchTask
from paracle_domain.run.forking import kept_steps

KINDS: Mapping[str, dict[str, Any]] = {
    "work": {"tool": "t"},
    "ask": {"approval": {"ask": "Go on?"}},
    "ask_if_much": {"approval": {"ask": "Go on?"}, "when": "{{ input.n > 20 }}"},
    "pause": {"wait": {"for_s": 0}},
    "tell": {"emit": {"event": "told"}},
    "never": {"tool": "t", "when": "{{ false }}"},
}


@st.composite
def workflows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Up to nine steps, each of which needs some of those before it."""
    steps: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 9))):
        needs = draw(st.lists(st.sampled_from(range(number)), unique=True, max_size=3)) if number else []
        kind = draw(st.sampled_from(list(KINDS)))
        steps.append({"id": f"s{number}", "needs": [f"s{need}" for need in needs], **KINDS[kind]})
    return steps


def play(run: Driver, fails: set[str], *, decide: bool) -> None:
    """Let everything end that can: work completes unless it `fails`; people say yes, or say nothing."""
    seen: set[str] = set()
    while True:
        tasks = [item.task.step for item in run.directives if isinstance(item, DispatchTask)]
        asked = [name for name, step in run.state.steps.items() if step.status is StepStatus.WAITING] if decide else []
        left = [name for name in (*tasks, *asked) if name not in seen]
        if not left or run.state.terminal:
            return
        seen.add(left[0])
        if left[0] in asked:
            run.decide(left[0])
        elif left[0] in fails:
            run.fail(left[0])
        elif run.status(left[0]) is StepStatus.RUNNING:
            run.finish(left[0], output=left[0])


def guards(run: Driver, name: str) -> Iterator[str]:
    """The approvals before step `name` with no work in between that was done."""
    for needed in run.machine.graph.needs[name]:
        spec = run.machine.spec(needed)
        if spec.approval is not None:
            yield needed
        elif spec.tool is None or run.status(needed) is StepStatus.SKIPPED:
            yield from guards(run, needed)


@given(
    workflows(),
    st.sets(st.integers(0, 8), max_size=2),
    st.integers(0, 8),
    st.sampled_from([(50, 50), (10, 50), (50, 10)]),
)
def test_nothing_is_done_anew_without_asking_anew(
    steps: list[dict[str, Any]], failing: set[int], from_number: int, amounts: tuple[int, int]
) -> None:
    old = drive(*steps)
    old.begin({"n": amounts[0]})
    play(old, {f"s{number}" for number in failing}, decide=True)
    new = Driver(old.machine)
    value: JsonValue = {"n": amounts[1]}
    before, machine = old.machine.plan, new.machine
    kept = kept_steps(old.state, before, machine.plan, machine.graph, f"s{from_number % len(steps)}", value)
    new.begin(value, forked_from=RUN_ID, kept=kept)
    play(new, set(), decide=False)
    for item in new.directives:
        if isinstance(item, DispatchTask):
            asked = {name: new.status(name) for name in guards(new, item.task.step)}
            assert set(asked.values()) <= {StepStatus.SKIPPED}, (item.task.step, asked)


@given(workflows(), st.sets(st.integers(0, 8), max_size=2), st.integers(0, 8))
def test_a_fork_repeats_no_work_but_what_it_was_asked_to(
    steps: list[dict[str, Any]], failing: set[int], from_number: int
) -> None:
    old = drive(*steps)
    old.begin({"n": 50})
    play(old, {f"s{number}" for number in failing}, decide=True)
    first = f"s{from_number % len(steps)}"
    new = Driver(old.machine)
    kept = kept_steps(old.state, old.machine.plan, new.machine.plan, new.machine.graph, first, {"n": 50})
    new.begin({"n": 50}, forked_from=RUN_ID, kept=kept)
    play(new, set(), decide=True)
    assert new.state.terminal
    anew = {item.task.step for item in new.directives if isinstance(item, DispatchTask)}
    below = _below(old, first)
    done = {name for name, step in old.state.steps.items() if step.status is StepStatus.COMPLETED}
    assert not (anew & done) - below


def _below(run: Driver, name: str) -> set[str]:
    """The step, and all that needs it, or needs a step that had not ended well."""
    found = {name}
    for step in run.machine.graph.order:
        ended = run.status(step) in {StepStatus.COMPLETED, StepStatus.SKIPPED}
        if not ended or found & set(run.machine.graph.needs[step]):
            found.add(step)
    return found
