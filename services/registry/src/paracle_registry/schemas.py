"""JSON Schemas in manifests: whether they are valid, and what can be known of values before anything runs.

References lead nowhere outside their own schema: nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import jsonschema_rs
from pydantic import JsonValue

from paracle_domain.errors import Finding, field_path, quote
from paracle_domain.expressions import texts
from paracle_domain.messages import JsonObject
from paracle_registry.unfolding import MOST_UNFOLDED, unfolded

_MAX_FINDINGS: Final = 10
_COMPOSERS: Final = frozenset({"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "patternProperties"})


def check_schema(schema: JsonObject, path: str) -> Iterator[Finding]:
    """What is wrong with `schema` as a JSON Schema."""
    try:
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.validator_for(schema, offline=True)
    except jsonschema_rs.ValidationError as error:
        yield Finding(path=field_path(error.instance_path, path), message=f"no valid JSON Schema: {error.message}")
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        yield Finding(path=path, message=f"no valid JSON Schema: {error}")
    else:
        if unfolded(schema) > MOST_UNFOLDED:
            yield Finding(
                path=path,
                message=f"its references unfold to more than {MOST_UNFOLDED:,} schemas, "
                "which takes too long for each value; let fewer of them lead to the same",
            )


def check_value(value: JsonValue, schema: JsonObject, path: str, whose: str) -> Iterator[Finding]:
    """What of `value` (which may hold expressions) can never fit `schema`, the input schema of `whose`."""
    if not any(True for _ in texts(value)):
        yield from _violations(value, schema, path, whose)
    elif isinstance(value, dict):
        yield from _check_fields(value, schema, path, whose)


def _violations(value: JsonValue, schema: JsonObject, path: str, whose: str) -> Iterator[Finding]:
    validator = jsonschema_rs.validator_for(schema, offline=True)
    for count, error in enumerate(validator.iter_errors(value)):
        if count == _MAX_FINDINGS:
            return
        yield Finding(
            path=field_path(error.instance_path, path), message=f"{error.message}, says the input schema of {whose}"
        )


def _check_fields(value: Mapping[str, JsonValue], schema: JsonObject, path: str, whose: str) -> Iterator[Finding]:
    """The fields of an object of which some are expressions, each for itself."""
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in value:
            yield Finding(path=path, message=f"{quote(name)} is required by the input schema of {whose}")
    for name, item in value.items():
        below = f"{path}.{name}"
        inner = properties.get(name)
        if isinstance(inner, dict):
            yield from check_value(item, _with_definitions(inner, schema), below, whose)
        elif (
            name not in properties and schema.get("additionalProperties") is False and "patternProperties" not in schema
        ):
            yield Finding(
                path=below, message=f"the input schema of {whose} has no field {name!r}; it has {_names(properties)}"
            )


def _with_definitions(inner: JsonObject, root: JsonObject) -> JsonObject:
    return {**{key: root[key] for key in ("$defs", "definitions") if key in root}, **inner}


def unknown_part(schema: JsonObject, parts: Sequence[str | int]) -> str | None:
    """Why a value of `schema` has nothing at `parts`, or `None` if it may have."""
    current: Any = schema
    for part in parts:
        if not isinstance(current, dict) or _COMPOSERS & current.keys():
            return None
        if isinstance(part, int):
            current = current.get("items")
            continue
        properties = current.get("properties")
        if isinstance(properties, dict) and part in properties:
            current = properties[part]
        elif _is_closed(current):
            return f"its schema has no field {part!r}; it has {_names(properties or {})}"
        else:
            return None
    return None


def _is_closed(schema: Mapping[str, Any]) -> bool:
    """Whether fields that `schema` does not name are surely mistakes: where some are named and others not invited."""
    more = schema.get("additionalProperties")
    return more is False or ("properties" in schema and more is None)


def _names(properties: Mapping[str, object]) -> str:
    return ", ".join(map(repr, properties)) or "none"
