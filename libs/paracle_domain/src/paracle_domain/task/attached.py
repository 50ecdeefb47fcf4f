"""Images and files that come with an input, in its field `parts`: what may be attached, and how a model gets it.

Large ones travel with their message, by claim check where it is too large for NATS. What is given by `url` is fetched
by the provider, never by Paracle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from paracle_domain.errors import Finding, findings_of
from paracle_domain.inference.chat import ChatMessage, InputPart
from paracle_domain.task import prompt

MAX_PARTS: Final = 50
MAX_DATA_CHARS: Final = 4 * 1024 * 1024
"""Most characters of base64 in one part: more than that no command may have."""
_KINDS: Final = frozenset({"image", "file"})
_URL: Final = re.compile(r"https?://[^\s]{1,8000}")
_PARTS: Final[TypeAdapter[tuple[InputPart, ...]]] = TypeAdapter(
    Annotated[tuple[InputPart, ...], Field(max_length=MAX_PARTS)]
)


def question(value: JsonValue) -> ChatMessage:
    """The input as the model gets it: what it says as text, and what is attached."""
    parts, wrong = _read(value)
    if wrong or not parts or not isinstance(value, dict):
        return ChatMessage.user(prompt.input_text(value))
    rest: JsonValue = {name: part for name, part in value.items() if name != "parts"}
    return ChatMessage.user(prompt.input_text(rest) if rest else "", *parts)


def problems(value: JsonValue) -> tuple[Finding, ...]:
    """What is wrong with what is attached to an input."""
    return _read(value)[1]


def _read(value: JsonValue) -> tuple[tuple[InputPart, ...], tuple[Finding, ...]]:
    """A list `parts` of objects that all call themselves images or files; any other one is an input like any."""
    given = value.get("parts") if isinstance(value, dict) else None
    if not isinstance(given, list) or not given:
        return (), ()
    if not all(isinstance(part, dict) and part.get("type") in _KINDS for part in given):
        return (), ()
    try:
        parts = _PARTS.validate_python(given)
    except ValidationError as error:
        return (), tuple(findings_of(map(_placed, error.errors(include_url=False)), "input.parts"))
    wrong = ((number, _wrong(part)) for number, part in enumerate(parts))
    return parts, tuple(Finding(path=f"input.parts[{number}].{why[0]}", message=why[1]) for number, why in wrong if why)


def _wrong(part: InputPart) -> tuple[str, str] | None:
    """The field that is wrong, and why."""
    if part.url is not None:
        return None if _URL.fullmatch(part.url) else ("url", "give an http:// or https:// URL")
    assert part.data is not None
    if len(part.data) > MAX_DATA_CHARS:
        return "data", f"{len(part.data):,} characters are over the limit of {MAX_DATA_CHARS:,}; give a url"
    return None


def _placed(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """What pydantic found wrong, at its place: after a part's number it says its kind, which is no field."""
    return {**item, "loc": item["loc"][:1] + item["loc"][2:]}
