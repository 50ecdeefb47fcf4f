"""Processes and their descendants, as /proc shows them."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_ROUNDS: Final = 1_000
_GONE: Final = (FileNotFoundError, ProcessLookupError)


@asynccontextmanager
async def started(
    *argv: str, handles: Sequence[int] = (), folder: Path = Path("/"), environment: Mapping[str, str]
) -> AsyncIterator[Process]:
    """A process, which has ended with all that it began when the context is left, however that happens."""
    start = asyncio.create_subprocess_exec(
        *argv,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=handles,
        cwd=folder,
        env=dict(environment),
        start_new_session=True,
    )
    starting = asyncio.ensure_future(start)
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        kill_family(process.pid)
    # asyncio takes a process for ended once its pipes are read to their end
    await asyncio.gather(_discard(process.stdout), _discard(process.stderr), process.wait())


async def _discard(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(65_536):
        pass


def family(pid: int, *, most: int | None = None) -> list[int]:
    """The living descendants of `pid`; the search stops at more than `most`."""
    found: list[int] = []
    ahead = [pid]
    while ahead and (most is None or len(found) <= most):
        for child in _children(ahead.pop()):
            if not _is_zombie(child):
                found.append(child)
            ahead.append(child)
    return found


def resident(pids: Sequence[int]) -> int:
    """Bytes of memory that `pids` hold."""
    total = 0
    for pid in pids:
        with suppress(*_GONE):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return total


def kill_family(pid: int) -> None:
    """Kill the descendants of `pid`, held still first so that they make no more, and then `pid`.

    Its children go first: one of them is the first process of a namespace, if there is one, and takes all others along.
    """
    for child in _children(pid):
        _send(child, signal.SIGKILL)
    empty = 0  # one look misses a process whose parent dies meanwhile: it is handed on to one that was looked at before
    for _ in range(_ROUNDS):
        living = family(pid)
        empty = 0 if living else empty + 1
        if empty > 1:
            break
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for one in living:
                _send(one, number)
    _send(pid, signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(*_GONE):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    with suppress(*_GONE):
        return [int(child) for tasks in _tasks(pid) for child in tasks.read_text().split()]
    return []


def _tasks(pid: int) -> list[Path]:
    return [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]


def _is_zombie(pid: int) -> bool:
    with suppress(*_GONE):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    return True
