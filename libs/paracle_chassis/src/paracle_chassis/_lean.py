"""Imports the messaging libraries without what they only optionally use.

nats-py imports aiohttp for its WebSocket transport and FastStream imports uvicorn for its command line, if they are
installed. A service uses neither, and together they are half of the time that a service takes to start. This hides
them from those libraries while they load; whoever needs them afterwards imports them as ever.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_OPTIONAL: Final = ("aiohttp", "uvicorn")


@contextmanager
def without_extras() -> Iterator[None]:
    """Within it, an optional extra that is not loaded yet cannot be imported."""
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to say "not importable"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def load(module: str) -> None:
    """Import `module` leanly; a later plain `import` of it finds it loaded."""
    with without_extras():
        importlib.import_module(module)
