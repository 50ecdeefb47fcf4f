"""What the tests of the repository's shape look at."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SERVICES: Final = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").is_file())
LIBS: Final = sorted(path.name for path in (ROOT / "libs").iterdir() if (path / "pyproject.toml").is_file())


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git knows, as far as it is still there; links and binaries are left out."""
    told = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = (ROOT / name for name in told.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def text(path: Path) -> str:
    """The file's text; bytes that are not UTF-8 do not matter here."""
    return path.read_text(encoding="utf-8", errors="replace")
