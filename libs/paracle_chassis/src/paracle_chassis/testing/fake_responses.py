"""OpenAI's Responses API on the wire, as `FakeOpenAI` speaks it.

Source: the OpenAI API reference, "Responses" and "Streaming events".
"""

from __future__ import annotations

import json
from typing import Any, Final

from paracle_chassis.testing.wire import Turn, fragments

ENCRYPTED: Final = "ZmFrZS1lbmNyeXB0ZWQtdGhvdWdodHM="
"""What stands for the thoughts of this fake when they are sent again."""
_INCOMPLETE: Final = frozenset({"max_output_tokens", "content_filter"})


def whole(turn: Turn, request: Any) -> dict[str, Any]:
    """A response."""
    incomplete = turn.finish in _INCOMPLETE
    return _begun(request) | {
        "status": "incomplete" if incomplete else "completed",
        "incomplete_details": {"reason": turn.finish} if incomplete else None,
        "output": [] if turn.no_choices else _output(turn),
        "usage": {
            "input_tokens": turn.input_tokens,
            "input_tokens_details": {"cached_tokens": turn.cached_tokens},
            "output_tokens": turn.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": turn.input_tokens + turn.output_tokens,
        },
    }


def events(turn: Turn, request: Any) -> list[str]:
    """The events of one that is streamed."""
    end = whole(turn, request)
    found: list[dict[str, Any]] = [{"type": "response.created", "response": _begun(request)}]
    for index, item in enumerate(end["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        found.append({"type": "response.output_item.added", "output_index": index, "item": item | _EMPTY[item["type"]]})
        found += [{"type": kind, **place, **about} for kind, about in _pieces(item)]
        found.append({"type": "response.output_item.done", "output_index": index, "item": item})
    found.append({"type": f"response.{end['status']}", "response": end})
    numbered = [event | {"sequence_number": number} for number, event in enumerate(found)]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}" for event in numbered]


_EMPTY: Final[dict[str, dict[str, Any]]] = {
    "reasoning": {"summary": [], "encrypted_content": "unfinished"},
    "message": {"content": [], "status": "in_progress"},
    "function_call": {"arguments": "", "status": "in_progress"},
}


def _begun(request: Any) -> dict[str, Any]:
    return {
        "id": "resp_fake",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "in_progress",
        "model": request["model"],
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": 1.0,
        "top_p": 1.0,
    }


def _output(turn: Turn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if turn.reasoning:
        summary = [{"type": "summary_text", "text": turn.reasoning}]
        found.append({"type": "reasoning", "id": "rs_fake", "summary": summary, "encrypted_content": ENCRYPTED})
    if turn.text:
        words: dict[str, Any] = {"type": "refusal", "refusal": turn.text}
        if turn.finish != "refusal":
            words = {"type": "output_text", "text": turn.text, "annotations": []}
        found.append(
            {"type": "message", "id": "msg_fake", "role": "assistant", "status": "completed", "content": [words]}
        )
    for index, tool in enumerate(turn.tools):
        call = {"id": f"fc_{index}", "call_id": tool.id or f"call_{index}", "name": tool.name}
        found.append({"type": "function_call", "status": "completed", "arguments": tool.arguments, **call})
    return found


def _pieces(item: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    match item:
        case {"type": "reasoning", "summary": [{"text": text}]}:
            where = {"summary_index": 0}
            return [("response.reasoning_summary_text.delta", where | {"delta": piece}) for piece in fragments(text)]
        case {"type": "message", "content": [{"refusal": text}]}:
            where = {"content_index": 0}
            return [("response.refusal.delta", where | {"delta": piece}) for piece in fragments(text)]
        case {"type": "message", "content": [{"text": text}]}:
            where = {"content_index": 0}
            return [("response.output_text.delta", where | {"delta": piece}) for piece in fragments(text)]
        case _:
            return [("response.function_call_arguments.delta", {"delta": p}) for p in fragments(item["arguments"])]
