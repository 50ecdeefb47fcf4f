"""What is on its way when the orchestrator is killed at a chosen point: a run for each kind of directive."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import yaml
from tests.e2e.histories import assert_sound
from tests.e2e.load import counting_tool
from tests.e2e.world import System

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.faults import Gap
from paracle_client import AsyncClient
from paracle_client.stack import SERVICES
from paracle_client.stack.health import readiness
from paracle_domain.run.commands import StepStatus
from paracle_domain.run.directives import DispatchTask, StopTask
from paracle_embedded import ProcessRef, free_port, spawn

ORCHESTRATOR: Final = next(one for one in SERVICES if one.name == "orchestrator")

type Drive = Callable[[AsyncClient, str], Awaitable[None]]


async def leave_alone(_client: AsyncClient, _run_id: str) -> None:
    """The run goes its way."""


async def cancel(client: AsyncClient, run_id: str) -> None:
    """Cancel it once its step `slow` runs."""

    async def runs() -> bool:
        view = await client.get_run(run_id)
        return any(step.id == "slow" and step.status is StepStatus.RUNNING for step in view.steps)

    await eventually(runs)
    await client.cancel(run_id)


@dataclass(frozen=True, slots=True)
class Case:
    """A workflow, what is done to its run, and which message of it is the chosen one: the first that matches."""

    name: str
    match: str
    steps: tuple[Mapping[str, Any], ...]
    drive: Drive = leave_alone
    gaps: tuple[Gap, ...] = tuple(Gap)

    @property
    def workflow(self) -> str:
        return f"fault-{self.name}"


def count(step: str, *, needs: tuple[str, ...] = (), busy: int = 0, **more: Any) -> dict[str, Any]:
    """A step whose calls are counted."""
    given = {"run": "{{ input.run }}", "step": step} | ({"busy": busy} if busy else {})
    return {"id": step, "tool": "count", "input": given, "needs": list(needs), **more}


def sleep(step: str, **more: Any) -> dict[str, Any]:
    """A step that takes longer than any test."""
    return {"id": step, "tool": "doze", "input": {"seconds": 600}, **more}


_RETRY: Final = {"max_attempts": 3, "initial_s": 0.2, "jitter": 0}

BY_DIRECTIVE: Final[Mapping[type, Case]] = {
    DispatchTask: Case("dispatch", r"\.task\.agents .*\"step\":\"two\"", (count("one"), count("two", needs=("one",)))),
    StopTask: Case("stop", r"\.cmd\.agent_runtime\.cancel_task ", (count("one"), sleep("slow")), cancel),
}
"""One for each kind of directive that a run can give."""

BESIDES: Final = (
    Case("first", r"\.run_started ", (count("one"),)),
    Case("last", r"\.run_completed ", (count("one"),)),
    # A tick is sent by whoever claimed it, outside all mailboxes.
    Case("tick", " run.tick ", (count("one", busy=1, retry=_RETRY),), gaps=(Gap.BEFORE_PUBLISH, Gap.BEFORE_ACK)),
    Case("retry", r"\.task\.agents .*\"attempt\":2", (count("one", busy=1, retry=_RETRY),)),
    Case(
        "timeout",
        r"\.step_timed_out ",
        (sleep("slow", timeout_s=1, on_error="continue"), count("after", needs=("slow",))),
    ),
)
"""What else a run's history hangs on: its ends, and time."""

CASES: Final = (*BY_DIRECTIVE.values(), *BESIDES)


def manifests(effects_port: int) -> str:
    """The workflows of all cases, and their tools."""
    doze = {
        "kind": "Tool",
        "metadata": {"name": "doze"},
        "spec": {
            "description": "Sleep.",
            "backend": {"type": "builtin", "function": "sleep"},
            "timeout_s": 600,
        },
    }
    workflows = [
        {"kind": "Workflow", "metadata": {"name": case.workflow}, "spec": {"steps": list(case.steps)}} for case in CASES
    ]
    documents = [counting_tool("count", "idempotent", effects_port), doze, *workflows]
    return yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in documents])


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that must be the same, whatever was killed."""

    status: str
    output: Any
    error: str | None
    steps: Mapping[str, tuple[str, int, Any]]
    effects: Mapping[str, int]
    events: Mapping[str, int]


async def outcome(system: System, case: Case, gap: Gap | None) -> Outcome:
    """How a run of `case` ends if the orchestrator is killed in `gap`; `None`: if it is not."""
    name = f"{case.name}-{gap}"
    async with system.client() as client:
        if gap is None:
            run_id = await _play(client, case, name)
        else:
            with killed(system, gap, case.match) as doomed:
                playing = asyncio.create_task(_play(client, case, name))
                await eventually(lambda: not doomed.alive, within_s=60)
            assert doomed.exit_code == -9
            run_id = await playing
        view = await client.wait(run_id)
        events = await assert_sound(client, run_id)
    return Outcome(
        status=view.run.status.value,
        output=view.output,
        error=view.error.code if view.error else None,
        steps={step.id: (step.status.value, step.attempts, step.output) for step in view.steps},
        effects=dict(system.effects.times_by_step(name)),
        events=dict(Counter(event.type for event in events)),
    )


async def _play(client: AsyncClient, case: Case, name: str) -> str:
    run_id = (await client.start_run(case.workflow, {"run": name})).run_id
    await case.drive(client, run_id)
    return run_id


@contextmanager
def killed(system: System, gap: Gap, match: str) -> Iterator[ProcessRef]:
    """The orchestrator, replaced by one that is to die; afterwards an ordinary one is there again."""
    stack = system.stack
    stack.kill(ORCHESTRATOR.name)
    port = free_port()
    doomed = spawn(
        [sys.executable, "-m", "paracle_chassis.testing.faults", ORCHESTRATOR.package, gap, match, "1"],
        log=stack.root / "logs" / "doomed.log",
        env=stack.env(ORCHESTRATOR, port),
        cwd=stack.root,
    )
    try:
        while readiness(port) is not None:
            assert doomed.alive, f"it ended too early; see {stack.root / 'logs' / 'doomed.log'}"
        yield doomed
    finally:
        doomed.kill_tree()
        stack.start(ORCHESTRATOR.name)
