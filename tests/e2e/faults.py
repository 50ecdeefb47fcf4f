"""What is on its way when a service is killed at a chosen point: a run for each kind of directive."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import yaml
from tests.e2e.desk import Desk, desk
from tests.e2e.drives import Drive, approve, cancel, leave_alone, pause, signal
from tests.e2e.histories import assert_sound
from tests.e2e.steps import count, counted, doze, each, tools
from tests.e2e.world import System

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.faults import Gap
from paracle_client.stack import SERVICES
from paracle_client.stack.health import readiness
from paracle_domain.audit import GetAudit
from paracle_domain.run.commands import RunView, StartRun
from paracle_domain.run.directives import (
    CancelChild,
    DispatchTask,
    PublishEvent,
    ShowApproval,
    StartChild,
    StopTask,
    TellParent,
)
from paracle_embedded import ProcessRef, free_port, spawn

_SERVICES: Final = {one.name: one for one in SERVICES}


@dataclass(frozen=True, slots=True)
class Case:
    """A workflow, what is done to its run, whose service is killed, and at which message: the first that matches."""

    name: str
    match: str
    steps: tuple[Mapping[str, Any], ...]
    drive: Drive = leave_alone
    gaps: tuple[Gap, ...] = tuple(Gap)
    service: str = "orchestrator"

    @property
    def workflow(self) -> str:
        return f"fault-{self.name}"


RETRY: Final = {"max_attempts": 3, "initial_s": 0.2, "jitter": 0}
ASK: Final = {"ask": "Go on?", "action": {"amount": 7}, "principals": ["tester"], "own": True}
CHILD: Final = {"workflow": "fault-child", "input": {"run": "{{ input.run }}"}}
BOOM: Final = {"id": "boom", "tool": "calculate", "input": {"expression": "1 / 0"}}

BY_DIRECTIVE: Final[Mapping[type, tuple[Case, ...]]] = {
    DispatchTask: (
        Case("dispatch", r"\.task\.agents .*\"step\":\"two\"", (count("one"), count("two", "one"))),
        Case("item", r"\.task\.agents .*\"step\":\"each\[2\]\"", (each("each", 4), count("last", "each"))),
        Case("retry", r"\.task\.agents .*\"attempt\":2", (count("one", busy=1, retry=RETRY),)),
        Case(
            "undo",
            r"\.task\.agents .*\"step\":\"one\.compensate\"",
            (count("one", compensate=counted("undo-one")), {**BOOM, "needs": ["one"]}),
        ),
    ),
    StopTask: (
        Case(
            "stop",
            r"\.cmd\.agent_runtime\.cancel_task ",
            (count("one"), doze("slow", 600, needs=["one"])),
            drive=cancel,
        ),
    ),
    StartChild: (
        Case("child-start", r"\.result\..* run\.child_start ", ({"id": "child", **CHILD}, count("last", "child"))),
    ),
    CancelChild: (
        Case(
            "child-cancel",
            r"\.result\..* run\.child_cancel ",
            ({"id": "slow", "workflow": "fault-slow-child", "input": {"run": "{{ input.run }}"}},),
            drive=cancel,
        ),
    ),
    TellParent: (
        Case("child-end", r"\.result\..* run\.child_ended ", ({"id": "child", **CHILD}, count("last", "child"))),
    ),
    ShowApproval: (
        Case(
            "ask",
            r"^sql .*insert into approvals .*\bopen\b",
            ({"id": "ok", "approval": ASK}, count("last", "ok")),
            drive=approve,
        ),
        Case(
            "decide",
            r"^sql .*insert into approvals .*\bapproved\b",
            ({"id": "ok", "approval": ASK}, count("last", "ok")),
            drive=approve,
        ),
    ),
    PublishEvent: (
        Case(
            "emit",
            r"\.evt\.emit\.",
            ({"id": "tell", "emit": {"event": "paid", "data": {"n": 1}}}, count("last", "tell")),
        ),
    ),
}
"""For each kind of directive that a run can give."""

BESIDES: Final = (
    Case("first", r"\.evt\.run\..*\"run\.started\"", (count("one"),)),
    Case("last", r"\.evt\.run\..*\"run\.completed\"", (count("one"),)),
    # A tick is sent by whoever claimed it, outside all mailboxes.
    Case("tick", " run.tick ", (count("one", busy=1, retry=RETRY),), gaps=(Gap.BEFORE_PUBLISH, Gap.BEFORE_ACK)),
    Case(
        "timeout",
        r"\.evt\.run\..*\"step\.timed_out\"",
        (doze("slow", 600, timeout_s=1, on_error="continue"), count("last", "slow")),
    ),
    Case(
        "timer",
        r"\.evt\.run\..*\"step\":\"rest\",\"attempt\"",
        ({"id": "rest", "wait": {"for_s": 1}}, count("last", "rest")),
    ),
    Case(
        "signal", "signal.received", ({"id": "heard", "wait": {"signal": "paid"}}, count("last", "heard")), drive=signal
    ),
    Case("resume", "run.resumed", ({"id": "slow", "wait": {"signal": "paid"}}, count("last", "slow")), drive=pause),
)
"""What else a run's history hangs on: its ends, time, and people."""

_SAID: Final = (Gap.BEFORE_PUBLISH, Gap.BEFORE_ACK)  # the agent runtime acks where it publishes, outside its mailboxes
OF_RUNTIME: Final = (
    Case(
        "result",
        r"\.result\..* task\.result .*\"step\":\"one\"",
        (count("one", tool="count_once"), count("two", "one")),
        gaps=_SAID,
        service="agent_runtime",
    ),
    Case(
        "stopped",
        r"\.result\..* task\.result .*\"cancelled\"",
        (count("one"), doze("slow", 600, needs=["one"])),
        drive=cancel,
        gaps=_SAID,
        service="agent_runtime",
    ),
)
"""What the agent runtime says of tasks."""

CASES: Final = (*itertools.chain.from_iterable(BY_DIRECTIVE.values()), *BESIDES, *OF_RUNTIME)
HELPERS: Final = {
    "fault-child": [count("inner")],
    "fault-slow-child": [doze("long", 600)],
}


def manifests(effects_port: int) -> str:
    """The workflows of all cases, and their tools."""
    steps = {case.workflow: list(case.steps) for case in CASES} | HELPERS
    workflows = [
        {"kind": "Workflow", "metadata": {"name": name}, "spec": {"steps": its}} for name, its in steps.items()
    ]
    return yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in [*tools(effects_port), *workflows]])


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that must be the same, whatever was killed."""

    status: str
    output: Any
    error: str | None
    steps: Mapping[str, tuple[str, int, Any]]
    effects: Mapping[str, int]
    events: Mapping[str, int]
    emitted: Sequence[Any]


async def outcome(system: System, case: Case, gap: Gap | None) -> Outcome:
    """How a run of `case` ends if its service is killed in `gap`; `None`: if it is not."""
    name = f"{case.name}-{gap}"
    async with desk(system.stack.nats_url) as at:
        if gap is None:
            run_id = await _play(at, case, name)
        else:
            async with killed(system, case, gap) as doomed:
                playing = asyncio.create_task(_play(at, case, name))
                await eventually(lambda: not doomed.alive, within_s=60)
            assert doomed.exit_code == -9
            run_id = await playing
        view = await eventually(partial(_ended, at, run_id), within_s=60)
        assert view is not None
        events = await assert_sound(at, run_id)
        emitted = await at.ask(GetAudit(entity="emit", id=run_id))
    return Outcome(
        status=view.run.status.value,
        output=view.output,
        error=view.error.code if view.error else None,
        steps={step.id: (step.status.value, step.attempts, _timeless(step.output)) for step in view.steps},
        effects=dict(system.effects.times_by_step(name)),
        events=dict(Counter(event.type for event in events)),
        emitted=[one.event.data for one in emitted.events],
    )


def _timeless(output: Any) -> Any:
    """`output` without when people decided."""
    decisions = output.get("decisions", ()) if isinstance(output, dict) else ()
    return output | {"decisions": [one | {"at": None} for one in decisions]} if decisions else output


async def _play(at: Desk, case: Case, name: str) -> str:
    answer = await at.order(StartRun(workflow=case.workflow, input={"run": name}))
    await case.drive(at, str(answer["run_id"]))
    return str(answer["run_id"])


async def _ended(at: Desk, run_id: str) -> RunView | None:
    view = await at.get_run(run_id)
    return view if view.run.status.terminal else None


@asynccontextmanager
async def killed(system: System, case: Case, gap: Gap) -> AsyncIterator[ProcessRef]:
    """The service, replaced by one that is to die; afterwards an ordinary one is there again."""
    stack, service = system.stack, _SERVICES[case.service]
    await asyncio.to_thread(stack.kill, service.name)
    port = free_port()
    doomed = spawn(
        [sys.executable, "-m", "paracle_chassis.testing.faults", service.package, gap, case.match, "1"],
        log=stack.root / "logs" / "doomed.log",
        env=stack.env(service, port),
        cwd=stack.root,
    )

    async def ready() -> bool:
        assert doomed.alive, f"it ended too early; see {stack.root / 'logs' / 'doomed.log'}"
        return await asyncio.to_thread(readiness, port) is None

    try:
        await eventually(ready, within_s=60)
        yield doomed
    finally:
        await asyncio.to_thread(doomed.kill_tree)
        await asyncio.to_thread(stack.start, service.name)
