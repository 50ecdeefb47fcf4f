"""The graph of a workflow: which step waits for which, and what is wrong with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Self

from pydantic import JsonValue

from paracle_domain.errors import ExpressionFailed, Finding, SpecInvalid
from paracle_domain.expressions import ROOTS, check_names, read, read_condition, references, texts
from paracle_domain.names import suggest
from paracle_domain.workflow.spec import StepSpec, SwitchSpec, WorkflowSpec

_CYCLE_SHOWN: Final = 12
_ITEM: Final = ROOTS | {"item", "index"}
_ITERATION: Final = ROOTS | {"iteration", "last"}
_UNTIL: Final = ROOTS | {"iteration", "output"}


@dataclass(frozen=True, slots=True)
class Expressions:
    """A part of a step that may hold expressions: its path below the step, and the names that they may use.

    `later`: it is evaluated when the step is long over (a compensation), so it waits for nothing.
    """

    path: str
    value: JsonValue
    names: frozenset[str] = ROOTS
    condition: bool = False
    later: bool = False

    def steps(self) -> frozenset[str]:
        """Ids of the steps that the expressions name."""
        return read_condition(str(self.value)).steps if self.condition else frozenset(references(self.value))


def expressions_of(step: StepSpec) -> Iterator[Expressions]:
    """All expressions of `step`."""
    yield Expressions("input", step.input)
    if step.when is not None:
        yield Expressions("when", step.when, condition=True)
    if step.map is not None:
        yield Expressions("map.over", step.map.over)
        yield Expressions("map.input", step.map.input, _ITEM)
    if step.loop is not None:
        yield Expressions("loop.input", step.loop.input, _ITERATION)
        yield Expressions("loop.until", step.loop.until, _UNTIL, condition=True)
    if step.switch is not None:
        for index, case in enumerate(step.switch.cases):
            yield Expressions(f"switch.cases[{index}].when", case.when, condition=True)
    if step.approval is not None:
        yield Expressions("approval.ask", step.approval.ask)
        yield Expressions("approval.action", step.approval.action)
    if step.wait is not None:
        yield Expressions("wait.for_s", step.wait.for_s)
        yield Expressions("wait.until", step.wait.until)
    if step.emit is not None:
        yield Expressions("emit.data", step.emit.data)
    if step.compensate is not None:
        yield Expressions("compensate.input", step.compensate.input, later=True)


@dataclass(frozen=True)
class Graph:
    """Steps by what they wait for.

    `needs` holds what a step's `needs` say, what its expressions name, the switches that it is a branch of, the step
    that it is the fallback of, and the fallbacks of all these; `dependents` is its inverse; `order` is topological,
    and steps that could stand in any order keep that of the manifest.
    """

    needs: Mapping[str, tuple[str, ...]]
    dependents: Mapping[str, tuple[str, ...]]
    order: tuple[str, ...]
    primaries: Mapping[str, str] = field(default_factory=dict)
    """Fallback steps, and which step each is the fallback of."""

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
        needs = _needs(spec)
        dependents = _inverse(needs)
        primaries = {step.fallback: step.id for step in spec.steps if step.fallback is not None}
        return cls(needs, dependents, tuple(_sorted(needs, dependents)), primaries)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The place of each step in `order`."""
        return {step: place for place, step in enumerate(self.order)}


def validate_workflow(spec: WorkflowSpec) -> list[Finding]:
    """All that is wrong with the graph and the expressions of `spec`, each with its path."""
    ids = {step.id for step in spec.steps}
    findings = list(_duplicates(spec))
    for index, step in enumerate(spec.steps):
        findings += _check_step(step, f"spec.steps[{index}]", ids)
    findings += _check_fallbacks(spec)
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
    for part in expressions_of(step):
        own = None if part.later else step.id
        check = _check_condition if part.condition else _check_template
        yield from check(part.value, f"{path}.{part.path}", ids, own, part.names)
    if step.fallback is not None:
        yield from _check_reference(step.fallback, f"{path}.on_error.fallback", ids, step.id)
    for place, branch in _branches(step.switch):
        yield from _check_reference(branch, f"{path}.switch.{place}", ids, step.id)


def _branches(switch: SwitchSpec | None) -> Iterator[tuple[str, str]]:
    """The steps that `switch` chooses between, each with its path below it."""
    if switch is None:
        return
    for index, case in enumerate(switch.cases):
        yield from ((f"cases[{index}].then[{place}]", step) for place, step in enumerate(case.then))
    yield from ((f"default[{place}]", step) for place, step in enumerate(switch.default))


def _check_fallbacks(spec: WorkflowSpec) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for index, step in enumerate(spec.steps):
        if step.fallback is not None and first.setdefault(step.fallback, step.id) != step.id:
            yield Finding(
                path=f"spec.steps[{index}].on_error.fallback",
                message=f"{step.fallback!r} is the fallback of {first[step.fallback]!r} already; give each its own",
            )


def _check_template(
    template: JsonValue, path: str, ids: set[str], own: str | None = None, names: frozenset[str] = ROOTS
) -> Iterator[Finding]:
    for place, text in texts(template, path):
        try:
            found = read(text)
            check_names(found, names)
        except ExpressionFailed as error:
            yield Finding(path=place, message=error.message)
        else:
            for name in sorted(found.steps):
                yield from _check_reference(name, place, ids, own)


def _check_condition(
    expression: JsonValue, path: str, ids: set[str], own: str | None, names: frozenset[str]
) -> Iterator[Finding]:
    try:
        found = read_condition(str(expression))
        check_names(found, names)
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


def _needs(spec: WorkflowSpec) -> dict[str, tuple[str, ...]]:
    """What each step waits for; a step that needs another one also needs the one that may step in for it."""
    found = {step.id: dict.fromkeys((*step.needs, *_named(step))) for step in spec.steps}
    fallbacks: dict[str, str] = {}
    for step in spec.steps:
        for _, branch in _branches(step.switch):
            found[branch].setdefault(step.id)
        if step.fallback is not None:
            found[step.fallback].setdefault(step.id)
            fallbacks[step.id] = step.fallback
    return {step: tuple(_with_fallbacks(step, needed, fallbacks)) for step, needed in found.items()}


def _with_fallbacks(step: str, needed: Mapping[str, None], fallbacks: Mapping[str, str]) -> Mapping[str, None]:
    wider = dict(needed)
    for name in needed:
        while (name := fallbacks.get(name, step)) != step and name not in wider:
            wider[name] = None
    return wider


def _named(step: StepSpec) -> list[str]:
    return sorted({name for part in expressions_of(step) if not part.later for name in part.steps()})


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
    needs = _needs(spec)
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
