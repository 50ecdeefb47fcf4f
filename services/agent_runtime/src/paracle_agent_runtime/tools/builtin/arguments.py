"""Arguments of builtin functions, taken out with their types checked: a manifest's schema may be looser than ours."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from paracle_domain.errors import Finding, InputInvalid, field_path
from paracle_domain.messages import JsonObject


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
            findings = [Finding(path=field_path(e["loc"]), message=e["msg"]) for e in error.errors(include_url=False)]
            raise InputInvalid.many("arguments", findings) from error
