"""The steps of a plan, made ready for deciding: expressions compiled, and what each needs to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import JsonValue
from pydantic_core import to_json

from paracle_domain.errors import ExpressionFailed, InvalidInput
from paracle_domain.expressions import (
    Evaluator,
    compiled,
    compiled_condition,
    read_condition,
    references,
    texts,
)
from paracle_domain.run.places import COMPENSATE, Place
from paracle_domain.run.state import RunState, StepState
from paracle_domain.strict_json import is_deep, is_deep_in
from paracle_domain.workflow.graph import Graph, expressions_of
from paracle_domain.workflow.spec import StepKind, StepSpec, TargetKind, WorkflowSpec, WorkSpec

MOST_BYTES: Final = 48 * 1024 * 1024
MOST_LEVELS: Final = 150
"""Of any value that a run holds: readers of messages stop at 200, and events, results and views nest it further."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A template and the names of the steps that it refers to: all that it can see of them."""

    evaluator: Evaluator
    constant: bool
    steps: tuple[str, ...]

    @classmethod
    def of(cls, template: JsonValue) -> Formula:
        code = any(True for _ in texts(template))
        return cls(compiled(template), not code, tuple(sorted(references(template))))

    @classmethod
    def condition(cls, expression: str) -> Formula:
        """Of a condition: it gives true or false."""
        found = read_condition(expression)
        return cls(compiled_condition(expression), constant=False, steps=tuple(sorted(found.steps)))

    def evaluate(self, state: RunState, local: Mapping[str, Any] | None = None) -> JsonValue:
        """What it gives in a run as it stands, with the names of `local`.

        Raises
        ------
        ExpressionFailed
            If it fails, or gives more than fits into a message.
        """
        if self.constant:
            return self.evaluator(_NOTHING)
        return fitting(self.evaluator(scope(state, self.steps, local)))


_NOTHING: Final[Mapping[str, Any]] = {}


def scope(state: RunState, steps: Sequence[str], local: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What expressions see."""
    started = state.started_event
    table, index = state.table, state.graph.index
    found = {name: _visible(step) for name in steps if (step := table.entry(index[name])) is not None}
    seen: dict[str, Any] = {"input": started.input, "run": {"id": started.run_id}, "steps": found}
    if local is not None:
        seen.update(local)
    return seen


def _visible(step: StepState) -> dict[str, Any]:
    """A step as expressions see it."""
    return {
        "output": step.output,
        "status": step.status.value,
        "error": step.error.model_dump(mode="json") if step.error else None,
    }


def require_levels(body: bytes, value: JsonValue, path: str) -> None:
    """Refuse `value`, which came in the JSON `body` at `path`, if no history that held it could be read again.

    Raises
    ------
    InvalidInput
        If it has more than `MOST_LEVELS`.
    """
    if is_deep_in(body, value, MOST_LEVELS):
        raise InvalidInput(f"it nests more than {MOST_LEVELS} levels deep; pass it flatter, or as a text", path=path)


def fitting(value: JsonValue) -> JsonValue:
    """`value`, which an expression gave, if it fits into a message. What is whole in several outputs may not in one.

    Raises
    ------
    ExpressionFailed
        If it has more than `MOST_BYTES` as JSON, or more than `MOST_LEVELS`. It could be neither handed to a worker nor
        told of, and a history that held it could not be read again.
    """
    if is_deep(value, MOST_LEVELS):
        raise ExpressionFailed(f"the result nests more than {MOST_LEVELS} levels deep, and does not fit into a message")
    size = len(to_json(value))
    if size > MOST_BYTES:
        raise ExpressionFailed(f"the result has {size:,} bytes, and at most {MOST_BYTES:,} fit into a message")
    return value


@dataclass(frozen=True, slots=True)
class Job:
    """Work of a step, of each part of it, or of its compensation."""

    spec: WorkSpec
    input: Formula
    kind: TargetKind
    target: str

    @classmethod
    def of(cls, spec: WorkSpec | None) -> Job | None:
        return None if spec is None else cls(spec, Formula.of(spec.input), spec.target_kind, spec.target)


@dataclass(frozen=True, slots=True)
class Node:
    """A step of the graph."""

    place: int
    name: str
    at: Place
    spec: StepSpec
    kind: StepKind
    fallback: str | None
    dependents: tuple[str, ...]
    branches: tuple[str, ...]
    """The steps that it chooses between, in the order of the graph."""
    when: Formula | None
    job: Job | None
    """The work of the step itself, or of its items or iterations."""
    undo: Job | None
    formulas: Mapping[str, Formula]
    """Further expressions by their path below the step."""

    @property
    def undo_path(self) -> str:
        return self.name + COMPENSATE


_ELSEWHERE: Final = frozenset({"input", "when", "map.input", "loop.input", "compensate.input"})


def node_of(step: StepSpec, graph: Graph) -> Node:
    """`step`, made ready."""
    switch = step.switch
    chosen = () if switch is None else (*switch.default, *(name for case in switch.cases for name in case.then))
    formulas = {
        part.path: Formula.condition(str(part.value)) if part.condition else Formula.of(part.value)
        for part in expressions_of(step)
        if part.path not in _ELSEWHERE
    }
    return Node(
        place=graph.index[step.id],
        name=step.id,
        at=Place(step.id),
        spec=step,
        kind=step.kind,
        fallback=step.fallback,
        dependents=graph.dependents[step.id],
        branches=tuple(sorted(set(chosen), key=graph.index.__getitem__)),
        when=Formula.condition(step.when) if step.when is not None else None,
        job=Job.of(step.work or step.map or step.loop),
        undo=Job.of(step.compensate),
        formulas=formulas,
    )


def nodes_of(spec: WorkflowSpec, graph: Graph) -> dict[str, Node]:
    """All steps of `spec` by name, in the order of the graph."""
    steps = {step.id: step for step in spec.steps}
    return {name: node_of(steps[name], graph) for name in graph.order}
