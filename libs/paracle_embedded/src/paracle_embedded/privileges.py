"""PostgreSQL refuses to run as root; containers often have nothing else. How to run it all the same.

Three cases: we are not root, and there is nothing to do; we are root and may enter a user namespace, in which
PostgreSQL has no privileges while files of root stay its own; or we are root, may not, and run it as `nobody`
with a data directory that is given to `nobody`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from paracle_embedded.server import ServerFailed

_FALLBACK_USER: Final = "nobody"
_ENTER: Final = "import os, sys; os.unshare(os.CLONE_NEWUSER); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Privileges:
    """How to start a program that must not be root: with `prefix` before its arguments, as `user`."""

    prefix: tuple[str, ...] = ()
    user: str | None = None

    def give(self, directory: Path) -> None:
        """Make `directory` belong to the user that the program runs as."""
        if self.user is None:
            return
        for path in (directory, *directory.rglob("*")):
            shutil.chown(path, self.user)


def unprivileged(*, program: Path, data_dir: Path) -> Privileges:
    """How to run `program` on `data_dir` without being root.

    Raises
    ------
    ServerFailed
        If we are root, user namespaces are not permitted, and `nobody` cannot reach the program or the data.
    """
    if os.geteuid() != 0:
        return Privileges()
    if _namespaces_permitted():
        return Privileges(prefix=(sys.executable, "-I", "-S", "-c", _ENTER))
    for path in (program, data_dir):
        if not _reachable(path):
            message = (
                f"PostgreSQL does not run as root; user namespaces are not permitted here, and the user "
                f"{_FALLBACK_USER!r} cannot reach {path}. Run as another user, or move it to where all may read"
            )
            raise ServerFailed(message)
    return Privileges(user=_FALLBACK_USER)


@cache
def _namespaces_permitted() -> bool:
    if not hasattr(os, "unshare"):
        return False
    return _succeeds([sys.executable, "-I", "-S", "-c", "import os; os.unshare(os.CLONE_NEWUSER)"])


def _reachable(path: Path) -> bool:
    test = "import os, sys; sys.exit(not os.access(sys.argv[1], os.X_OK))"
    return _succeeds([sys.executable, "-I", "-S", "-c", test, str(path)], user=_FALLBACK_USER)


def _succeeds(argv: list[str], *, user: str | None = None) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            argv, check=False, user=user, stdin=subprocess.DEVNULL, capture_output=True, timeout=10
        )
    except (OSError, KeyError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
