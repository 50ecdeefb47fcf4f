"""The Anthropic Messages format: requests written, replies and stream events read. Pure.

Source: the Anthropic API reference, "Messages", "Streaming" and "Extended thinking".
"""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel

from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    NamedTool,
    OutputFormat,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolChoice,
    ToolDefinition,
    ToolResultPart,
)
from paracle_domain.inference.deltas import Change, EndDelta, ReasoningDelta, TextDelta, ToolCallDelta
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.adapters.anthropic_hints import thinking_of, with_cache_hints
from paracle_provider_gateway.adapters.wire import (
    Place,
    check,
    check_image,
    check_pdf,
    parse_event,
    replayed,
    without_none,
)
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Closing, Piece, Reply, StreamItem

_FINISH: Final = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
_NO_TEXT: Final = "(no text)"


class WireBlock(BaseModel):
    """A content block, or the start of one."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    thinking: str = ""
    signature: str | None = None
    data: str | None = None


class WireUsage(BaseModel):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def merged(self, later: WireUsage) -> WireUsage:
        """These counts, overridden by what a later event says."""
        return WireUsage.model_validate(self.model_dump() | later.model_dump(exclude_none=True))

    def to_usage(self) -> Usage:
        """The API counts what went through its cache apart from what else was read."""
        cached, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        return Usage(
            input_tokens=(self.input_tokens or 0) + cached + written,
            output_tokens=self.output_tokens or 0,
            cached_tokens=cached,
            cache_write_tokens=written,
            model_calls=1,
        )


class WireReply(BaseModel):
    """A message; `message_start` has one without content."""

    model: str = ""
    content: list[WireBlock]
    stop_reason: str | None = None
    usage: WireUsage = WireUsage()


class WireDelta(BaseModel):
    """What `content_block_delta` or `message_delta` adds."""

    type: str = ""
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str | None = None
    stop_reason: str | None = None


class WireEvent(BaseModel):
    """A stream event of any type."""

    type: str
    index: Place = 0
    message: WireReply | None = None
    content_block: WireBlock | None = None
    delta: WireDelta | None = None
    usage: WireUsage | None = None


def request_body(
    model: str,
    request: Complete,
    *,
    provider: str,
    max_output_tokens: int,
    schema_format: JsonObject | None,
    stream: bool,
) -> dict[str, Any]:
    """The body of `POST /v1/messages`.

    `provider`: whose thoughts go back. `schema_format`: the output schema as the API is to enforce it; without it a
    wanted schema is put into words.
    """
    sampling = request.sampling
    if sampling.seed is not None:
        raise InvalidInput("Anthropic's Messages API takes no seed; leave it out", path="sampling.seed")
    thinking = thinking_of(model, sampling.thinking, sampling.max_output_tokens or max_output_tokens)
    config = without_none(
        {
            "format": schema_format and {"type": "json_schema", "schema": schema_format},
            "effort": thinking.effort,
        }
    )
    body = without_none(
        {
            "model": model,
            "max_tokens": thinking.max_tokens,
            "system": _system(request, asked_in_words=schema_format is None) or None,
            "messages": _messages(request, provider),
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request.tool_choice) if request.tools else None,
            "thinking": thinking.setting,
            "output_config": config or None,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop_sequences": list(sampling.stop) or None,
            "stream": True if stream else None,
        }
    )
    return body if sampling.prompt_cache == "off" else with_cache_hints(body)


def read_reply(wire: WireReply, origin: Origin) -> Reply:
    """The reply that `wire` holds; blocks of unknown types are left out.

    Raises
    ------
    ProviderUnavailable
        If it does not say why it ended.
    """
    if wire.stop_reason is None:
        raise origin.lost("the reply has no stop reason")
    parts = tuple(part for block in wire.content if (part := _part(block, origin.provider)) is not None)
    return Reply(
        message=ChatMessage(role=Role.ASSISTANT, parts=parts),
        finish_reason=_finish(wire.stop_reason),
        usage=wire.usage.to_usage(),
        model=wire.model,
    )


class MessageReader:
    """Folds stream events into stream items."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._model = ""
        self._usage = WireUsage()
        self._stop_reason: str | None = None
        self._inputs: dict[int, Any] = {}
        self.finished = False

    def read(self, data: bytes) -> list[StreamItem]:
        """What an event adds; most hold words alone, which are read without looking at the rest."""
        match parse_event(data, self._origin):
            case {
                "type": "content_block_delta",
                "index": int(index),
                "delta": {"type": "text_delta", "text": str(words)},
            } if index >= 0:
                return [Piece(index, TextDelta(text=words))]
            case {"type": "error", **about}:
                raise self._origin.from_event({"error": about.get("error")})
            case found:
                return self._read(check(found, WireEvent, self._origin))

    def close(self) -> list[StreamItem]:
        """The end of the stream; empty if the provider never said that it had finished."""
        if not self.finished:
            return []
        reason = _finish(self._stop_reason)
        return [Piece(0, EndDelta(finish_reason=reason)), Closing(reason, self._usage.to_usage(), self._model)]

    def _read(self, event: WireEvent) -> list[StreamItem]:
        """What `event` adds; types that are not known add nothing."""
        match event:
            case WireEvent(type="message_start", message=WireReply() as start):
                self._model, self._usage = start.model, start.usage
            case WireEvent(type="message_delta"):
                self._stop_reason = (event.delta and event.delta.stop_reason) or self._stop_reason
                self._usage = self._usage.merged(event.usage or WireUsage())
            case WireEvent(type="message_stop"):
                self.finished = True
            case WireEvent(type="content_block_start", content_block=WireBlock() as block):
                return self._started(event.index, block)
            case WireEvent(type="content_block_delta", delta=WireDelta() as delta):
                return [Piece(event.index, change) for change in self._added(event.index, delta)]
            case WireEvent(type="content_block_stop"):
                return self._block_over(event.index)
            case _:
                pass
        return []

    def _started(self, index: int, block: WireBlock) -> list[StreamItem]:
        match block.type:
            case "text":
                return [Piece(index, TextDelta(text=block.text))] if block.text else []
            case "tool_use":
                self._inputs[index] = block.input
                return [Piece(index, ToolCallDelta(id=block.id, name=block.name))]
            case "thinking":
                return [Piece(index, ReasoningDelta(text=block.thinking, provider=self._origin.provider))]
            case "redacted_thinking":
                return [Piece(index, ReasoningDelta(provider=self._origin.provider, data={"redacted": block.data}))]
            case _:
                return []

    def _added(self, index: int, delta: WireDelta) -> list[Change]:
        match delta.type:
            case "text_delta":
                return [TextDelta(text=delta.text)]
            case "input_json_delta":
                if delta.partial_json:
                    self._inputs.pop(index, None)
                return [ToolCallDelta(arguments=delta.partial_json)] if delta.partial_json else []
            case "thinking_delta":
                return [ReasoningDelta(text=delta.thinking)]
            case "signature_delta":
                return [ReasoningDelta(data={"signature": delta.signature})]
            case _:
                return []

    def _block_over(self, index: int) -> list[StreamItem]:
        """A tool call whose whole input came with its start, as some compatible servers send it, is told now."""
        whole = self._inputs.pop(index, None)
        return [Piece(index, ToolCallDelta(arguments=json.dumps(whole)))] if whole else []


def _part(block: WireBlock, provider: str) -> Part | None:
    match block.type:
        case "text":
            return TextPart(text=block.text) if block.text else None
        case "tool_use":
            return ToolCallPart.parse(id=block.id, name=block.name, text=json.dumps(block.input))
        case "thinking":
            data: JsonObject | None = {"signature": block.signature} if block.signature else None
            return ReasoningPart(text=block.thinking, provider=provider, data=data)
        case "redacted_thinking":
            return ReasoningPart(provider=provider, data={"redacted": block.data})
        case _:
            return None


def _system(request: Complete, *, asked_in_words: bool) -> str:
    texts = [message.text for message in request.messages if message.role is Role.SYSTEM]
    if request.output is not None and asked_in_words:
        texts.append(_schema_in_words(request.output))
    return "\n\n".join(text for text in texts if text)


def _schema_in_words(output: OutputFormat) -> str:
    schema = json.dumps(output.json_schema, ensure_ascii=False)
    return (
        "Your final answer must be a single JSON value that is valid against the following JSON Schema, "
        f"without any text or code fence around it:\n{schema}"
    )


def _messages(request: Complete, provider: str) -> list[dict[str, Any]]:
    """Turns must alternate: neighbours of one role become one, with tool results first, as the API wants it."""
    found: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role is Role.SYSTEM:
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = [block for part in message.parts if (block := _block(part, provider)) is not None]
        if found and found[-1]["role"] == role:
            found[-1]["content"].extend(blocks)
        else:
            found.append({"role": role, "content": blocks})
    for turn in found:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        if not turn["content"]:
            turn["content"].append({"type": "text", "text": _NO_TEXT})
    return found


def _block(part: Part, provider: str) -> dict[str, Any] | None:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text} if part.text else None
        case ImagePart():
            check_image(part)
            return {"type": "image", "source": _source(part)}
        case FilePart():
            return {"type": "document", "title": part.name, "source": _document(part)}
        case ToolCallPart():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": replayed(part)}
        case ToolResultPart():
            return without_none(
                {
                    "type": "tool_result",
                    "tool_use_id": part.call_id,
                    "content": part.content,
                    "is_error": True if part.is_error else None,
                }
            )
        case ReasoningPart():
            return _thinking(part, provider)


def _thinking(part: ReasoningPart, provider: str) -> dict[str, Any] | None:
    if part.provider != provider or not part.data:
        return None
    if "redacted" in part.data:
        return {"type": "redacted_thinking", "data": part.data["redacted"]}
    return {"type": "thinking", "thinking": part.text, "signature": part.data.get("signature")}


def _document(file: FilePart) -> dict[str, Any]:
    """Documents are PDFs, or plain text."""
    if file.text is not None:
        return {"type": "text", "media_type": "text/plain", "data": file.text}
    if file.url is None:
        check_pdf(file)
    return _source(file)


def _source(part: ImagePart | FilePart) -> dict[str, Any]:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": part.data}


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "input_schema": {"type": "object"} | tool.input_schema}


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    match choice:
        case NamedTool():
            return {"type": "tool", "name": choice.name}
        case "required":
            return {"type": "any"}
        case "auto" | "none":
            return {"type": choice}


def _finish(reason: str | None) -> FinishReason:
    return _FINISH.get(reason or "", FinishReason.OTHER)
