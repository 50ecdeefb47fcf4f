"""Runs of every shape: their workflows, what somebody does to them meanwhile, and how they must have ended."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from tests.e2e.drives import Drive, approve, cancel, leave_alone, reject, signal
from tests.e2e.steps import chain, count, counted, doze, each, tools

from paracle_domain.run.commands import RunStatus

COMPLETED: Final = frozenset({RunStatus.COMPLETED})


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of run.

    Attributes
    ----------
    share
        How many of a hundred runs are of this kind.
    effects
        The calls that the world must have seen, each with one key of its own.
    statuses
        How it may end.
    output
        What it gives if it completes.
    most_once
        Whether no call may ever come twice; then a run may also fail since nobody knows whether one came.
    drive
        What somebody does to it.
    """

    name: str
    share: int
    spec: Mapping[str, Any]
    effects: frozenset[str]
    statuses: frozenset[RunStatus] = COMPLETED
    output: Any = None
    most_once: bool = False
    drive: Drive = leave_alone

    @property
    def workflow(self) -> str:
        return f"shape-{self.name}"


_FIVE: Final = ("s1", "s2", "s3", "s4", "s5")
_RETRY: Final = {"max_attempts": 4, "initial_s": 0.2, "jitter": 0}

_ASK: Final = {"ask": "Go on?", "action": {"amount": 7}, "principals": ["tester"], "own": True}
_BOOM: Final = {"tool": "calculate", "input": {"expression": "1 / 0"}}
_B: Final = {"name": "b", "when": "{{ true }}", "then": ["go"]}
_RUN: Final = {"run": "{{ input.run }}"}

CHILDREN: Final = {
    "shape-inner": {"steps": [count("i1"), count("i2", "i1")], "output": "{{ steps.i2.output }}"},
    "shape-middle": {
        "steps": [count("m1"), {"id": "deep", "workflow": "shape-inner", "input": _RUN, "needs": ["m1"]}],
        "output": "{{ steps.deep.output }}",
    },
    "shape-sleeper": {"steps": [doze("long", 600)]},
}
"""Workflows that only other workflows run."""

SHAPES: Final = (
    Shape(
        "chain",
        20,
        {"steps": chain(*_FIVE), "output": "{{ steps.s5.output }}"},
        frozenset(_FIVE),
        output={"done": "s5"},
    ),
    Shape(
        "once",
        8,
        {"steps": chain("o1", "o2", "o3", tool="count_once")},
        frozenset({"o1", "o2", "o3"}),
        statuses=frozenset({RunStatus.COMPLETED, RunStatus.FAILED}),
        most_once=True,
    ),
    Shape(
        "agent",
        8,
        {
            "steps": [
                {"id": "note", "agent": "noter", "input": {"run": "{{ input.run }}", "step": "note"}},
                count("last", "note"),
            ]
        },
        frozenset({"note", "last"}),
    ),
    Shape(
        "wide",
        1,
        {
            "steps": [count("first"), each("all", 100, "first"), count("last", "all")],
            "output": "{{ steps.all.output | length }}",
        },
        frozenset({"first", *(f"all-{number}" for number in range(100)), "last"}),
        output=100,
    ),
    Shape(
        "retried",
        7,
        {"steps": [count("busy", busy=1, retry=_RETRY), count("last", "busy")]},
        frozenset({"busy", "last"}),
    ),
    Shape(
        "late",
        5,
        {"steps": [doze("slow", 600, timeout_s=2, on_error="continue"), count("last", "slow")]},
        frozenset({"last"}),
        statuses=frozenset({RunStatus.DEGRADED}),
    ),
    Shape(
        "cancelled",
        5,
        {"steps": [count("first"), doze("slow", 600, needs=["first"]), count("never", "slow")]},
        frozenset({"first"}),
        statuses=frozenset({RunStatus.CANCELLED}),
        drive=cancel,
    ),
    Shape(
        "family",
        8,
        {
            "steps": [{"id": "child", "workflow": "shape-middle", "input": _RUN}, count("last", "child")],
            "output": "{{ steps.child.output }}",
        },
        frozenset({"m1", "i1", "i2", "last"}),
        output={"done": "i2"},
    ),
    Shape(
        "orphaned",
        4,
        {"steps": [{"id": "slow", "workflow": "shape-sleeper"}, count("never", "slow")]},
        frozenset(),
        statuses=frozenset({RunStatus.CANCELLED}),
        drive=cancel,
    ),
    Shape(
        "waiting",
        6,
        {"steps": [count("first"), {"id": "rest", "wait": {"for_s": 2}, "needs": ["first"]}, count("last", "rest")]},
        frozenset({"first", "last"}),
    ),
    Shape(
        "signalled",
        6,
        {
            "steps": [count("first"), {"id": "paid", "wait": {"signal": "paid"}, "needs": ["first"]}],
            "output": "{{ steps.paid.output.amount }}",
        },
        frozenset({"first"}),
        output=7,
        drive=signal,
    ),
    Shape(
        "approved",
        6,
        {"steps": [{"id": "ok", "approval": _ASK}, count("last", "ok")], "output": "{{ steps.ok.output.approved }}"},
        frozenset({"last"}),
        output=True,
        drive=approve,
    ),
    Shape(
        "rejected",
        4,
        {
            "steps": [
                count("first", compensate=counted("undo-first")),
                {"id": "ok", "approval": _ASK, "needs": ["first"]},
            ]
        },
        frozenset({"first", "undo-first"}),
        statuses=frozenset({RunStatus.FAILED}),
        drive=reject,
    ),
    Shape(
        "undone",
        5,
        {
            "steps": [
                count("u1", compensate=counted("undo-u1")),
                count("u2", "u1", compensate=counted("undo-u2")),
                {"id": "boom", **_BOOM, "needs": ["u2"]},
            ]
        },
        frozenset({"u1", "u2", "undo-u1", "undo-u2"}),
        statuses=frozenset({RunStatus.FAILED}),
    ),
    Shape(
        "looping",
        4,
        {
            "steps": [
                {
                    "id": "again",
                    "loop": {"max": 9, "until": "{{ iteration == 2 }}", **counted("again-{{ iteration }}")},
                },
                {"id": "tell", "emit": {"event": "done", "data": {"n": 1}}, "needs": ["again"]},
            ],
            "output": "{{ steps.again.output }}",
        },
        frozenset({"again-0", "again-1", "again-2"}),
        output={"done": "again-2"},
    ),
    Shape(
        "routed",
        3,
        {
            "steps": [
                {"id": "boom", **_BOOM, "on_error": {"fallback": "plan_b"}},
                count("plan_b"),
                {
                    "id": "route",
                    "switch": {"cases": [{"name": "b", "when": "{{ true }}", "then": ["go"]}]},
                    "needs": ["boom"],
                },
                count("go"),
            ],
            "output": "{{ steps.route.output.case }}",
        },
        frozenset({"plan_b", "go"}),
        statuses=frozenset({RunStatus.DEGRADED}),
        output="b",
    ),
)


def manifests(effects_port: int) -> str:
    """Everything that the shapes need."""
    specs = {shape.workflow: dict(shape.spec) for shape in SHAPES} | CHILDREN
    workflows = [{"kind": "Workflow", "metadata": {"name": name}, "spec": spec} for name, spec in specs.items()]
    return yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in [*tools(effects_port), *workflows]])


def mixed(number: int) -> list[Shape]:
    """So many runs' shapes, by their shares."""
    assert sum(shape.share for shape in SHAPES) == 100
    hundred = list(itertools.chain.from_iterable([shape] * shape.share for shape in SHAPES))
    return [hundred[index * 100 // number % 100] for index in range(number)]
