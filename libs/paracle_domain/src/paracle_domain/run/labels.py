"""What people mark runs with, to find them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, StringConstraints

MOST: Final = 50

LabelText = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A label's key or value: short, and on one line."""

Labels = Annotated[dict[LabelText, LabelText], Field(max_length=MOST)]

PROJECT: Final = "project"
"""The label whose value is the project of a run: what its agents spend is accounted under that."""


def project_of(labels: Mapping[str, str]) -> str | None:
    """The project that a run with `labels` belongs to. Child runs have their parent's labels, so its project too."""
    return labels.get(PROJECT)
