"""The texts of a message as guards are shown them, and messages with other texts in their places. Pure.

Shown are words (those that follow one another as one text), what tools answered, thoughts, every name, text and number
in the arguments of a call, and files that are text. Images, other files, and what is only linked to are not.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from pydantic import JsonValue

from paracle_domain.guard.messages import Passage, Speaker
from paracle_domain.inference.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

type Visit = Callable[[Speaker, str], str]
"""Sees a text, and says what is to stand in its place."""


def passages_of(messages: Iterable[ChatMessage]) -> list[Passage]:
    """All texts, in their order."""
    found: list[Passage] = []

    def see(speaker: Speaker, text: str) -> str:
        found.append(Passage(speaker=speaker, text=text))
        return text

    for message in messages:
        _visited(message, see)
    return found


def with_texts(messages: Iterable[ChatMessage], texts: Iterable[str]) -> tuple[ChatMessage, ...]:
    """`messages` with `texts` in the places of their passages; what is not changed stays the very same."""
    ahead = iter(texts)
    return tuple(_visited(message, lambda _speaker, _text: next(ahead)) for message in messages)


def _visited(message: ChatMessage, visit: Visit) -> ChatMessage:
    parts: list[Part] = []
    for is_text, group in groupby(message.parts, lambda part: isinstance(part, TextPart)):
        if is_text:
            parts += _words([part for part in group if isinstance(part, TextPart)], message.role.value, visit)
        else:
            parts += (_part(part, message.role.value, visit) for part in group)
    same = len(parts) == len(message.parts) and all(a is b for a, b in zip(parts, message.parts, strict=True))
    return message if same else message.model_copy(update={"parts": tuple(parts)})


def _words(parts: Sequence[TextPart], speaker: Speaker, visit: Visit) -> Iterator[TextPart]:
    text = "".join(part.text for part in parts)
    said = visit(speaker, text)
    if said == text:
        yield from parts
    else:
        yield TextPart(text=said)


def _part(part: Part, speaker: Speaker, visit: Visit) -> Part:
    match part:
        case ToolResultPart(content=text):
            said = visit(speaker, text)
            return part if said == text else part.model_copy(update={"content": said})
        case ReasoningPart(text=text):
            # What a provider keeps of a thought says what the thought said, and fits no other.
            said = visit("reasoning", text)
            return part if said == text else ReasoningPart(text=said)
        case ToolCallPart(invalid=str(text)):
            said = visit("arguments", text)
            return part if said == text else part.model_copy(update={"invalid": said})
        case ToolCallPart(arguments=arguments):
            changed = _value(arguments, visit)
            return part if changed is arguments else part.model_copy(update={"arguments": changed})
        case FilePart():
            return _file(part, speaker, visit)
        case TextPart() | ImagePart():
            return part


def _file(file: FilePart, speaker: Speaker, visit: Visit) -> FilePart:
    name, text = visit(speaker, file.name), file.text
    said = None if text is None else visit(speaker, text)
    changes: dict[str, Any] = {} if name == file.name else {"name": name[:255] or "file"}
    if said is not None and said != text:
        changes["data"] = base64.b64encode(said.encode()).decode()
    return file.model_copy(update=changes) if changes else file


def _value(value: JsonValue, visit: Visit) -> JsonValue:
    """`value` with what is said of its parts; the very same if that is nothing new."""
    match value:
        case str():
            said = visit("arguments", value)
            return value if said == value else said
        case bool() | None:
            return value
        case int() | float():
            shown = str(value)
            said = visit("arguments", shown)
            return value if said == shown else said
        case list():
            items = [_value(item, visit) for item in value]
            return value if all(a is b for a, b in zip(items, value, strict=True)) else items
        case dict():
            return _object(value, visit)


def _object(value: dict[str, JsonValue], visit: Visit) -> dict[str, JsonValue]:
    made: dict[str, JsonValue] = {}
    same = True
    for name, item in value.items():
        said, kept = visit("arguments", name), _value(item, visit)
        same &= said == name and kept is item
        while said in made:  # two names that became one
            said += "_"
        made[said] = kept
    return value if same else made
