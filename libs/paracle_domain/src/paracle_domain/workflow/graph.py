"""The graph of a workflow: which step waits for which, and what is wrong with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from pydantic import JsonValue

from paracle_domain.errors import ExpressionFailed, Finding, SpecInvalid
from paracle_domain.expressions import check_names, read, read_condition, references, texts
from paracle_domain.names import suggest
from paracle_domain.workflow.spec import StepSpec, WorkflowSpec

_CYCLE_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Graph:
    """Steps by what they wait for.

    `needs` holds what a step's `needs` say and what its `input` and `when` name; `dependents` is its inverse; `order`
    is topological, and steps that could stand in any order keep that of the manifest.
    """

    needs: Mapping[str, tuple[str, ...]]
    dependents: Mapping[str, tuple[str, ...]]
    order: tuple[str, ...]

    @classmethod
    def of(cls, spec: WorkflowSpec) -> Self:
        """The graph of `spec`, in time proportional to its steps and edges.

        Raises
        ------
        SpecInvalid
            If `validate_workflow` finds anything.
        """
        findings = validate_workflow(spec)
        if findings:
            raise SpecInvalid.many("workflow", findings)
        needs = {step.id: _needs(step) for step in spec.steps}
        dependents = _inverse(needs)
        return cls(needs, dependents, tuple(_sorted(needs, dependents)))

    @property
    def roots(self) -> tuple[str, ...]:
        """Steps that wait for nothing."""
        return tuple(step for step, needed in self.needs.items() if not needed)


def validate_workflow(spec: WorkflowSpec) -> list[Finding]:
    """All that is wrong with the graph and the expressions of `spec`, each with its path."""
    ids = {step.id for step in spec.steps}
    findings = list(_duplicates(spec))
    for index, step in enumerate(spec.steps):
        findings += _check_step(step, f"spec.steps[{index}]", ids)
        if step.kind not in {"agent", "tool"}:
            findings.append(Finding(path=f"spec.steps[{index}].{step.kind}", message="cannot be run yet"))
    findings += _check_template(spec.output, "spec.output", ids)
    if not findings:
        findings += _cycles(spec)
    return findings


def _duplicates(spec: WorkflowSpec) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, step in enumerate(spec.steps):
        first = seen.setdefault(step.id, index)
        if first != index:
            yield Finding(path=f"spec.steps[{index}].id", message=f"{step.id!r} is the id of steps[{first}] already")


def _check_step(step: StepSpec, path: str, ids: set[str]) -> Iterator[Finding]:
    for index, needed in enumerate(step.needs):
        yield from _check_reference(needed, f"{path}.needs[{index}]", ids, step.id)
    yield from _check_template(step.input, f"{path}.input", ids, step.id)
    if step.when is not None:
        yield from _check_condition(step.when, f"{path}.when", ids, step.id)


def _check_template(template: JsonValue, path: str, ids: set[str], own: str | None = None) -> Iterator[Finding]:
    for place, text in texts(template, path):
        try:
            found = read(text)
            check_names(found)
        except ExpressionFailed as error:
            yield Finding(path=place, message=error.message)
        else:
            for name in sorted(found.steps):
                yield from _check_reference(name, place, ids, own)


def _check_condition(expression: str, path: str, ids: set[str], own: str) -> Iterator[Finding]:
    try:
        found = read_condition(expression)
        check_names(found)
    except ExpressionFailed as error:
        yield Finding(path=path, message=error.message)
    else:
        for name in sorted(found.steps):
            yield from _check_reference(name, path, ids, own)


def _check_reference(name: str, path: str, ids: set[str], own: str | None) -> Iterator[Finding]:
    if name == own:
        yield Finding(path=path, message=f"step {name!r} waits for itself")
    elif name not in ids:
        yield Finding(path=path, message=f"there is no step {name!r}{suggest(name, ids)}")


def _needs(step: StepSpec) -> tuple[str, ...]:
    named = references(step.input)
    if step.when is not None:
        named |= read_condition(step.when).steps
    return tuple(dict.fromkeys((*step.needs, *sorted(named))))


def _inverse(needs: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {step: [] for step in needs}
    for step, needed in needs.items():
        for other in needed:
            found[other].append(step)
    return {step: tuple(others) for step, others in found.items()}


def _sorted(needs: Mapping[str, tuple[str, ...]], dependents: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Steps after all that they need; those on a cycle, or behind one, never come."""
    left = {step: len(needed) for step, needed in needs.items()}
    ready = deque(step for step, count in left.items() if count == 0)
    while ready:
        step = ready.popleft()
        yield step
        for other in dependents[step]:
            left[other] -= 1
            if left[other] == 0:
                ready.append(other)


def _cycles(spec: WorkflowSpec) -> Iterator[Finding]:
    needs = {step.id: _needs(step) for step in spec.steps}
    stuck = dict(needs)
    for step in _sorted(needs, _inverse(needs)):
        del stuck[step]
    if not stuck:
        return
    cycle = _find_cycle(stuck)
    index = next(place for place, step in enumerate(spec.steps) if step.id == cycle[0])
    shown = cycle if len(cycle) <= _CYCLE_SHOWN else [*cycle[: _CYCLE_SHOWN - 1], "…"]
    yield Finding(
        path=f"spec.steps[{index}]",
        message=f"steps wait for each other in a circle: {' → '.join([*shown, cycle[0]])} (each waits for the next)",
    )


def _find_cycle(stuck: Mapping[str, tuple[str, ...]]) -> list[str]:
    """A cycle among steps of which each needs at least one other of them."""
    walk: dict[str, None] = {}
    step = next(iter(stuck))
    while step not in walk:
        walk[step] = None
        step = next(needed for needed in stuck[step] if needed in stuck)
    trail = list(walk)
    return trail[trail.index(step) :]
