"""How much memory this process has in use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from paracle_domain.errors import InvalidInput

_STATM: Final = Path("/proc/self/statm")
_MIB: Final = 1 << 20


def resident_mb() -> int:
    """Memory of this process that is in use (its resident set), in MiB; 0 where the system has no /proc."""
    if not _STATM.exists():
        return 0
    pages = int(_STATM.read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // _MIB


def require_measurable() -> None:
    """Refuse a ceiling that nobody would watch.

    Raises
    ------
    InvalidInput
        If the system does not say how much memory a process has in use.
    """
    if resident_mb() == 0:
        raise InvalidInput("this system has no /proc/self/statm, so PARACLE_MEMORY_CEILING_MB cannot be kept; unset it")
