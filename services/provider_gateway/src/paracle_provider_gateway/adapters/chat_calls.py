"""What a model said before it called tools, as Chat Completions have it sent back with their results. Pure.

Source: what DeepSeek and Kimi say about `reasoning_content` with tools, Gemini about thought signatures, OpenRouter
about `reasoning_details`, and Mistral about chunks of `content`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel

from paracle_domain.inference.chat import ChatMessage, ReasoningPart, ToolCallPart
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.adapters.wire import replayed, without_none

CHUNKS: Final = "content"
"""The field of thoughts that stand among the chunks of the content."""
_GROWING: Final = frozenset({"text", "summary", "data"})
"""Fields of a detail that come in pieces; others come whole."""


class WireChunk(BaseModel):
    """A part of a content that is a list: text, or thoughts (which are such a list again); others have no text."""

    type: str = "text"
    text: str | None = None
    thinking: str | list[WireChunk] | None = None


def text_of(content: str | list[WireChunk] | None) -> str:
    """The words of a content."""
    if isinstance(content, list):
        return "".join(chunk.text or "" for chunk in content if chunk.type == "text")
    return content or ""


def thoughts_of(content: str | list[WireChunk] | None) -> str:
    """The thoughts in a content."""
    if not isinstance(content, list):
        return ""
    return "".join(text_of(chunk.thinking) for chunk in content if chunk.type == "thinking")


def told_in(details: Iterable[JsonObject]) -> str:
    """The thoughts in details, where they are not told otherwise."""
    return "".join(str(detail.get("text") or detail.get("summary") or "") for detail in details)


class SentBack:
    """What a server wants to have back of a message that calls tools, whole or in pieces."""

    def __init__(self) -> None:
        self._field: str | None = None
        self._details: list[JsonObject] = []
        self._extra: dict[str, JsonObject] = {}

    def thought(self, field: str | None, details: Iterable[JsonObject]) -> None:
        """Thoughts came in `field`, and `details` with them."""
        self._field = field or self._field
        for detail in details:
            if self._details and _goes_on(self._details[-1], detail):
                self._details[-1] = _longer(self._details[-1], detail)
            else:
                self._details.append(detail)

    def called(self, call_id: str, extra: JsonObject | None) -> None:
        """A call of a tool came, and `extra` with it."""
        if extra is not None:
            self._extra[call_id] = extra

    def data(self) -> JsonObject | None:
        """All of it; `None` if it wants nothing."""
        found: JsonObject = {"field": self._field} if self._field else {}
        if self._details:
            found = {"details": [*self._details]}
        return (found | {"extra_content": dict(self._extra)} if self._extra else found) or None


def _goes_on(detail: JsonObject, piece: JsonObject) -> bool:
    return piece.get("index") is not None and all(detail.get(key) == piece.get(key) for key in ("index", "type"))


def _longer(detail: JsonObject, piece: JsonObject) -> JsonObject:
    found = dict(detail)
    for key, value in piece.items():
        grown = found.get(key)
        if key in _GROWING and isinstance(grown, str) and isinstance(value, str):
            found[key] = grown + value
        elif value is not None:
            found[key] = value
    return found


def assistant(message: ChatMessage, provider: str) -> dict[str, Any]:
    """The message as it is sent again: thoughts go back to the `provider` that had them, with calls of tools alone."""
    wire: dict[str, Any] = {"role": "assistant", "content": message.text or (None if message.tool_calls else "")}
    if not message.tool_calls:
        return wire
    extra: dict[str, Any] = {}
    for part in message.parts:
        if isinstance(part, ReasoningPart) and part.provider == provider and part.data:
            data: dict[str, Any] = part.data
            extra |= data.get("extra_content", {})
            wire |= _thoughts(data, part.text, message.text)
    return wire | {"tool_calls": [_called(call, extra.get(call.id)) for call in message.tool_calls]}


def _thoughts(data: dict[str, Any], thoughts: str, words: str) -> dict[str, Any]:
    """The fields that they go back in, as `SentBack` found them."""
    if "details" in data:
        return {"reasoning_details": data["details"]}
    if data.get("field") == CHUNKS:
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": thoughts}]}
        return {"content": [thinking, *([{"type": "text", "text": words}] if words else [])]}
    return {data["field"]: thoughts} if "field" in data else {}


def _called(call: ToolCallPart, extra: JsonObject | None) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(replayed(call), ensure_ascii=False)}
    return without_none({"id": call.id, "type": "function", "function": function, "extra_content": extra})
