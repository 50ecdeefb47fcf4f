"""Tools that a process of the test answers, while it or NATS is killed in the middle of a call."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.world import ROOT, System

from paracle_chassis.testing.eventually import eventually
from paracle_domain.run.commands import RunStatus

EXAMPLE = ROOT / "examples" / "workers"
# It notes each call as soon as it comes, and answers once the gate is open.
PROGRAM = '''
import asyncio, pathlib, sys
from paracle_client.worker import ToolCall, Worker

here = pathlib.Path(sys.argv.pop()) if sys.argv[-1] != "manifests" else None
worker = Worker()

@worker.tool(effect=EFFECT)
async def NAME(order: str, call: ToolCall) -> str:
    """Take an order."""
    with (here / f"{order}.calls").open("a") as notes:
        notes.write(f"{call.key}\\n")
    while not (here / "gate").exists():
        await asyncio.sleep(0.02)
    return order

worker.main()
'''
WORKFLOW = """
apiVersion: paracle/v1
kind: Workflow
metadata: {name: by-NAME}
spec:
  steps: [{id: one, tool: NAME, input: {order: "{{ input.order }}"}, retry: {max_attempts: 20}}]
  output: "{{ steps.one.output }}"
"""


class Desk:
    """Where workers of the test note their calls, and wait."""

    def __init__(self, system: System, root: Path, effect: str) -> None:
        self.name = f"take_{effect}"
        self._system, self._root = system, root
        self._program = root / "tools.py"
        text = PROGRAM.replace("EFFECT", repr(effect)).replace("NAME", self.name)
        self._program.write_text(text, encoding="utf-8")

    def apply(self) -> None:
        self._system.apply(manifests(self._program) + "\n---\n" + WORKFLOW.replace("NAME", self.name))

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        with running(self._system, self._program, str(self._root)) as process:
            yield process

    def keys(self, order: str) -> list[str]:
        notes = self._root / f"{order}.calls"
        return notes.read_text(encoding="utf-8").split() if notes.exists() else []

    def open(self) -> None:
        (self._root / "gate").touch()


def manifests(program: Path) -> str:
    """What it says that it serves."""
    return subprocess.run([sys.executable, program, "manifests"], capture_output=True, text=True, check=True).stdout


@contextmanager
def running(
    system: System, program: Path, *arguments: str, log: Path = Path(os.devnull)
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"PARACLE_NATS_URL": system.stack.nats_url, "PATH": "/usr/bin:/bin"}
    with (
        log.open("wb") as errors,
        subprocess.Popen([sys.executable, program, *arguments], env=environment, stderr=errors) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


async def test_a_worker_that_is_killed_is_asked_again_with_the_same_key(system: System, tmp_path: Path) -> None:
    desk = Desk(system, tmp_path, "idempotent")
    await asyncio.to_thread(desk.apply)
    async with system.client() as client, asyncio.timeout(90):
        with desk.worker() as process:
            accepted = await client.start_run(f"by-{desk.name}", {"order": "a1"})
            await eventually(lambda: desk.keys("a1"), within_s=30)
            process.kill()
        desk.open()
        with desk.worker():
            ended = await client.wait(accepted.run_id)
    assert (ended.run.status, ended.output) == (RunStatus.COMPLETED, "a1")
    assert len(desk.keys("a1")) >= 2
    assert len(set(desk.keys("a1"))) == 1
    assert desk.keys("a1")[0].startswith("eff_")


async def test_what_must_not_be_done_twice_is_in_doubt_after_a_kill(system: System, tmp_path: Path) -> None:
    desk = Desk(system, tmp_path, "at_most_once")
    await asyncio.to_thread(desk.apply)
    async with system.client() as client, asyncio.timeout(90):
        with desk.worker() as process:
            accepted = await client.start_run(f"by-{desk.name}", {"order": "b1"})
            await eventually(lambda: desk.keys("b1"), within_s=30)
            process.kill()
        desk.open()
        with desk.worker():
            ended = await client.wait(accepted.run_id)
    assert ended.run.status is RunStatus.FAILED
    assert ended.error is not None
    assert ended.error.code == "effect_in_doubt"
    assert len(desk.keys("b1")) == 1


async def test_an_answer_outlives_nats(system: System, tmp_path: Path) -> None:
    desk = Desk(system, tmp_path, "at_most_once")
    await asyncio.to_thread(desk.apply)
    async with system.client() as client, asyncio.timeout(90):
        with desk.worker():
            accepted = await client.start_run(f"by-{desk.name}", {"order": "c1"})
            await eventually(lambda: desk.keys("c1"), within_s=30)
            system.stack.kill("nats")
            await asyncio.to_thread(system.stack.start, "nats")
            desk.open()
            ended = await client.wait(accepted.run_id)
    assert (ended.run.status, ended.output) == (RunStatus.COMPLETED, "c1")
    assert len(desk.keys("c1")) == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_example_works_as_it_stands(system: System, workers: int, tmp_path: Path) -> None:
    program = EXAMPLE / "tools.py"
    workflow = (EXAMPLE / "workflow.yaml").read_text(encoding="utf-8")
    await asyncio.to_thread(lambda: system.apply(manifests(program) + "\n---\n" + workflow))
    logs = tmp_path / "one.log", tmp_path / "other.log"
    with running(system, program, log=logs[0]) as one, running(system, program, log=logs[1]) as other:
        await eventually(lambda: all("serving" in log.read_text(encoding="utf-8") for log in logs), within_s=30)
        if workers == 1:
            other.terminate()
            assert await asyncio.to_thread(other.wait, 30) == 0
        run = await system.run("word-ticket", {"text": "to be or not to be to whom"})
        one.terminate()
        assert await asyncio.to_thread(one.wait, 30) == 0
    assert (run.run.status, run.output) == (RunStatus.COMPLETED, "T-1"), run.error
