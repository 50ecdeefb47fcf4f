"""The rules of runs, as plainly as they can be said, and checked event by event. It knows nothing of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paracle_domain.run.events import RunEvent
from paracle_domain.workflow.spec import StepSpec, WorkflowSpec

ENDS = ("run.completed", "run.degraded", "run.failed", "run.cancelled", "run.timed_out")
OVER = ("completed", "skipped", "failed", "timed_out", "cancelled")


class Model:
    """What has happened of a run so far: how each path stands, and what follows for what may happen next."""

    def __init__(self, spec: WorkflowSpec) -> None:
        self.spec = spec
        self.steps = {step.id: step for step in spec.steps}
        self.status: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.tolerated: set[str] = set()
        self.degraded: set[str] = set()
        self.counts: dict[str, int] = {}
        self.chosen: dict[str, str | None] = {}
        self.completed: list[str] = []
        self.signals: dict[str, str] = {}
        self.approvals: dict[str, list[str]] = {}
        self.undo: list[str] | None = None
        self.ending = self.queued = self.paused = False
        self.end = ""

    def see(self, event: RunEvent) -> None:
        """Check `event` against all that came before it, and note it."""
        assert not self.end, "nothing happens after the end"
        what, path = event.type, getattr(event, "step", "")
        match what:
            case "step.started" | "step.opened" | "step.waiting" | "approval.asked":
                self._begin(event, path)
            case "step.completed" | "step.skipped" | "step.failed" | "step.timed_out" | "step.cancelled":
                self._over(event, path, what.removeprefix("step."))
            case "step.retrying":
                assert self.status[path] == "running"
                self.status[path] = "waiting"
            case "step.failing":
                assert self.status[path] == "open"
                self.status[path] = "failing"
            case "run.paused" | "run.resumed":
                assert self.paused is (what == "run.resumed")
                self.paused = what == "run.paused"
            case "run.cancelling" | "run.failing":
                assert not self.ending
                self.ending, self.paused, self.queued = True, False, False
            case "run.started":
                self.queued = event.queued  # type: ignore[union-attr]  # as above
            case "run.compensating":
                self._compensate(event.steps)  # type: ignore[union-attr]  # as above
            case _ if what in ENDS:
                self._end(event)
            case _:
                self._see_from_outside(event, path)

    def _see_from_outside(self, event: Any, path: str) -> None:
        match event.type:
            case "signal.received":
                assert event.id not in self.signals
                self.signals[event.id] = event.name
            case "approval.decided":
                assert self.status[path] == "open"
                assert event.principal not in self.approvals.get(path, [])
                self.approvals.setdefault(path, []).append(event.principal)
            case "run.admitted":
                assert self.queued
                self.queued = False
            case "step.kept":
                self._keep(event)
            case _:
                assert event.type in {"step.emitted", "approval.escalated"}

    @property
    def open(self) -> list[str]:
        return [path for path, status in self.status.items() if status not in OVER]

    @property
    def at_work(self) -> list[str]:
        """What takes room: attempts that run or wait for the next, but not of compensations."""
        return [path for path in self.open if path in self.attempts and not path.endswith(".compensate")]

    def needs(self, name: str) -> set[str]:
        """All steps that have to be over before `name` begins; expressions of these tests name none."""
        found = set(self.steps[name].needs)
        for step in self.steps.values():
            if name in _branches(step) or step.fallback == name:
                found.add(step.id)
        ahead = list(found)
        while ahead:
            other = self.steps[ahead.pop()].fallback
            if other is not None and other != name and other not in found:
                found.add(other)
                ahead.append(other)
        return found

    def _keep(self, event: Any) -> None:
        """What a fork takes over is over as it begins."""
        assert event.step not in self.status
        self.status[event.step] = event.status
        if event.degraded:
            self.degraded.add(event.step)
        if self.steps[event.step].switch is not None and event.status == "completed":
            self.chosen[event.step] = event.output["case"]

    def _begin(self, event: Any, path: str) -> None:
        assert not self.queued
        attempt = getattr(event, "attempt", 1)
        if path.endswith(".compensate"):
            self._begin_undo(path, attempt)
        elif attempt > 1:
            assert self.status[path] == "waiting"
            assert self.attempts[path] == attempt - 1
            assert not self.ending
            assert not self.paused
        else:
            assert path not in self.status
            assert not self.ending
            assert not self.paused
            name, bracket, rest = path.partition("[")
            if bracket:
                self._begin_part(name, int(rest[:-1]))
            else:
                self._begin_step(name)
        if event.type == "step.started":
            self.status[path] = "running"
            self.attempts[path] = attempt
            assert self.spec.concurrency is None or len(self.at_work) <= self.spec.concurrency
        else:
            self.status[path] = "open"
            self.counts[path] = getattr(event, "count", 0)

    def _begin_step(self, name: str) -> None:
        for needed in self.needs(name):
            assert self._satisfied(needed), f"{name} began before {needed} was over"
        for step in self.steps.values():
            if step.fallback == name:
                assert self.status[step.id] in {"failed", "timed_out"}
            if name in _branches(step):
                assert name in _taken(step, self.chosen[step.id])

    def _satisfied(self, name: str) -> bool:
        return self.status.get(name) in {"completed", "skipped"} or name in self.tolerated

    def _begin_part(self, name: str, part: int) -> None:
        assert self.status[name] == "open"
        assert part < self.counts[name]
        parts = [path for path in self.open if path.startswith(f"{name}[")]
        step = self.steps[name]
        assert len(parts) < (step.map.concurrency if step.map is not None else 1)

    def _begin_undo(self, path: str, attempt: int) -> None:
        assert self.undo, "compensations begin when there are some to do"
        assert path == f"{self.undo[0]}.compensate"
        assert self.status.get(path) == ("waiting" if attempt > 1 else None)
        assert self.open == ([path] if attempt > 1 else []), "one after the other, when nothing else runs"

    def _over(self, event: Any, path: str, status: str) -> None:
        before = self.status.get(path)
        assert before not in OVER, f"{path} ended twice"
        name = path.partition("[")[0]
        if before is None:
            assert status in {"skipped", "failed"} or self.steps[path].switch or self.steps[path].emit
        elif path == name and path in self.counts:
            assert not any(other.startswith(f"{path}[") for other in self.open), "items end before their map"
        self.status[path] = status
        if path.endswith(".compensate"):
            assert self.undo
            self.undo.pop(0)
            return
        if getattr(event, "tolerated", False):
            self.tolerated.add(path)
        if getattr(event, "degraded", False) or (getattr(event, "tolerated", False) and path == name):
            self.degraded.add(path)
        if status == "completed" and path == name:
            self._completed(event, self.steps[path])

    def _completed(self, event: Any, step: StepSpec) -> None:
        self.completed.append(step.id)
        if step.switch is not None:
            self.chosen[step.id] = event.output["case"]
        if step.wait is not None and step.wait.signal is not None:
            assert self.signals.pop(event.signal) == step.wait.signal, "each signal is taken once"
        if step.approval is not None:
            assert len(self.approvals[step.id]) == step.approval.quorum
        if step.map is not None:
            assert len(event.output) == self.counts[step.id]

    def _compensate(self, steps: Sequence[str]) -> None:
        assert self.ending
        assert not self.open
        able = [name for name in self.completed if self.steps[name].compensate is not None]
        assert list(steps) == able[::-1], "the newest is undone first"
        self.undo = list(steps)

    def _end(self, event: Any) -> None:
        self.end = event.type
        assert not self.open, "nothing is open after the end"
        assert not self.undo, "all is undone before the end"
        if self.ending:
            assert event.type in {"run.failed", "run.cancelled", "run.timed_out"}
            able = [name for name in self.completed if self.steps[name].compensate is not None]
            assert self.undo is not None or not able
            return
        assert set(self.status) >= set(self.steps), "a run completes when every step is over"
        assert event.type == ("run.degraded" if self.degraded & set(self.steps) else "run.completed")
        failed = {name for name in self.steps if self.status[name] in {"failed", "timed_out"}}
        assert failed <= self.tolerated, "a failure that nobody allowed is no success"
        for name in failed:
            fallback = self.steps[name].fallback
            assert fallback is None or self.status[fallback] != "skipped", "somebody stepped in"


def _branches(step: StepSpec) -> set[str]:
    if step.switch is None:
        return set()
    return {name for case in step.switch.cases for name in case.then} | set(step.switch.default)


def _taken(step: StepSpec, chosen: str | None) -> Sequence[str]:
    assert step.switch is not None
    return next((case.then for case in step.switch.cases if case.name == chosen), step.switch.default)
