"""A value for a JSON Schema that says something sensible about a matter.

Followed: type, enum, const, properties, required, additionalProperties, items, prefixItems, the bounds of lengths,
numbers and counts, uniqueItems, multipleOf, pattern, format, $ref, allOf, anyOf, oneOf. Not followed: not, if,
dependent*, contains, patternProperties, propertyNames, unevaluated*.
"""

from __future__ import annotations

import json
from typing import Any, Final

import jsonschema_rs

from paracle_domain.messages import JsonObject
from paracle_provider_gateway.sandbox import language, report
from paracle_provider_gateway.sandbox.classify import choose, is_true, name_words, sentiment
from paracle_provider_gateway.sandbox.fields import lookup
from paracle_provider_gateway.sandbox.numbers import fit_integer, fit_number
from paracle_provider_gateway.sandbox.reading import Matter, Record, identity
from paracle_provider_gateway.sandbox.strings import FOUND_AS, fit
from paracle_provider_gateway.sandbox.summary import LEVELS, level, overview, summarise

_DEEPEST: Final = 12
_OPTIONAL_DEPTH: Final = 6
_RETELLING: Final = frozenset({"summary", "overview", "abstract", "synopsis", "gist", "tldr", "report", "conclusion"})
_TITLING: Final = frozenset({"title", "headline", "heading"})
_SUMMARY: Final = 200
_COUNTING: Final = frozenset({"count", "total", "number", "num", "size", "quantity"})
_GUESSING: Final = frozenset({"confidence", "certainty", "probability", "likelihood", "score"})
_CONFIDENCE: Final = 0.8


class Synthesis:
    """Makes values for the schemas within one root schema (which holds the `$defs`)."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def value(self, schema: Any, matter: Matter, name: str = "", depth: int = 0) -> Any:
        """A value that `schema`, which stands under `name`, allows."""
        flat = self._flatten(schema)
        if "const" in flat:
            return flat["const"]
        copied = self._copied(flat, matter, name)
        if copied is not None:
            return copied
        if isinstance(options := flat.get("enum"), list) and options:
            return choose([option for option in options if self.valid(option, flat)] or options, matter)
        for key in ("anyOf", "oneOf"):
            if isinstance(branches := flat.get(key), list) and branches:
                return self._branch(flat, key, branches, matter, name, depth)
        return self._typed(_type_of(flat), flat, matter, name, depth)

    def valid(self, value: Any, schema: JsonObject) -> bool:
        """Whether `schema`, a part of the root, allows `value`."""
        text = json.dumps(schema, sort_keys=True)
        if text not in self._validators:
            definitions: JsonObject = {key: self._root[key] for key in ("$defs", "definitions") if key in self._root}
            self._validators[text] = jsonschema_rs.validator_for({**definitions, **schema}, validate_formats=True)
        return self._validators[text].is_valid(value)

    def _typed(self, kind: str, schema: JsonObject, matter: Matter, name: str, depth: int) -> Any:
        match kind:
            case "object":
                return self._object(schema, matter, name, depth)
            case "array":
                return self._array(schema, matter, name, depth)
            case "string":
                return self._string(schema, matter, name)
            case "integer":
                return fit_integer(self._count(matter, name) + matter.nth, schema)
            case "number":
                return fit_number(self._measure(matter, name) + matter.nth, schema)
            case "boolean":
                return is_true(name, matter) ^ bool(matter.nth % 2)
            case _:
                return None

    def _object(self, schema: JsonObject, matter: Matter, name: str, depth: int) -> Record:
        properties = _mapping(schema.get("properties"))
        required = [key for key in _list(schema.get("required")) if isinstance(key, str)]
        wanted = list(properties) if depth < _OPTIONAL_DEPTH else [key for key in properties if key in required]
        most = _whole(schema.get("maxProperties"), len(wanted) + len(required))
        ordered = sorted(wanted, key=lambda key: key not in required)[:most]
        found = {
            key: self.value(properties[key], matter, key, depth + 1)
            for key in properties
            if key in ordered and properties[key] is not False and depth < _DEEPEST
        }
        extra = schema.get("additionalProperties", True)
        for key in (key for key in required if key not in found):
            found[key] = self.value(properties.get(key, extra), matter, key, depth + 1)
        if extra is not False:
            self._extend(found, schema, matter, name, depth)
        return found

    def _extend(self, found: Record, schema: JsonObject, matter: Matter, name: str, depth: int) -> None:
        """Fill an object that is a map: with counts, where it counts something, or else as far as it must be."""
        extra = schema.get("additionalProperties")
        room = _whole(schema.get("maxProperties"), 1_000) - len(found)
        if isinstance(extra, dict) and self.valid(1, extra) and not found:
            found.update((k, v) for k, v in list(report.counts(matter, name).items())[:room] if self.valid(v, extra))
        number = 0
        while len(found) < _whole(schema.get("minProperties"), 0):
            number += 1
            found.setdefault(f"item_{number}", self.value(extra, matter.again(number), "", depth + 1))

    def _array(self, schema: JsonObject, matter: Matter, name: str, depth: int) -> list[Any]:
        prefix = _list(schema.get("prefixItems"))
        found = [self.value(item, matter, name, depth + 1) for item in prefix]
        least, most = _whole(schema.get("minItems"), 0), schema.get("maxItems")
        limit = most if isinstance(most, int) else max(1_000, least)
        items = schema.get("items", True)
        unique = schema.get("uniqueItems") is True
        matters = self._matters(items, matter, name, depth)
        for about in matters[: max(0, limit - len(found))] if items is not False else []:
            _add(found, self.value(items, about, report.member_name(name), depth + 1), unique=unique)
        return self._padded(found[:limit], items, matter, least, unique=unique, depth=depth)

    def _padded(
        self, found: list[Any], items: Any, matter: Matter, least: int, *, unique: bool, depth: int
    ) -> list[Any]:
        nth = 0
        while len(found) < least and nth < least * 4 + 8:
            nth += 1
            _add(found, self.value(items, matter.again(nth), "", depth + 1), unique=unique)
        return found

    def _matters(self, items: Any, matter: Matter, name: str, depth: int) -> list[Matter]:
        """What the members of an array are each about."""
        if depth >= _OPTIONAL_DEPTH:
            return []
        flat = self._flatten(items)
        if "enum" in flat:
            return [matter]
        if _type_of(flat) == "object":
            return report.members(matter, name)
        if _type_of(flat) == "string":
            return report.lines(matter, name)
        return [Matter.of(record) for record in matter.records]

    def _string(self, schema: JsonObject, matter: Matter, name: str) -> str:
        words = self._words(matter, name, min(_whole(schema.get("maxLength"), _SUMMARY), _SUMMARY))
        text = fit(words, schema, matter.words)
        return fit(f"{text} {matter.nth + 1}", schema) if matter.nth and "pattern" not in schema else text

    def _words(self, matter: Matter, name: str, limit: int) -> str:
        asked = name_words(name)
        if asked & {"language", "lang", "locale"}:
            return language.detect(matter.words)
        if "sentiment" in asked or "tone" in asked:
            return sentiment(matter)
        if asked & {"urgency", "priority", "severity"}:
            return LEVELS[level(matter.words)]
        if asked & {"category", "label", "topic"}:
            return str(choose(("bug", "billing", "feature", "account", "spam", "other"), matter))
        if matter.records and (asked & _RETELLING or not matter.text):
            return overview(matter.records)
        if asked & {"id", "identifier"}:
            return identity(matter.record) or "item-1"
        if asked & _TITLING:
            return (
                matter.title
                or (f"Report on {len(matter.records)} items" if matter.records else "")
                or summarise(matter.text, limit=80)
            )
        return summarise(matter.text, matter.title, limit=limit)

    def _count(self, matter: Matter, name: str) -> int:
        asked = name_words(name)
        known = report.counts(matter, "")
        for key, count in known.items():
            if name_words(key) <= asked or name_words(key + "s") <= asked:
                return count
        if asked & _COUNTING or asked & report.PLURALS:
            return len(matter.records)
        if asked & {"urgency", "priority", "severity", "level"}:
            return level(matter.words) + 1
        return 0 if matter.records else 1

    def _measure(self, matter: Matter, name: str) -> float:
        asked = name_words(name)
        if asked & _GUESSING:
            return _CONFIDENCE
        calculated = matter.record.get("value")
        if isinstance(calculated, (int, float)) and not asked & (_COUNTING | report.PLURALS):
            return float(calculated)
        return float(self._count(matter, name))

    def _branch(self, schema: JsonObject, key: str, branches: list[Any], matter: Matter, name: str, depth: int) -> Any:
        """The first branch with a value that the whole allows; `null` only if nothing else does."""
        rest = {k: v for k, v in schema.items() if k != key}
        ordered = sorted(branches, key=lambda branch: isinstance(branch, dict) and branch.get("type") == "null")
        made = None
        for branch in ordered:
            if depth >= _DEEPEST and branch is not ordered[-1]:
                continue
            made = self.value(_merge(rest, self._flatten(branch)), matter, name, depth + 1)
            if self.valid(made, schema):
                return made
        return made

    def _copied(self, schema: JsonObject, matter: Matter, name: str) -> Any:
        if not name or matter.nth or name_words(name) & _RETELLING or _type_of(schema) in {"object", "array"}:
            return None
        if schema.get("format") in FOUND_AS:
            return None if isinstance(schema.get("pattern"), str) else self._formatted_copy(schema, matter, name)
        return next(lookup(matter.record, name, lambda value: self.valid(value, schema)), None)

    def _formatted_copy(self, schema: JsonObject, matter: Matter, name: str) -> Any:
        shape = FOUND_AS[str(schema["format"])]
        fits = lookup(matter.record, name, lambda value: self.valid(value, schema))
        return next((value for value in fits if isinstance(value, str) and shape.fullmatch(value)), None)

    def _flatten(self, schema: Any) -> JsonObject:
        """`schema` with its references followed and `allOf` merged."""
        if not isinstance(schema, dict):
            return {}
        flat: JsonObject = dict(schema)
        for _ in range(_DEEPEST):
            reference, parts = flat.pop("$ref", None), flat.pop("allOf", None)
            if reference is None and parts is None:
                break
            if isinstance(reference, str):
                flat = _merge(self._resolve(reference), flat)
            for part in _list(parts):
                flat = _merge(flat, part if isinstance(part, dict) else {})
        return flat

    def _resolve(self, reference: str) -> JsonObject:
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name, {}) if name and isinstance(found, dict) else found
        return found if isinstance(found, dict) else {}


def _type_of(schema: JsonObject) -> str:
    """The type to make: the first named one that is not null; without any, what the other keywords speak of."""
    named = schema.get("type")
    if isinstance(named, str):
        return named
    if isinstance(named, list) and named:
        return str(next((one for one in named if one != "null"), "null"))
    if schema.keys() & {"properties", "required", "additionalProperties", "minProperties"}:
        return "object"
    if schema.keys() & {"items", "prefixItems", "minItems", "maxItems"}:
        return "array"
    if schema.keys() & {"minimum", "maximum", "multipleOf", "exclusiveMinimum", "exclusiveMaximum"}:
        return "number"
    return "string"


def _merge(one: JsonObject, other: JsonObject) -> JsonObject:
    """Both schemas' demands; where they name the same keyword, `other`'s, except for properties and required."""
    found = {**one, **other}
    if "properties" in one and "properties" in other:
        found["properties"] = {**_mapping(one["properties"]), **_mapping(other["properties"])}
    if "required" in one and "required" in other:
        found["required"] = [*_list(one["required"]), *_list(other["required"])]
    return found


def _add(found: list[Any], value: Any, *, unique: bool) -> None:
    if not unique or all(json.dumps(value) != json.dumps(other) for other in found):
        found.append(value)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole(value: Any, default: int) -> int:
    return int(value) if isinstance(value, (int, float)) else default
