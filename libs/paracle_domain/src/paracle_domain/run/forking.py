"""Forks: a run that begins with what another one had finished.

Decisions of people are not taken over by work that is yet to be done: they were made upon what the old run was about to
do, and the new one does it again, or does something else. So an approval is asked again unless all that it guards is
kept: whatever follows it, up to the first work on each way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from paracle_domain.errors import NotFound
from paracle_domain.names import suggest
from paracle_domain.plan import Plan
from paracle_domain.run.commands import StepStatus
from paracle_domain.run.events import StepKept
from paracle_domain.run.state import RunState, StepState
from paracle_domain.workflow.graph import Graph
from paracle_domain.workflow.spec import StepSpec, SwitchSpec


def kept_steps(
    old: RunState, before: Plan, plan: Plan, graph: Graph, from_step: str, value: JsonValue
) -> tuple[StepKept, ...]:
    """What a fork of `old` keeps, on the input `value` and by `plan`, which has the `graph`. `before` is the old plan.

    Those are the steps that completed or were skipped, but for `from_step`, for what was undone or is going to be, for
    approvals that are to be asked again, for switches that chose what `plan` does not know, and for whatever needs a
    step that is not kept.

    Raises
    ------
    NotFound
        If there is no step `from_step`.
    """
    if from_step not in graph.index:
        raise NotFound(f"there is no step {from_step!r}{suggest(from_step, graph.index)}", path="from_step")
    specs = {step.id: step for step in plan.workflow.spec.steps}
    kept = _kept(old, before, graph, specs, from_step)
    same = plan.digest == before.digest and value == old.started_event.input
    again = frozenset(_to_ask_again(graph, specs, kept, same=same))
    return tuple(event for name, event in kept.items() if name not in again)  # work that is done stays done


def _kept(
    old: RunState, before: Plan, graph: Graph, specs: Mapping[str, StepSpec], from_step: str
) -> dict[str, StepKept]:
    """What need not be done again, by name."""
    kept: dict[str, StepKept] = {}
    doomed = _doomed(old, before)
    for name in graph.order:
        step = old.steps.get(name) if name in old.graph.index else None
        if step is None or name == from_step or not all(needed in kept for needed in graph.needs[name]):
            continue
        event = _event(name, step, doomed=name in doomed and not step.kept)
        if event is not None and _is_known(event, specs[name].switch):
            kept[name] = event
    return kept


def _doomed(old: RunState, before: Plan) -> frozenset[str]:
    """Steps whose work a run that stops is yet to undo, where they completed in it."""
    if old.ending is None or old.terminal:
        return frozenset()
    return frozenset(step.id for step in before.workflow.spec.steps if step.compensate is not None)


def _event(name: str, step: StepState, *, doomed: bool) -> StepKept | None:
    match step.status:
        case StepStatus.COMPLETED if step.compensation is None and not doomed:
            return StepKept(step=name, status="completed", output=step.output, degraded=step.degraded)
        case StepStatus.SKIPPED:
            return StepKept(step=name, status="skipped")
        case _:
            return None


def _is_known(kept: StepKept, switch: SwitchSpec | None) -> bool:
    """Whether a switch, if the step is one now, has the case that was chosen: else it would take its default."""
    if switch is None or kept.status == "skipped":
        return True
    choice = kept.output.get("case", "") if isinstance(kept.output, dict) else ""
    return choice is None or any(case.name == choice for case in switch.cases)


def _to_ask_again(
    graph: Graph, specs: Mapping[str, StepSpec], kept: Mapping[str, StepKept], *, same: bool
) -> Iterator[str]:
    """Approvals that guard what is yet to be done, and the steps between. If all is the same, no new one is wanted."""
    for name in kept:
        if specs[name].approval is None or (same and kept[name].status == "skipped"):
            continue
        between, guarded = _guarded_by(name, graph, specs, kept)
        if not all(step in kept for step in guarded | between):
            yield name
            yield from between


def _guarded_by(
    name: str, graph: Graph, specs: Mapping[str, StepSpec], kept: Mapping[str, StepKept]
) -> tuple[set[str], set[str]]:
    """The steps after approval `name` that do no work, or did none, and the first ones behind them that do."""
    between: set[str] = set()
    guarded: set[str] = set()
    ahead = [name]
    while ahead:
        for step in graph.dependents[ahead.pop()]:
            did_none = step in kept and kept[step].status == "skipped"
            if not did_none and any(True for _ in specs[step].works()):
                guarded.add(step)
            elif step not in between:
                between.add(step)
                ahead.append(step)
    return between, guarded
