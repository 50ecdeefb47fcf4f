"""Runs of every shape: their workflows, what somebody does to them meanwhile, and how they must have ended."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from tests.e2e.desk import Desk
from tests.e2e.load import counting_tool

from paracle_chassis.testing.eventually import eventually
from paracle_domain.run.commands import CancelRun, RunStatus, RunView, StepStatus

type Drive = Callable[[Desk, str], Awaitable[None]]

COMPLETED: Final = frozenset({RunStatus.COMPLETED})
_LONG_S: Final = 90.0


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
    drive: Drive | None = None

    @property
    def workflow(self) -> str:
        return f"shape-{self.name}"


def count(step: str, *needs: str, tool: str = "count", busy: int = 0, **more: Any) -> dict[str, Any]:
    """A step whose calls are counted."""
    given = {"run": "{{ input.run }}", "step": step} | ({"busy": busy} if busy else {})
    return {"id": step, "tool": tool, "input": given, "needs": list(needs), **more}


def doze(step: str, seconds: float, **more: Any) -> dict[str, Any]:
    """A step that takes its time."""
    return {"id": step, "tool": "doze", "input": {"seconds": seconds}, **more}


def chain(*steps: str, tool: str = "count") -> list[dict[str, Any]]:
    """Counted steps, one after the other."""
    return [
        count(step, *before, tool=tool) for before, step in zip([(), *((one,) for one in steps)], steps, strict=False)
    ]


async def cancel(desk: Desk, run_id: str) -> None:
    """Cancel it once its step `slow` runs."""

    async def begun() -> bool:
        return _status(await desk.get_run(run_id), "slow") is StepStatus.RUNNING

    await eventually(begun, within_s=_LONG_S)
    _ = await desk.order(CancelRun(run_id=run_id, reason="enough"))


def _status(run: RunView, step: str) -> StepStatus:
    return next(one.status for one in run.steps if one.id == step)


_FIVE: Final = ("s1", "s2", "s3", "s4", "s5")
_WIDE: Final = tuple(f"w{number}" for number in range(20))
_RETRY: Final = {"max_attempts": 4, "initial_s": 0.2, "jitter": 0}

SHAPES: Final = (
    Shape(
        "chain",
        40,
        {"steps": chain(*_FIVE), "output": "{{ steps.s5.output }}"},
        frozenset(_FIVE),
        output={"done": "s5"},
    ),
    Shape(
        "once",
        12,
        {"steps": chain("o1", "o2", "o3", tool="count_once")},
        frozenset({"o1", "o2", "o3"}),
        statuses=frozenset({RunStatus.COMPLETED, RunStatus.FAILED}),
        most_once=True,
    ),
    Shape(
        "agent",
        10,
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
        4,
        {"steps": [count("first"), *(count(name, "first") for name in _WIDE), count("last", *_WIDE)]},
        frozenset({"first", *_WIDE, "last"}),
    ),
    Shape(
        "retried",
        12,
        {"steps": [count("busy", busy=1, retry=_RETRY), count("last", "busy")]},
        frozenset({"busy", "last"}),
    ),
    Shape(
        "late",
        12,
        {"steps": [doze("slow", 600, timeout_s=2, on_error="continue"), count("last", "slow")]},
        frozenset({"last"}),
        statuses=frozenset({RunStatus.DEGRADED}),
    ),
    Shape(
        "cancelled",
        10,
        {"steps": [count("first"), doze("slow", 600, needs=["first"]), count("never", "slow")]},
        frozenset({"first"}),
        statuses=frozenset({RunStatus.CANCELLED}),
        drive=cancel,
    ),
)


def manifests(effects_port: int) -> str:
    """Everything that the shapes need."""
    documents = [
        counting_tool("count", "idempotent", effects_port),
        counting_tool("count_once", "at_most_once", effects_port),
        {
            "kind": "Tool",
            "metadata": {"name": "doze"},
            "spec": {
                "description": "Take so many seconds.",
                "backend": {"type": "builtin", "function": "sleep"},
                "timeout_s": 600,
            },
        },
        {
            "kind": "Agent",
            "metadata": {"name": "noter"},
            "spec": {
                "instructions": "Call the tool count with the run and the step that you are given.",
                "tools": ["count"],
            },
        },
        *({"kind": "Workflow", "metadata": {"name": shape.workflow}, "spec": dict(shape.spec)} for shape in SHAPES),
    ]
    return yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in documents])


def mixed(number: int) -> list[Shape]:
    """So many runs' shapes, by their shares."""
    assert sum(shape.share for shape in SHAPES) == 100
    hundred = list(itertools.chain.from_iterable([shape] * shape.share for shape in SHAPES))
    return [hundred[index * 100 // number % 100] for index in range(number)]
