"""Runs of many kinds at once, and what must have become of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import nats
import yaml
from nats.aio.msg import Msg
from tests.e2e.histories import assert_sound
from tests.e2e.world import MAILS, System, triage_text

from paracle_chassis.frames import flushed
from paracle_client import AsyncClient
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import RunStatus, RunView, StepStatus

CHAIN: Final = ("s1", "s2", "s3", "s4", "s5")
SLOW: Final = ("mail-classifier", "mail-extractor")
GO: Final = "go"
"""What the report of the slow triage waits for."""
_QUIET_S: Final = 1.0
_names = itertools.count(1)


def manifests(effects_port: int) -> str:
    """Chains of tool steps whose calls are counted, some of which may never be repeated; and a slow triage."""
    documents = [
        counting_tool("count", "idempotent", effects_port),
        counting_tool("count_once", "at_most_once", effects_port),
        _chain("chain", "count"),
        _chain("chain-once", "count_once"),
        {
            "kind": "Agent",
            "metadata": {"name": "noter"},
            "spec": {
                "instructions": "Call the tool count with the run and the step that you are given.",
                "tools": ["count"],
            },
        },
        {
            "kind": "Workflow",
            "metadata": {"name": "noting"},
            "spec": {
                "steps": [
                    {"id": "note", "agent": "noter", "input": {"run": "{{ input.run }}", "step": "note"}},
                    {"id": "last", "tool": "count", "needs": ["note"], "input": _arguments("last")},
                ]
            },
        },
    ]
    own = yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in documents])
    return f"{own}\n---\n{slow_triage()}"


def slow_triage() -> str:
    """The example, with two agents side by side that take two seconds for each reply: time to kill in.

    Its report waits for a signal, so that it has not ended before the test is done with it.
    """
    documents = list(yaml.safe_load_all(triage_text()))
    for one in documents:
        if one["metadata"]["name"] in SLOW:
            one["spec"]["model"] = {"name": "sandbox/slow"}
        if one["kind"] == "Workflow":
            report = next(step for step in one["spec"]["steps"] if step["id"] == "report")
            report["needs"] += [GO]
            one["spec"]["steps"] += [{"id": GO, "wait": {"signal": GO}}]
    return yaml.safe_dump_all(documents)


def counting_tool(name: str, effect: str, port: int, **more: Any) -> dict[str, Any]:
    texts = {"run": {"type": "string"}, "step": {"type": "string"}, "busy": {"type": "integer"}}
    return {
        "kind": "Tool",
        "metadata": {"name": name},
        "spec": {
            "description": "Count a step of a run.",
            "input": {"type": "object", "required": ["run", "step"], "properties": texts},
            "backend": {"type": "http", "url": f"http://127.0.0.1:{port}/effects"},
            "permissions": {"hosts": [f"127.0.0.1:{port}"], "private_networks": True},
            "effect": effect,
            **more,
        },
    }


def _chain(name: str, tool: str) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"id": step, "tool": tool, "input": _arguments(step)} for step in CHAIN]
    for before, step in itertools.pairwise(steps):
        step["needs"] = [before["id"]]
    return {"kind": "Workflow", "metadata": {"name": name}, "spec": {"steps": steps, "output": "{{ steps.s5.output }}"}}


def _arguments(step: str) -> dict[str, str]:
    return {"run": "{{ input.run }}", "step": step}


@dataclass(slots=True)
class Load:
    """Runs under way: names that the counter knows, by run id."""

    system: System
    client: AsyncClient
    triage: str = ""
    chains: dict[str, str] = field(default_factory=dict)
    once: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    _completed: int = 0
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, *, chains: int, once: int, notes: int, held: bool = False) -> None:
        """Start a slow triage and so many others, all at once; with `held`, the triage ends only once it is let go."""
        self.triage = (await self.client.start_run("triage", {"folder": MAILS})).run_id
        if not held:
            await self.let_go()
        self.chains, self.once, self.notes = await asyncio.gather(
            self._start("chain", chains), self._start("chain-once", once), self._start("noting", notes)
        )

    async def _start(self, workflow: str, number: int) -> dict[str, str]:
        names = [f"{workflow}-{next(_names)}" for _ in range(number)]
        started = await asyncio.gather(*(self.client.start_run(workflow, {"run": name}) for name in names))
        return {accepted.run_id: name for accepted, name in zip(started, names, strict=True)}

    async def let_go(self) -> None:
        """Nothing but its work keeps the triage from its end any more."""
        await self.client.signal(self.triage, GO)

    async def saw(self, message: Msg) -> None:
        """Something happened to a run, perhaps the completion of a step."""
        told = EventRecord.model_validate_json(message.data).each()
        self._completed += sum(event.type == "step.completed" for event in told)
        self._progress.set()

    async def progress(self, steps: int) -> None:
        """Wait until so many steps have completed, or there is nothing left to complete."""
        while self._completed < steps:
            self._progress.clear()
            try:
                async with asyncio.timeout(_QUIET_S):
                    await self._progress.wait()
            except TimeoutError:  # events that were published while the watcher was cut off are not repeated to it
                if await self._recount():
                    return

    async def _recount(self) -> bool:
        """Count what has completed by asking; whether all runs have ended."""
        runs = await asyncio.gather(*(self.client.get_run(run_id) for run_id in self._ids()))
        done = sum(step.status is StepStatus.COMPLETED for run in runs for step in run.steps)
        self._completed = max(self._completed, done)
        return all(run.run.status.terminal for run in runs)

    async def ended(self) -> None:
        """Wait for all."""
        await asyncio.gather(*(self.client.wait(run_id) for run_id in self._ids()))

    async def check(self) -> dict[str, list[EventRecord]]:
        """Wait for all, and hold them to what was promised; the histories, by run id."""
        ended = await asyncio.gather(*(self.client.wait(run_id) for run_id in self._ids()))
        for run in ended:
            self._check_end(run)
        histories = await asyncio.gather(*(assert_sound(self.client, run_id) for run_id in self._ids()))
        self._check_effects({run.run.run_id: run for run in ended})
        return {events[0].id: events for events in histories}

    def _ids(self) -> tuple[str, ...]:
        return (self.triage, *self.chains, *self.once, *self.notes)

    def _check_end(self, run: RunView) -> None:
        """All completed, but for those whose call may have been made and must not be made again."""
        if run.run.run_id in self.once and run.run.status is RunStatus.FAILED:
            assert run.error is not None
            assert run.error.code == "effect_in_doubt", run.error
            return
        assert run.run.status is RunStatus.COMPLETED, (run.run, run.error)

    def _check_effects(self, runs: dict[str, RunView]) -> None:
        effects = self.system.effects
        for run_id, name in self.chains.items():
            assert runs[run_id].output == {"done": "s5"}
            assert_one_key_each(effects.keys_by_step(name), CHAIN)
        for name in self.notes.values():
            assert_one_key_each(effects.keys_by_step(name), ("note", "last"))
        for run_id, name in self.once.items():
            times = effects.times_by_step(name)
            assert set(times.values()) <= {1}, (name, times)
            if runs[run_id].run.status is RunStatus.COMPLETED:
                assert set(times) == set(CHAIN)


def assert_one_key_each(keys: dict[str, set[str | None]], steps: tuple[str, ...]) -> None:
    """Each step had one effect: all its calls came with the same key, which no other step has."""
    assert set(keys) == set(steps)
    seen = [key for of_step in keys.values() for key in of_step]
    assert None not in seen
    assert len(set(seen)) == len(seen) == len(steps), keys


@asynccontextmanager
async def loaded(system: System) -> AsyncIterator[Load]:
    """A load that follows its own progress on the event subjects."""
    await asyncio.to_thread(system.apply, manifests(system.effects.port))
    async with system.client() as client:
        load = Load(system, client)
        async with events_told(system, load.saw):
            yield load


@asynccontextmanager
async def events_told(system: System, saw: Callable[[Msg], Awaitable[None]]) -> AsyncIterator[None]:
    """Within, `saw` is called with each event of a run, whatever is killed meanwhile."""
    async with await nats.connect(system.stack.nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.1) as watcher:
        await watcher.subscribe("paracle.v1.default.evt.run.*.*", cb=saw)
        await flushed(watcher)
        yield


def ended_at(events: list[EventRecord]) -> datetime:
    """When the run's last event happened."""
    return events[-1].at
