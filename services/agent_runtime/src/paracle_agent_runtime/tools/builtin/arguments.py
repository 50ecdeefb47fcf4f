"""Arguments of builtin functions, taken out with their types checked: a manifest's schema may be looser than ours."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from paracle_domain.errors import Finding, InputInvalid, field_path, quote
from paracle_domain.messages import JsonObject
from paracle_domain.names import suggest
from paracle_domain.wording import wording


class Arguments(BaseModel):
    """Base of a function's arguments; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def take(cls, given: JsonObject) -> Self:
        """The arguments in `given`.

        Raises
        ------
        InputInvalid
            If one is missing, unknown or of the wrong type.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            findings = [cls._finding(item) for item in error.errors(include_url=False)]
            raise InputInvalid.many("arguments", findings) from error

    @classmethod
    def _finding(cls, item: ErrorDetails) -> Finding:
        """Models are told the message alone, so it names the argument."""
        where = field_path(item["loc"])
        match item["type"]:
            case "extra_forbidden":
                message = f"there is no argument {quote(where)}{suggest(where, cls.model_fields)}"
            case "missing":
                message = f"{where} is required"
            case _:
                message = f"{where}: {wording(item)}" if where else wording(item)
        return Finding(path=where, message=message)
