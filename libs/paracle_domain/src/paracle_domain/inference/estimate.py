"""How many tokens a call may use, before anybody has counted: what is reserved on budgets until it is known. Pure.

Rather too much than too little: what was reserved and not used comes back when the call has ended.
"""

from __future__ import annotations

from typing import Final, assert_never

from paracle_domain.inference.chat import (
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from paracle_domain.inference.embedding import Embed, ModelCall
from paracle_domain.inference.moderation import Moderate
from paracle_domain.inference.request import Complete

IMAGE_TOKENS: Final = 1_600
FILE_TOKENS: Final = 8_000
"""Of a file that is named by its URL."""
TYPICAL_OUTPUT: Final = 8_192
"""The output of a call for which neither the request nor the model has a limit."""
THOUGHTS: Final = {"low": 2_048, "medium": 8_192, "high": 24_576}
"""Room for thoughts, where a provider wants it in tokens, and besides the room for what is said."""
_MOST_OUTPUT: Final = 1_000_000_000
"""No model says so much: a request may ask for any number, which has to be kept."""
_CHARACTERS: Final = 3
"""To a token: prose has four, JSON and code have less."""
_PER_PART: Final = 8
"""What a part's role, kind and end cost."""


def estimate_input(request: ModelCall) -> int:
    """Tokens of everything that the model is given."""
    match request:
        case Complete():
            return _conversation(request)
        case Embed() | Moderate():
            return sum(map(_text, request.texts))
        case _:
            assert_never(request)


def _conversation(request: Complete) -> int:
    found = sum(_PER_PART + _part(part) for message in request.messages for part in message.parts)
    found += sum(map(_tool, request.tools))
    if request.output is not None:
        found += _json(request.output.json_schema)
    return found + _PER_PART * len(request.messages)


def estimate_output(request: ModelCall, most: int | None = None) -> int:
    """The most tokens that the model may say and think; `most` is what it can at all, where that is known."""
    if not isinstance(request, Complete):
        return 0
    asked, thoughts = request.sampling.max_output_tokens, THOUGHTS.get(request.sampling.thinking or "off", 0)
    if asked is None:
        return most or TYPICAL_OUTPUT + thoughts
    return min(asked + thoughts, most or _MOST_OUTPUT)


def _part(part: Part) -> int:
    match part:
        case TextPart() | ReasoningPart():
            return _text(part.text)
        case ToolCallPart():
            return _text(part.name) + (_json(part.arguments) if part.invalid is None else _text(part.invalid))
        case ToolResultPart():
            return _text(part.content)
        case ImagePart():
            return IMAGE_TOKENS
        case FilePart():
            return FILE_TOKENS if part.data is None else IMAGE_TOKENS + len(part.data) // _CHARACTERS
        case _:
            assert_never(part)


def _text(text: str) -> int:
    """A third of a token for each character; a whole one for each that is not of ASCII."""
    if text.isascii():
        return len(text) // _CHARACTERS + 1
    plain = len(text.encode("ascii", "ignore"))
    return plain // _CHARACTERS + len(text) - plain + 1


def _tool(tool: ToolDefinition) -> int:
    return _PER_PART + _text(tool.name) + _text(tool.description) + _json(tool.input_schema)


def _json(value: object) -> int:
    """Of JSON: `repr` is about as long, and quick."""
    return _text(repr(value))
