"""Values that nest."""

from __future__ import annotations

from pydantic import JsonValue


def nested(levels: int) -> JsonValue:
    """So many lists in one another."""
    value: JsonValue = 1
    for _ in range(levels):
        value = [value]
    return value
