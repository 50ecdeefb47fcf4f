"""Forks: a run that begins with what another one had finished."""

from __future__ import annotations

from paracle_domain.errors import NotFound
from paracle_domain.names import suggest
from paracle_domain.run.commands import StepStatus
from paracle_domain.run.events import StepKept
from paracle_domain.run.state import RunState, StepState
from paracle_domain.workflow.graph import Graph


def kept_steps(old: RunState, graph: Graph, from_step: str) -> tuple[StepKept, ...]:
    """What a fork of `old` over `graph` (of the same plan or a newer one) keeps: all that it need not do again.

    Those are the steps that completed or were skipped, but for `from_step`, for what was undone, and for whatever needs
    a step that is not kept.

    Raises
    ------
    NotFound
        If there is no step `from_step`.
    """
    if from_step not in graph.index:
        raise NotFound(f"there is no step {from_step!r}{suggest(from_step, graph.index)}", path="from_step")
    kept: dict[str, StepKept] = {}
    for name in graph.order:
        step = old.steps.get(name) if name in old.graph.index else None
        if step is None or name == from_step or not all(needed in kept for needed in graph.needs[name]):
            continue
        if (event := _kept(name, step)) is not None:
            kept[name] = event
    return tuple(kept.values())


def _kept(name: str, step: StepState) -> StepKept | None:
    match step.status:
        case StepStatus.COMPLETED if step.compensation is None:
            return StepKept(step=name, status="completed", output=step.output, degraded=step.degraded)
        case StepStatus.SKIPPED:
            return StepKept(step=name, status="skipped")
        case _:
            return None
