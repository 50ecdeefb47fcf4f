"""Orders that go to whatever meets their conditions, of which none may be lost.

Elsewhere readers ignore fields that they do not know. In such an order an unknown field is a condition that was meant,
misspelt or of a newer writer, and without it the order would go to more than that.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from pydantic_core import from_json

from paracle_domain.errors import InvalidInput, quote
from paracle_domain.names import suggest


def require_known(body: bytes, read: BaseModel) -> None:
    """Refuse fields of the JSON object `body`, and of objects in it, that there are not in `read`, decoded from it.

    Raises
    ------
    InvalidInput
        With the path of the first such field, and the names that may have been meant.
    """
    _require(from_json(body), read, "")


def _require(given: Mapping[str, object], read: BaseModel, place: str) -> None:
    known = type(read).model_fields
    for name, value in given.items():
        if name not in known:
            raise InvalidInput(f"there is no field {quote(name)}{suggest(name, known)}", path=f"{place}{name}")
        part = getattr(read, name)
        if isinstance(part, BaseModel) and isinstance(value, Mapping):
            _require(value, part, f"{place}{name}.")
