"""PostgreSQL refuses to run as root; containers often have nothing else. How to run it all the same.

Three cases: we are not root, and there is nothing to do; we are root and may enter a user namespace, in which
PostgreSQL has no privileges while files of root stay its own; or we are root, may not, and run it as `nobody`
with a data directory that is given to `nobody`.
"""

from __future__ import annotations

import os
import pwd
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
        """Make `directory` belong to the user that the program runs as, if it does not yet; only root can."""
        owner = os.geteuid() if self.user is None else pwd.getpwnam(self.user).pw_uid
        if os.geteuid() != 0 or directory.stat().st_uid == owner:
            return
        for path in (directory, *directory.rglob("*")):
            os.chown(path, owner, -1, follow_symlinks=False)


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
    # a shell, since our interpreter itself may be out of that user's reach
    return _succeeds(["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)], user=_FALLBACK_USER)


def _succeeds(argv: list[str], *, user: str | None = None) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs
            argv, check=False, user=user, stdin=subprocess.DEVNULL, capture_output=True, timeout=10
        )
    except (OSError, KeyError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
