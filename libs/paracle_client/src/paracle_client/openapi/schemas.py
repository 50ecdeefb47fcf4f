"""Schemas of an OpenAPI document as JSON Schemas that stand for themselves.

References are inlined; those that lead back to themselves are in `$defs`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal

from paracle_client.openapi.document import Document, Inexpressible, mapping, names

type Direction = Literal["request", "response"]

_NODES: Final = 20_000
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS: Final = frozenset(
    {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_DROPPED: Final = frozenset(
    {
        "example",
        "examples",
        "xml",
        "externalDocs",
        "discriminator",
        "nullable",
        "readOnly",
        "writeOnly",
        "$schema",
        "$id",
    }
)
_BESIDE: Final = frozenset({"title", "description", "deprecated", "default"})
"""What may stand beside a `$ref` and only explains it."""


class SchemaReader:
    """Reads one schema. `direction` says which properties are of no concern: those that only the other side sends."""

    def __init__(self, document: Document, direction: Direction, path: str) -> None:
        self._document = document
        self._hidden = "readOnly" if direction == "request" else "writeOnly"
        self._path = path
        self._open: list[str] = []
        self._recursive: set[str] = set()
        self._nodes = 0

    def read(self, schema: Any) -> dict[str, Any]:
        """`schema` with all that it refers to.

        Raises
        ------
        Inexpressible
            If a reference leads nowhere, or it is too large.
        """
        found = self._read(schema)
        definitions: dict[str, Any] = {}
        while missing := sorted(self._recursive - {*definitions}):
            for reference in missing:
                self._open = [reference]
                definitions[reference] = self._read(self._document.target(reference, self._path))
        if definitions:
            found["$defs"] = {_name(reference): found for reference, found in definitions.items()}
        return found

    def _read(self, schema: Any) -> dict[str, Any]:
        self._nodes += 1
        if self._nodes > _NODES:
            raise Inexpressible(self._path, f"its schema has more than {_NODES:,} parts")
        if isinstance(schema, bool):
            return {} if schema else {"not": {}}
        reference = mapping(schema).get("$ref")
        if isinstance(reference, str):
            return self._refer(reference, mapping(schema))
        found = {
            key: self._value(key, value)
            for key, value in mapping(schema).items()
            if key not in _DROPPED and not key.startswith("x-")
        }
        self._hide(found, mapping(schema))
        return _modern(found, mapping(schema)) if self._document.is_30 else found

    def _refer(self, reference: str, schema: dict[str, Any]) -> dict[str, Any]:
        if reference in self._open:
            self._recursive.add(reference)
            return {"$ref": f"#/$defs/{_name(reference)}"}
        self._open.append(reference)
        found = self._read(self._document.target(reference, self._path))
        self._open.pop()
        beside = {} if self._document.is_30 else {key: value for key, value in schema.items() if key != "$ref"}
        if {*beside} <= _BESIDE:
            return {**found, **beside}
        return {"allOf": [found, self._read(beside)]}

    def _value(self, key: str, value: Any) -> Any:
        if key in _MAPS:
            return {name: self._read(schema) for name, schema in mapping(value).items()}
        if key in _LISTS:
            return [self._read(schema) for schema in value] if isinstance(value, list) else []
        if key in _SCHEMAS:
            return value if isinstance(value, bool) else self._read(value)
        return json.loads(json.dumps(value))  # a copy: nothing of the document is shared, which YAML would show

    def _hide(self, found: dict[str, Any], schema: dict[str, Any]) -> None:
        """Take out the properties that only the other side sends."""
        properties = mapping(schema.get("properties"))
        hidden = {name for name, one in properties.items() if self._is_hidden(one)}
        if not hidden:
            return
        found["properties"] = {name: one for name, one in found["properties"].items() if name not in hidden}
        required = [name for name in names(found.pop("required", None)) if name not in hidden]
        if required:
            found["required"] = required

    def _is_hidden(self, schema: Any) -> bool:
        reference = mapping(schema).get("$ref")
        if isinstance(reference, str):
            schema = self._document.target(reference, self._path)
        return mapping(schema).get(self._hidden) is True


def _modern(found: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI 3.0 says in its own way, as JSON Schema says it."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        is_exclusive = found.pop(exclusive, False) if isinstance(found.get(exclusive), bool) else False
        if is_exclusive and bound in found:
            found[exclusive] = found.pop(bound)
    if schema.get("nullable") is not True:
        return found
    if isinstance(found.get("enum"), list) and None not in found["enum"]:
        found["enum"] = [*found["enum"], None]
    if isinstance(found.get("type"), str):
        return {**found, "type": [found["type"], "null"]}
    return {"anyOf": [found, {"type": "null"}]} if {"allOf", "anyOf", "oneOf"} & {*found} else found


def _name(reference: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", reference.rpartition("/")[2])
