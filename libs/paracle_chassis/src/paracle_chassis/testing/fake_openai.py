"""OpenAI's APIs on the wire, scripted: Chat Completions, Responses, Embeddings, and Moderations.

Source: the OpenAI API reference, "Chat".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, override

from aiohttp import web

from paracle_chassis.testing import fake_embeddings, fake_responses
from paracle_chassis.testing.wire import ToolUse, Turn, WireServer, fragments


class FakeOpenAI(WireServer):
    """`POST /v1/chat/completions` and `/v1/responses`, whole and streamed, `/v1/embeddings`, `/v1/moderations`, and
    `GET /v1/models`.

    Of a moderation, the words of the turn are what is flagged: as `violence` if it is in a text.
    """

    models: tuple[str, ...] = ("fake-model",)

    @property
    def url(self) -> str:
        """The base URL to give to clients."""
        return f"{self.origin}/v1"

    @override
    def routes(self) -> Iterable[web.RouteDef]:
        return [
            web.post("/v1/chat/completions", self.answer),
            web.post("/v1/responses", self.answer),
            web.post("/v1/moderations", self.answer),
            web.post("/v1/embeddings", self.answer),
            web.get("/v1/models", self._list_models),
        ]

    @override
    def whole_at(self, path: str, turn: Turn, request: Any) -> Any:
        match path.rpartition("/")[2]:
            case "embeddings":
                return fake_embeddings.whole(turn, request)
            case "moderations":
                return _judgements(turn, request)
            case _:
                return self.whole(turn, request)

    @override
    def whole(self, turn: Turn, request: Any) -> Any:
        if "input" in request:
            return fake_responses.whole(turn, request)
        choices = [{"index": 0, "message": _message(turn), "finish_reason": _finish(turn)}]
        return {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": request["model"],
            "choices": [] if turn.no_choices else choices,
            "usage": _usage(turn),
        }

    @override
    def events(self, turn: Turn, request: Any) -> list[str]:
        if "input" in request:
            return fake_responses.events(turn, request)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": piece} for piece in fragments(turn.reasoning)]
        deltas += [{"content": piece} for piece in fragments(turn.text)]
        for index, tool in enumerate(turn.tools):
            deltas += _tool_deltas(index, tool)
        chunks = [] if turn.no_choices else [_choice(delta) for delta in deltas] + [_choice({}, _finish(turn))]
        if (request.get("stream_options") or {}).get("include_usage"):
            chunks.append({"choices": [], "usage": _usage(turn)})
        frame = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_700_000_000}
        named = frame | {"model": request["model"]}
        return [f"data: {json.dumps(named | chunk)}" for chunk in chunks] + ["data: [DONE]"]

    @override
    def error(self, turn: Turn) -> Any:
        return {"error": {"message": turn.message, "type": turn.code or "server_error", "code": turn.code or None}}

    async def _list_models(self, _request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "fake"} for name in self.models]
        return web.json_response({"object": "list", "data": data})


def _judgements(turn: Turn, request: Any) -> dict[str, Any]:
    bad = [bool(turn.text) and turn.text in text for text in request["input"]]
    results = [
        {
            "flagged": flagged,
            "categories": {"violence": flagged, "hate": False, "illicit": None},
            "category_scores": {"violence": 0.9 if flagged else 0.01, "hate": 0.3},
        }
        for flagged in bad
    ]
    return {"id": "modr-fake", "model": request["model"], "results": results}


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None, "refusal": None}
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    if turn.tools:
        message["tool_calls"] = [
            {"id": _id(tool, index), "type": "function", "function": {"name": tool.name, "arguments": tool.arguments}}
            for index, tool in enumerate(turn.tools)
        ]
    return message


def _tool_deltas(index: int, tool: ToolUse) -> list[dict[str, Any]]:
    function = {"name": tool.name, "arguments": ""}
    first = {"index": index, "id": _id(tool, index), "type": "function", "function": function}
    rest = [{"index": index, "function": {"arguments": piece}} for piece in fragments(tool.arguments)]
    return [{"tool_calls": [call]} for call in (first, *rest)]


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _id(tool: ToolUse, index: int) -> str:
    return tool.id or f"call_{index}"


def _finish(turn: Turn) -> str:
    return turn.finish or ("tool_calls" if turn.tools else "stop")


def _usage(turn: Turn) -> dict[str, Any]:
    return {
        "prompt_tokens": turn.input_tokens,
        "completion_tokens": turn.output_tokens,
        "total_tokens": turn.input_tokens + turn.output_tokens,
        "prompt_tokens_details": {"cached_tokens": turn.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
