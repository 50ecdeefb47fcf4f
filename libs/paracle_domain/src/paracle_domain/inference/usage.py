"""Tokens and money: what a model call, a task, a step or a run used."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final, override

from pydantic import Field, GetJsonSchemaHandler, PlainSerializer, SerializerFunctionWrapHandler, model_serializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from paracle_domain.messages import Value


class Usage(Value):
    """Tokens by kind, calls, and cost in USD.

    `input_tokens` counts all input, what was read from the provider's cache (`cached_tokens`) and what was written to
    it (`cache_write_tokens`) included; `output_tokens` all output, reasoning included.
    `cost_usd` is `None` where any part of it has no known price: unknown, which is not zero.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    cost_usd: Decimal | None = Decimal(0)

    @model_serializer(mode="wrap")
    def _keep_unknown_cost(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Messages leave out what is `None`; a cost left out would be read as the default, so as known to be zero."""
        fields: dict[str, Any] = serialize(self)
        fields.setdefault("cost_usd", None)
        return fields

    @classmethod
    @override
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of the fields; the serializer above changes none of them."""
        return handler({name: part for name, part in schema.items() if name != "serialization"})

    def __add__(self, other: Usage) -> Usage:
        if other.__dict__ == _NONE:  # most often; a whole comparison of models would take ten times as long
            return self
        if self.__dict__ == _NONE:
            return other
        unknown = self.cost_usd is None or other.cost_usd is None
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            model_calls=self.model_calls + other.model_calls,
            tool_calls=self.tool_calls + other.tool_calls,
            cost_usd=None if unknown else (self.cost_usd or Decimal(0)) + (other.cost_usd or Decimal(0)),
        )

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


NOTHING: Final = Usage()
"""What nothing uses: no tokens, no calls, a cost that is known to be zero."""
_NONE: Final = NOTHING.__dict__


def _is_nothing(usage: Usage) -> bool:
    return usage.__dict__ == _NONE


def _what_counts(usage: Usage) -> dict[str, Any]:
    return {name: value for name, value in usage.__dict__.items() if value != _NONE[name]}


Used = Annotated[Usage, Field(exclude_if=_is_nothing), PlainSerializer(_what_counts)]
"""What something that happened used, without what it used nothing of: most steps ask no model."""
