"""Values that are made for every step: frozen for whoever reads and checks the code, plain while it runs.

A frozen dataclass sets each of its fields by a call, since assignment is what it forbids, and takes two to three
times as long to make. A step leads to about fifteen of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import dataclass_transform


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record[T](cls: type[T]) -> type[T]:
    """As `dataclass(frozen=True, slots=True)`, which the type checker holds it to."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
