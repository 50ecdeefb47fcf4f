"""Runs a command of a tool: bounded in time, memory, processes and output, and gone when it ends, however it ends."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from paracle_agent_runtime.tools.outcome import OutcomeUnknownError
from paracle_agent_runtime.tools.permissions import Grants
from paracle_agent_runtime.tools.sandbox import processes
from paracle_agent_runtime.tools.sandbox.bubblewrap import ENVIRONMENT, PYTHON, SCRIPT, Bubblewrap
from paracle_domain.errors import Forbidden, LimitExceeded
from paracle_domain.tool.spec import Execution

_LAUNCHER: Final = resources.files("paracle_agent_runtime.tools.sandbox").joinpath("launcher.py").read_text("utf-8")
_WATCH_S: Final = 0.025
_OPEN_FILES: Final = 256
_OWN_PROCESSES: Final = 2
"""Of bubblewrap, or of the launcher; not the command's."""


@dataclass(frozen=True, slots=True)
class Command:
    """A script and who reads it (`sh`, or a Python), with its arguments and its standard input."""

    reader: tuple[str, ...]
    script: str
    arguments: tuple[str, ...] = ()
    stdin: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended by itself."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class _Start:
    argv: Sequence[str]
    handles: Sequence[int]
    folder: Path
    environment: dict[str, str]


class Commands:
    """Runs commands.

    Parameters
    ----------
    bubblewrap
        What keeps them apart from everything else.
    unsandboxed
        Whether they are run all the same where it does not work, as processes that may do what the runtime may.
    concurrency
        Most commands at the same time; others wait.
    most_memory_mb
        Most memory for one, whatever its manifest says.
    """

    def __init__(
        self, bubblewrap: Bubblewrap, *, unsandboxed: bool = False, concurrency: int = 8, most_memory_mb: int = 1_024
    ) -> None:
        self._bubblewrap = bubblewrap
        self._unsandboxed = unsandboxed
        self._slots = asyncio.Semaphore(concurrency)
        self._most_memory_mb = most_memory_mb

    async def run(self, command: Command, grants: Grants) -> Ended:
        """Run `command` to its end.

        Raises
        ------
        Forbidden
            If the tool may run none, or this machine cannot keep it apart.
        OutcomeUnknownError
            If it took more than it may, and was stopped.
        """
        asked = grants.execution()
        limits = asked.model_copy(update={"memory_mb": min(asked.memory_mb, self._most_memory_mb)})
        async with self._slots, self._start(command, grants, limits) as start:
            begun = processes.started(
                *start.argv, handles=start.handles, folder=start.folder, environment=start.environment
            )
            async with begun as process:
                return await _Running(process, limits).finish(command.stdin.encode("utf-8", "replace"))

    @asynccontextmanager
    async def _start(self, command: Command, grants: Grants, limits: Execution) -> AsyncIterator[_Start]:
        script = command.script.encode("utf-8", "replace")
        program = await self._program()
        if program is None:
            folder = Path(tempfile.mkdtemp(prefix="paracle-tool-"))
            try:
                await asyncio.to_thread((folder / "script").write_bytes, script)
                argv = _launch(command, folder / "script", limits, mode="supervise")
                yield _Start(argv, (), folder, _environment(folder, grants))
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            return
        with ExitStack() as held:
            options, handles = self._bubblewrap.arguments(grants, script, limits.scratch_mb << 20, held)
            argv = [program, *options, "--", *_launch(command, SCRIPT, limits, mode="exec")]
            yield _Start(argv, handles, Path("/"), {})

    async def _program(self) -> str | None:
        """The program that keeps commands apart; `None` if there is none, and they may run without."""
        try:
            return await self._bubblewrap.find()
        except Forbidden:
            if self._unsandboxed:
                return None
            raise


class _Running:
    """A process under watch."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Execution) -> None:
        self._process = process
        self._limits = limits
        self._left = limits.output_bytes

    async def finish(self, stdin: bytes) -> Ended:
        """What it says until it ends, or the limit that it broke."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        watch = asyncio.create_task(self._watch())
        feed = asyncio.create_task(self._feed(stdin))
        drains = [asyncio.create_task(self._drain(pipe)) for pipe in (self._process.stdout, self._process.stderr)]
        work = asyncio.gather(feed, *drains)
        both: set[asyncio.Future[Any]] = {watch, work}
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            stdout, stderr = (drain.result() for drain in drains)
            return Ended(await self._process.wait(), stdout, stderr)
        finally:
            for task in (watch, feed, *drains):  # each: what fails in a group leaves the others at work
                task.cancel()
            await asyncio.gather(watch, work, feed, *drains, return_exceptions=True)

    async def _feed(self, stdin: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(stdin)
            await pipe.drain()
            pipe.close()
            await pipe.wait_closed()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it does not read its input, as it may

    async def _drain(self, stream: asyncio.StreamReader) -> bytes:
        parts = []
        while part := await stream.read(65_536):
            self._left -= len(part)
            if self._left < 0:
                raise _broke(f"wrote more than output_bytes = {self._limits.output_bytes:,}")
            parts.append(part)
        return b"".join(parts)

    async def _watch(self) -> None:
        """Return never, but raise as soon as it has too many processes or too much memory."""
        most = self._limits.processes + _OWN_PROCESSES
        while True:
            await asyncio.sleep(_WATCH_S)
            living = processes.family(self._process.pid, most=most)
            if len(living) > most:
                raise _broke(f"had more than processes = {self._limits.processes} at once")
            if processes.resident(living) > self._limits.memory_mb << 20:
                raise _broke(f"used more than memory_mb = {self._limits.memory_mb}")


def _broke(what: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(LimitExceeded(f"the command {what} and was stopped", path="permissions.execute"))


def _environment(folder: Path, grants: Grants) -> dict[str, str]:
    return {**ENVIRONMENT, "HOME": str(folder), "TMPDIR": str(folder), "FILES": str(grants.bound)}


def _launch(command: Command, script: Path, limits: Execution, *, mode: str) -> list[str]:
    bounds = {
        "RLIMIT_AS": limits.memory_mb << 20,
        "RLIMIT_FSIZE": limits.scratch_mb << 20,
        "RLIMIT_NOFILE": _OPEN_FILES,
        "RLIMIT_CORE": 0,
    }
    if mode == "exec":  # it counts all processes of the user; only those of the sandbox are those of the command
        bounds["RLIMIT_NPROC"] = limits.processes + _OWN_PROCESSES
    order = {"mode": mode, "limits": bounds, "argv": [*command.reader, str(script), *command.arguments]}
    return [str(PYTHON), "-I", "-S", "-c", _LAUNCHER, json.dumps(order)]
