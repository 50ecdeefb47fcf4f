"""Names of what this service says of itself."""

from __future__ import annotations

from typing import Final

SOURCE: Final = "paracle/registry"
