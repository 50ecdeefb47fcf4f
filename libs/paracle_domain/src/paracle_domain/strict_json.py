"""JSON from strangers (models, tools, HTTP servers), taken only if everyone after us can read it again."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, cast

from pydantic import JsonValue

MAX_DEPTH: Final = 100
"""Readers of messages stop at some 200 levels; what we pass on is a part of others' values, which nest it further."""
_HALF_PAIR: Final = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_OPENING: Final = re.compile(r"[{\[]")
_FENCE: Final = "```"


def without_fence(text: str) -> str:
    """What a model put into a Markdown fence, if it did: that is not held against its JSON."""
    body = text.strip()
    if body.startswith(_FENCE) and body.endswith(_FENCE):
        return body.removeprefix(_FENCE).removesuffix(_FENCE).partition("\n")[2]
    return body


def parse_json(text: str) -> JsonValue:
    """The value that `text` is.

    Raises
    ------
    ValueError
        If it is no JSON, or holds what JSON cannot say again: NaN, numbers beyond a double, half of a surrogate pair,
        or more than `MAX_DEPTH` levels.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if len(_OPENING.findall(text)) > MAX_DEPTH and is_deep(value):
        raise ValueError(_too_deep())
    if _HALF_PAIR.search(text):
        _require_whole_pairs(value)
    return cast("JsonValue", value)


def whole_text(text: str) -> str:
    """`text` with every half of a surrogate pair, which UTF-8 cannot say, made a replacement character."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _no_constant(name: str) -> float:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        message = f"{text[:40]} is too large for a number; it should be a string"
        raise ValueError(message)
    return number


def _too_deep() -> str:
    return f"it nests more than {MAX_DEPTH} levels deep"


def is_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    """Whether `value` has more than `most` levels of objects and arrays."""
    level = [value]
    for _ in range(most):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def is_deep_in(body: bytes, value: Any, most: int) -> bool:
    """The same of a `value` that came in the JSON `body`, which mostly opens too few for that."""
    return body.count(b"[") + body.count(b"{") > most and is_deep(value, most)


def is_finite(value: Any) -> bool:
    """Whether every number in `value` is one. Without recursion, since values nest as deep as parsers let them."""
    ahead = [value]
    while ahead:
        match ahead.pop():
            case dict() as members:
                ahead.extend(members.values())
            case list() as items:
                ahead.extend(items)
            case float() as number if not math.isfinite(number):
                return False
            case _:
                pass
    return True


def _children(value: Any) -> list[Any]:
    match value:
        case dict():
            return list(value.values())
        case list():
            return value
        case _:
            return []


def _require_whole_pairs(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "it holds half of a surrogate pair"
        raise ValueError(message) from None
