"""Imports every module that declares messages, so that `CATALOG` is complete."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

import paracle_domain
from paracle_domain.messages import CATALOG, Message

_RUN_AS_SCRIPT: Final = frozenset({"paracle_domain.schema"})


def complete_catalog() -> dict[str, type[Message]]:
    """All messages of the contract, by type name."""
    for module in pkgutil.walk_packages(paracle_domain.__path__, "paracle_domain."):
        if module.name not in _RUN_AS_SCRIPT:
            importlib.import_module(module.name)
    ours = f"{paracle_domain.__name__}."
    return {name: kind for name, kind in sorted(CATALOG.items()) if kind.__module__.startswith(ours)}
