"""How bubblewrap is called: a world of its own with the system's programs, a scratch folder, and what was granted.

There is no network, no /proc, no environment and no secret in it, and no process of it outlives it. Granted folders are
handed over as open descriptors, so that nothing put in their place afterwards is what gets mounted.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from paracle_agent_runtime.tools import rooted
from paracle_agent_runtime.tools.permissions import Grants
from paracle_agent_runtime.tools.sandbox import processes
from paracle_domain.errors import Forbidden

FILES: Final = Path("/files")
SCRATCH: Final = Path("/tmp")  # noqa: S108  # within the sandbox, where nobody else is
SCRIPT: Final = Path("/script")
PYTHON: Final = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": str(SCRATCH),
    "FILES": str(FILES),
}
_SYSTEM: Final = tuple(Path(name) for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives"))
_PROBE_S: Final = 10.0


class Bubblewrap:
    """The program, once it has shown that it works on this machine.

    Parameters
    ----------
    program
        Its path; whatever `bwrap` is on the PATH, if absent.
    """

    def __init__(self, program: str | None = None) -> None:
        self._program = program
        self._works: str | None = None

    async def find(self) -> str:
        """The program, which has been tried.

        Raises
        ------
        Forbidden
            If there is none, or this machine does not let it make namespaces.
        """
        if self._works is None:
            program = shutil.which(self._program or "bwrap")
            if program is None:
                raise _refusal(f"bubblewrap ({self._program or 'bwrap'}) is not installed")
            await self._try(program)
            self._works = program
        return self._works

    async def _try(self, program: str) -> None:
        argv = (program, *_WORLD, *_system(), *_end(1 << 20), "--", str(PYTHON), "-I", "-S", "-c", "")
        try:
            async with asyncio.timeout(_PROBE_S), processes.started(*argv, environment={}) as process:
                _, said = await process.communicate()
        except TimeoutError:
            raise _refusal("bubblewrap does not work here (it did not start in time)") from None
        if process.returncode != 0:
            raise _refusal(f"bubblewrap does not work here ({said.decode(errors='replace').strip()[:300]})")

    def arguments(
        self, grants: Grants, script: bytes, scratch_bytes: int, held: ExitStack
    ) -> tuple[list[str], list[int]]:
        """The options of a call, and the descriptors that they name; `held` closes those."""
        mounts, handles = [], []
        for path, writable in _granted(grants):
            handle = held.enter_context(rooted.folder(grants.bound, path))
            handles.append(handle)
            inside = FILES / path.relative_to(grants.bound)
            mounts += ["--bind-fd" if writable else "--ro-bind-fd", str(handle), str(inside)]
        text = held.enter_context(os.fdopen(os.memfd_create("script", 0), "w+b", buffering=0))
        text.write(script)
        text.seek(0)
        data = ["--perms", "0444", "--ro-bind-data", str(text.fileno()), str(SCRIPT)]
        return [*_WORLD, *_system(), *mounts, *data, *_end(scratch_bytes)], [*handles, text.fileno()]


_WORLD: Final = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"),
    *("--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"),
    *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)),
    *("--ro-bind", "/usr", "/usr", "--dev", "/dev"),
)


def _system() -> list[str]:
    """What programs need besides /usr, as this machine has it; and the Python that runs us."""
    words = []
    for path in _SYSTEM:
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        else:
            words += ["--ro-bind-try", str(path), str(path)]
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        words += ["--ro-bind", sys.base_prefix, sys.base_prefix]
    return words


def _end(scratch_bytes: int) -> Sequence[str]:
    """The scratch folder is all that can be written to, besides folders that were granted for it."""
    scratch = str(SCRATCH)
    return [
        "--size",
        str(scratch_bytes),
        "--tmpfs",
        scratch,
        "--remount-ro",
        "/dev",
        "--remount-ro",
        "/",
        "--chdir",
        scratch,
    ]


def _granted(grants: Grants) -> list[tuple[Path, bool]]:
    """Folders and whether they may be written to, those further up first, since they would hide what they hold."""
    writable = set(grants.roots(write=True))
    folders = {path for path in grants.roots() if path.is_dir()}
    return [(path, path in writable) for path in sorted(folders, key=lambda path: len(path.parts))]


def _refusal(why: str) -> Forbidden:
    return Forbidden(
        f"commands are not run on this machine: {why}. Make it work, or, if you trust all that tools run, set "
        "PARACLE_UNSANDBOXED_EXECUTION=true for the agent runtime",
        path="permissions.execute",
    )
