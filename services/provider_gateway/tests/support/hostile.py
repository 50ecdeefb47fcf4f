"""Requests made out of the schema of their kind, which they keep to, but for some; they hold what nobody expects."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from paracle_domain.messages import Request

CALL: Final = "the-call"
"""The id of every call, for a fresh one to be put in its place."""
_TEXTS: Final = (
    "", "a\x00b", "\u202e\u0000\uffff", "\U0010ffff" * 70, "x" * 3_000, "../../etc/passwd", "%s{0}",
    "(", "[", "(?P<a", "(a{1000}){1000}", "QUI", "QUI=", "Q=I=", "no base64!", "_-8=", "/w==", "image/", "text/\n",
    "text/plain", "application/json", "application/pdf", "image/svg+xml", "http://[", "https://x/\x00", "-1", "nan",
)  # fmt: skip
_NUMBERS: Final = (0, -1, 1, 2, 7, 200, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e308, 5e-324)
_TIMES: Final = ("2026-11-26T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-14:00", "2026-11-26")
_MEANT: Final[Mapping[str, tuple[Any, ...]]] = {
    "model": (
        "openai-compatible/m", "openai/m", "anthropic/m", "sandbox/rules", "builtin/wordllama-256", "default", "m",
    ),
    "timeout_s": (0.001, 0.1, 0.5, 2),
    "stream_to": ("task_01JD0000000000000000000000", None),
    "$ref": ("#", "#/nowhere", "http://127.0.0.1:9/x"),
    "call_id": (CALL,),
}  # fmt: skip
"""What fields of that name hold most of the time: nothing is reached past a model that nobody has."""
_TYPES: Final = {
    "image": ("image/png", "image/svg+xml", "image/x.-+"),
    "file": ("text/plain", "application/json", "application/pdf", "text/x", "a/0"),
}

texts = st.sampled_from(_TEXTS) | st.text(max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | st.sampled_from(_NUMBERS) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def bodies(kind: type[Request[Any]]) -> SearchStrategy[bytes]:
    """Bodies of such requests."""
    schema = kind.model_json_schema()
    right = _Made(schema.get("$defs", {})).of(schema)
    fields = sorted(schema["properties"]) if schema.get("properties") else ["any"]
    wrong = st.builds(lambda value, name, other: value | {name: other}, right, st.sampled_from(fields), anything)
    return st.integers(0, 9).flatmap(lambda draw: right if draw else wrong).map(_body)


def _body(value: Any) -> bytes:
    return json.dumps(value).encode()


class _Made:
    """Values of JSON Schemas as pydantic writes them; `known` is what they refer to."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known
        self._made: dict[str, SearchStrategy[Any]] = {}

    def of(self, schema: Any) -> SearchStrategy[Any]:
        """Values of `schema`."""
        match schema:
            case {"$ref": str(name)}:
                return self._referred(name.rpartition("/")[2])
            case {"const": value}:
                return st.just(value)
            case {"enum": list(values)}:
                return st.sampled_from(values)
            case {"anyOf": list(several)} | {"oneOf": list(several)}:
                return st.one_of(
                    *(self.of(one) for one in several if one.get("type") != "string" or not _has_number(several))
                )
            case {"type": "object"}:
                return self._object(schema)
            case {"type": "array"}:
                return self._list(schema)
            case {"type": str(name)}:
                return _plain(name, schema)
            case _:
                return anything

    def _referred(self, name: str) -> SearchStrategy[Any]:
        if name in {"FilePart", "ImagePart"}:
            return _attached(name.removesuffix("Part").lower())
        if name not in self._made:
            self._made[name] = st.deferred(lambda: self.of(self._known[name]))
        return self._made[name]

    def _object(self, schema: Mapping[str, Any]) -> SearchStrategy[Any]:
        if "properties" not in schema:
            return st.dictionaries(texts, self.of(schema.get("additionalProperties")), max_size=3)
        fields = {name: self._field(name, one) for name, one in schema["properties"].items()}
        tags = [name for name, one in schema["properties"].items() if "const" in one]
        needed = {name: fields.pop(name) for name in dict.fromkeys((*schema.get("required", ()), *tags))}
        return st.fixed_dictionaries(needed, optional=fields)

    def _field(self, name: str, schema: Any) -> SearchStrategy[Any]:
        meant = _MEANT.get(name)
        return self.of(schema) if meant is None else st.sampled_from(meant)

    def _list(self, schema: Mapping[str, Any]) -> SearchStrategy[Any]:
        least = schema.get("minItems", 0)
        several = st.lists(self.of(schema.get("items")), min_size=least, max_size=least + 2)
        return several.flatmap(
            lambda items: st.sampled_from([items, items, items * min(schema.get("maxItems", 20), 20)])
        )


def _has_number(several: Sequence[Any]) -> bool:
    """As a decimal has, besides the text that it may be."""
    return any(one.get("type") == "number" for one in several)


def _plain(name: str, schema: Mapping[str, Any]) -> SearchStrategy[Any]:
    match name:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer" | "number":
            return st.sampled_from([number for number in _NUMBERS if _fits(number, name, schema)])
        case _:
            if schema.get("format") == "date-time":
                return st.sampled_from(_TIMES)
            pattern = schema.get("pattern")
            return _text(schema) if pattern is None else st.from_regex(pattern, fullmatch=True)


def _fits(number: float, name: str, schema: Mapping[str, Any]) -> bool:
    above = number > schema.get("exclusiveMinimum", -math.inf) and number >= schema.get("minimum", -math.inf)
    return above and number <= schema.get("maximum", math.inf) and (name == "number" or number == int(number))


def _text(schema: Mapping[str, Any]) -> SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 10_000)
    return texts.map(lambda text: text.ljust(least, "?")[:most])


def _attached(kind: str) -> SearchStrategy[Any]:
    """An image or a file, whose fields depend on each other."""
    types = st.sampled_from(_TYPES[kind])
    data = st.binary(max_size=99).map(lambda content: base64.b64encode(content).decode())
    by_data = st.fixed_dictionaries({"type": st.just(kind), "data": data | texts, "media_type": types})
    return by_data | st.fixed_dictionaries({"type": st.just(kind), "url": texts})
