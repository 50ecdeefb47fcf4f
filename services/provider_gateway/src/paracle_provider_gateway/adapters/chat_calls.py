"""What a model said before it called tools, as Chat Completions have it sent back with their results. Pure.

Source: what DeepSeek and Kimi say about `reasoning_content` with tools, and Gemini about thought signatures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paracle_domain.inference.chat import ChatMessage, ReasoningPart, ToolCallPart
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.adapters.wire import replayed, without_none


def sent_back(thoughts_field: str | None, extra: Mapping[str, JsonObject]) -> JsonObject | None:
    """What a server wants to have back of a message that calls tools: the field of its thoughts, and what each call
    carried besides, by its id. `None` if nothing.
    """
    data: JsonObject = {"field": thoughts_field} if thoughts_field else {}
    return (data | {"extra_content": dict(extra)} if extra else data) or None


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
            wire |= {data["field"]: part.text} if "field" in data else {}
    return wire | {"tool_calls": [_called(call, extra.get(call.id)) for call in message.tool_calls]}


def _called(call: ToolCallPart, extra: JsonObject | None) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(replayed(call), ensure_ascii=False)}
    return without_none({"id": call.id, "type": "function", "function": function, "extra_content": extra})
