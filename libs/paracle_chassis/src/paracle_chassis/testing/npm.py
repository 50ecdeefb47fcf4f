"""Programs that others wrote in JavaScript, pinned and installed from npm for tests that have the marker `node`."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from paracle_chassis.testing.eventually import eventually

ABSENT: Final = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
_INSTALL: Final = ("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
_INSTALL_S: Final = 100.0


def needs_node() -> list[pytest.MarkDecorator]:
    """The marks of a module whose tests run such a program."""
    reason = f"{' and '.join(ABSENT)} not on the PATH"
    return [pytest.mark.node, pytest.mark.skipif(bool(ABSENT), reason=reason)]


def installed(package: Path, home: Path) -> Path:
    """The folder of the one dependency of `package` (a `package.json`), installed in `home` unless it is there already.

    Test processes that want it at once wait for one another.
    """
    wanted = package.read_text(encoding="utf-8")
    name: str
    (name,) = json.loads(wanted)["dependencies"]
    home.mkdir(parents=True, exist_ok=True)
    done = home / "installed"  # written last: what was broken off is begun again
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text(encoding="utf-8") != wanted:
            shutil.copyfile(package, home / "package.json")
            told = subprocess.run(_INSTALL, cwd=home, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
            assert told.returncode == 0, f"npm cannot install {name}: {told.stderr or told.stdout}"
            done.write_text(wanted, encoding="utf-8")
    return home / "node_modules" / name


@asynccontextmanager
async def serving(program: Path, port: int, *arguments: str) -> AsyncIterator[None]:
    """Within, Node.js runs `program`, which listens on `port` of the loopback interface."""
    process = await asyncio.create_subprocess_exec("node", str(program), *arguments)

    async def listening() -> bool:
        assert process.returncode is None, f"{program.name} ended with {process.returncode}"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    try:
        await eventually(listening)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
