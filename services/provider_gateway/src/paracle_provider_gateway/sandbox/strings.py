"""Text that fits a schema: length, pattern and format."""

from __future__ import annotations

import re
from re import _constants as ops  # type: ignore[attr-defined]  # the parser that `re` itself uses
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

from paracle_domain.messages import JsonObject
from paracle_provider_gateway.sandbox.summary import shorten

FOUND_AS: Final[dict[str, re.Pattern[str]]] = {
    "date": re.compile(r"\b\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])\b"),
    "date-time": re.compile(r"\b\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ"),
    "email": re.compile(r"\b[A-Za-z0-9_]+(?:[.+-][A-Za-z0-9_]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"),
    "uri": re.compile(r"https?://[A-Za-z0-9.-]+(?::\d+)?(?:/[A-Za-z0-9._~/-]*)?"),
}
"""How values of a format look in a text."""

_STANDARD: Final = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "nobody@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.org",
    "duration": "PT0S",
}
"""What stands for a format of which the text holds no value."""

_PATTERN_SAMPLES: Final = 64
_CATEGORY: Final = {"category_digit": "0", "category_word": "a", "category_space": " "}


def fit(text: str, schema: JsonObject, source: str = "") -> str:
    """`text` as `schema` allows it; `source` is searched for what its pattern or format asks for."""
    form = schema.get("format")
    if isinstance(form, str) and form in _STANDARD:
        return _formatted(form, text, source)
    if isinstance(pattern := schema.get("pattern"), str):
        return _matching(pattern, text, source, schema)
    return _sized(text, schema)


def sample(pattern: str, extra: int = 0) -> str:
    """A text that `pattern` matches, with `extra` more repetitions than it needs.

    Raises
    ------
    ValueError
        If it uses what this cannot follow (look-around, back-references).
    """
    return "".join(_walk(node, extra) for node in parser.parse(pattern))


def _formatted(form: str, text: str, source: str) -> str:
    finder = FOUND_AS.get(form)
    if finder is None:
        return _STANDARD[form]
    if finder.fullmatch(text):
        return text
    found = finder.search(source)
    return found.group() if found else _STANDARD[form]


def _sized(text: str, schema: JsonObject) -> str:
    least, most = _bound(schema, "minLength", 0), _bound(schema, "maxLength", None)
    if least is not None and len(text) < least:
        text = (text or "-").ljust(least, ".")
    return text if most is None or len(text) <= most else shorten(text, most)


def _matching(pattern: str, text: str, source: str, schema: JsonObject) -> str:
    expression = re.compile(pattern)
    within = pattern.removeprefix("^").removesuffix("$")
    candidates = [text, *(found.group() for found in re.finditer(within, source))]
    for candidate in candidates:
        if expression.search(candidate) and _sized(candidate, schema) == candidate:
            return candidate
    for extra in range(_PATTERN_SAMPLES):
        candidate = sample(pattern, extra)
        if expression.search(candidate) and len(candidate) >= (_bound(schema, "minLength", 0) or 0):
            return candidate
    return sample(pattern)


def _bound(schema: JsonObject, name: str, default: int | None) -> int | None:
    value = schema.get(name, default)
    return int(value) if isinstance(value, (int, float)) else default


def _walk(node: tuple[Any, Any], extra: int) -> str:
    op, value = node
    match op:
        case ops.LITERAL:
            return chr(int(value))
        case ops.ANY | ops.NOT_LITERAL:
            return "a" if op is ops.ANY or chr(value) != "a" else "b"
        case ops.AT:
            return ""
        case ops.IN:
            return _one_of(value)
        case ops.BRANCH:
            return "".join(_walk(inner, extra) for inner in value[1][0])
        case ops.SUBPATTERN:
            return "".join(_walk(inner, extra) for inner in value[3])
        case ops.MAX_REPEAT | ops.MIN_REPEAT:
            least, most, inside = value
            times = int(least) + extra if most is ops.MAXREPEAT else min(int(most), int(least) + extra)
            return times * "".join(_walk(inner, extra) for inner in inside)
        case _:
            raise ValueError(f"cannot make up a text for {op} in a pattern")


def _one_of(options: list[tuple[Any, Any]]) -> str:
    if options[0][0] is ops.NEGATE:
        refused = re.compile("[" + "".join(_class_text(option) for option in options[1:]) + "]")
        return next((c for c in "a0_- .A~é" if not refused.match(c)), "a")
    op, value = options[0]
    match op:
        case ops.LITERAL:
            return chr(int(value))
        case ops.RANGE:
            return chr(int(value[0]))
        case ops.CATEGORY if (name := str(value).casefold()) in _CATEGORY:
            return _CATEGORY[name]
        case _:
            raise ValueError(f"cannot make up a character for {op}")


def _class_text(option: tuple[Any, Any]) -> str:
    op, value = option
    if op is ops.LITERAL:
        return re.escape(chr(value))
    if op is ops.RANGE:
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    short = {"category_digit": r"\d", "category_word": r"\w", "category_space": r"\s"}.get(str(value).casefold())
    if short is None:
        raise ValueError("cannot follow this character class")
    return short
