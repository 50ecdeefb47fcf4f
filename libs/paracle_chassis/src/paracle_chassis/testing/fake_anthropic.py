"""Anthropic's Messages API on the wire, scripted.

Source: the Anthropic API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, override

from aiohttp import web

from paracle_chassis.testing.wire import ToolUse, Turn, WireServer, fragments

SIGNATURE: Final = "ZmFrZS1zaWduYXR1cmU="
"""What signs the thoughts of this fake."""


class FakeAnthropic(WireServer):
    """`POST /v1/messages`, whole and streamed.

    A whole reply cannot carry tool arguments that are no JSON; only a stream can, as with the real one.
    """

    @property
    def url(self) -> str:
        """The base URL to give to clients."""
        return self.origin

    @override
    def routes(self) -> Iterable[web.RouteDef]:
        return [web.post("/v1/messages", self.answer)]

    @override
    def whole(self, turn: Turn, request: Any) -> Any:
        usage = {"input_tokens": turn.input_tokens, "output_tokens": turn.output_tokens, **_cache(turn)}
        return _frame(request) | {
            "content": [] if turn.no_choices else _content(turn),
            "stop_reason": None if turn.no_choices else _stop_reason(turn),
            "usage": usage,
        }

    @override
    def events(self, turn: Turn, request: Any) -> list[str]:
        start = _frame(request) | {
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": turn.input_tokens, "output_tokens": 1, **_cache(turn)},
        }
        found: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
        if not turn.no_choices:
            for index, (block, deltas) in enumerate(_blocks(turn)):
                found.append({"type": "content_block_start", "index": index, "content_block": block})
                found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
                found.append({"type": "content_block_stop", "index": index})
            delta = {"stop_reason": _stop_reason(turn), "stop_sequence": None}
            usage = {"output_tokens": turn.output_tokens}
            found += [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]
        return [f"event: {event['type']}\ndata: {json.dumps(event)}" for event in found]

    @override
    def error(self, turn: Turn) -> Any:
        return {"type": "error", "error": {"type": turn.code or "api_error", "message": turn.message}}


def _frame(request: Any) -> dict[str, Any]:
    return {"id": "msg_fake", "type": "message", "role": "assistant", "model": request["model"], "stop_sequence": None}


def _content(turn: Turn) -> list[dict[str, Any]]:
    thoughts = [{"type": "thinking", "thinking": turn.reasoning, "signature": SIGNATURE}] if turn.reasoning else []
    text = [{"type": "text", "text": turn.text}] if turn.text else []
    tools = [_tool(tool, index) | {"input": json.loads(tool.arguments)} for index, tool in enumerate(turn.tools)]
    return [*thoughts, *text, *tools]


def _blocks(turn: Turn) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each content block as it starts, with what is added to it."""
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if turn.reasoning:
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in fragments(turn.reasoning)]
        signed = [*thoughts, {"type": "signature_delta", "signature": SIGNATURE}]
        found.append(({"type": "thinking", "thinking": "", "signature": ""}, signed))
    if turn.text:
        words = [{"type": "text_delta", "text": piece} for piece in fragments(turn.text)]
        found.append(({"type": "text", "text": ""}, words))
    for index, tool in enumerate(turn.tools):
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *fragments(tool.arguments))]
        found.append((_tool(tool, index) | {"input": {}}, pieces))
    return found


def _tool(tool: ToolUse, index: int) -> dict[str, Any]:
    return {"type": "tool_use", "id": tool.id or f"toolu_{index}", "name": tool.name}


def _stop_reason(turn: Turn) -> str:
    return turn.finish or ("tool_use" if turn.tools else "end_turn")


def _cache(turn: Turn) -> dict[str, int]:
    return {"cache_read_input_tokens": turn.cached_tokens, "cache_creation_input_tokens": 0}
