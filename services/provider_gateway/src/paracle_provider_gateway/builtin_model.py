"""Why there may be no built-in model for embeddings, and what to do then: it has no wheel for some systems."""

from __future__ import annotations

import platform
import sys
from typing import Final

_ELSEWHERE: Final = (
    "name a model of a provider, such as openai/text-embedding-3-small, or of an Ollama of your own "
    "(a manifest of kind Provider with preset: ollama)"
)


def has_wheel(system: str, machine: str, python: tuple[int, int]) -> bool:
    """Whether the extra `local` brings the model there: what `pyproject.toml` says of it."""
    return python < (3, 14) and (system != "linux" or machine == "x86_64")


def way_out(
    system: str = sys.platform, machine: str | None = None, python: tuple[int, int] = sys.version_info[:2]
) -> str:
    """Why the model is not here, and what to do."""
    machine = platform.machine() if machine is None else machine
    if has_wheel(system, machine, python):
        return (
            "the provider gateway was installed without its model; "
            f"install paracle-provider-gateway[local], or {_ELSEWHERE}"
        )
    where = f"{system} on {machine} with Python {python[0]}.{python[1]}"
    return f"there is no wheel of the built-in model for {where}; {_ELSEWHERE}"
