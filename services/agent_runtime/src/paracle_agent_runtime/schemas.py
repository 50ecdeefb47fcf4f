"""JSON Schema: values held against the schemas of a plan, each compiled once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import jsonschema_rs
from pydantic import JsonValue

from paracle_domain.errors import Finding, SpecInvalid, field_path, quote
from paracle_domain.messages import JsonObject
from paracle_domain.strict_json import parse_json, without_fence

_FINDINGS: Final = 20
_SAID: Final = 300

type SchemaKey = tuple[str, str, str]


class Schemas:
    """Compiled schemas by plan digest, name and place; the least recently used are forgotten."""

    def __init__(self, capacity: int = 4_096) -> None:
        self._capacity = capacity
        self._compiled: OrderedDict[SchemaKey, jsonschema_rs.Validator] = OrderedDict()

    def problems(self, key: SchemaKey, schema: JsonObject, value: JsonValue, *, root: str) -> tuple[Finding, ...]:
        """How `value` breaks `schema`, each with its path below `root`; at most twenty.

        Raises
        ------
        SpecInvalid
            If `schema` is none.
        """
        if not schema or schema == {"type": "object"}:
            return () if not schema or isinstance(value, dict) else (Finding(path=root, message="must be an object"),)
        found = []
        for error in self._validator(key, schema).iter_errors(value):
            found.append(Finding(path=field_path(error.instance_path, root), message=_short(error.message)))
            if len(found) == _FINDINGS:
                break
        return tuple(found)

    def _validator(self, key: SchemaKey, schema: JsonObject) -> jsonschema_rs.Validator:
        known = self._compiled.get(key)
        if known is not None:
            self._compiled.move_to_end(key)
            return known
        try:
            made = jsonschema_rs.validator_for(schema, validate_formats=True, offline=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise SpecInvalid(f"the {key[2]} schema of {key[1]!r} is no JSON Schema: {error}") from error
        self._compiled[key] = made
        if len(self._compiled) > self._capacity:
            self._compiled.popitem(last=False)
        return made


def parse_answer(text: str) -> tuple[JsonValue, tuple[Finding, ...]]:
    """A model's answer as JSON, or what is wrong with it. A Markdown fence around it is not held against it."""
    try:
        return parse_json(without_fence(text)), ()
    except ValueError as error:
        return None, (Finding(path="", message=f"it is no JSON ({error}): {quote(text)}"),)


def _short(text: str) -> str:
    """`text`, which quotes the whole value, so that events and prompts can hold it: its beginning, and what it says."""
    return text if len(text) <= _SAID else f"{text[: _SAID // 2]} … {text[-_SAID // 2 :]}"
