"""How much memory this process has in use, and giving back what it does not need."""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress
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


def give_back() -> None:
    """Let the system have what was freed: the C library keeps it otherwise, and the process looks as large as ever."""
    gc.collect()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
