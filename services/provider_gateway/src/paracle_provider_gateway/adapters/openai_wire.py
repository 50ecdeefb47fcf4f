"""The OpenAI Chat Completions format: requests written, replies read. Pure.

Source: the OpenAI API reference, "Chat", and what Ollama, vLLM and others do under the same name.
"""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel, Field

from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    NamedTool,
    OutputFormat,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolChoice,
    ToolDefinition,
)
from paracle_domain.inference.deltas import EndDelta, ReasoningDelta, TextDelta, ToolCallDelta
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import JsonObject
from paracle_domain.provider.presets import Quirks
from paracle_provider_gateway.adapters.chat_calls import (
    CHUNKS,
    SentBack,
    WireChunk,
    assistant,
    text_of,
    thoughts_of,
    told_in,
)
from paracle_provider_gateway.adapters.wire import (
    Place,
    check,
    check_pdf,
    data_url,
    effort,
    named_text,
    parse_event,
    user_content,
    without_none,
)
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Closing, Piece, Reply, StreamItem

_DONE: Final = b"[DONE]"
_PLAIN: Final = frozenset({"content", "role"})
_FINISH: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_REASONING, _TEXT, _FIRST_TOOL = 0, 1, 2


class WireFunction(BaseModel):
    name: str | None = None
    arguments: str | None = None


class WireToolCall(BaseModel):
    index: Place = 0
    id: str | None = None
    function: WireFunction = WireFunction()
    extra_content: JsonObject | None = None


class WireMessage(BaseModel):
    """A message, or what a chunk adds to one."""

    content: str | list[WireChunk] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[JsonObject] | None = None
    tool_calls: list[WireToolCall] | None = None

    @property
    def words(self) -> str:
        return text_of(self.content) or self.refusal or ""

    @property
    def thoughts(self) -> tuple[str, str | None]:
        """What is thought, and in which field it stands, if in one alone."""
        if self.reasoning_content:
            return self.reasoning_content, "reasoning_content"
        if self.reasoning:
            return self.reasoning, "reasoning"
        if found := thoughts_of(self.content):
            return found, CHUNKS
        return told_in(self.reasoning_details or ()), None


_SILENT: Final = WireMessage()  # as a default, pydantic would copy it for every reply


class WireChoice(BaseModel):
    message: WireMessage = Field(default_factory=lambda: _SILENT)
    delta: WireMessage = Field(default_factory=lambda: _SILENT)
    finish_reason: str | None = None


class WireInputDetails(BaseModel):
    cached_tokens: int | None = None


class WireOutputDetails(BaseModel):
    reasoning_tokens: int | None = None


def used(given: int, said: int, of_given: WireInputDetails | None, of_said: WireOutputDetails | None) -> Usage:
    """What one call used, as OpenAI's APIs count it: what was cached or thought is a part of the whole."""
    return Usage(
        input_tokens=given,
        output_tokens=said,
        cached_tokens=(of_given and of_given.cached_tokens) or 0,
        reasoning_tokens=(of_said and of_said.reasoning_tokens) or 0,
        model_calls=1,
    )


class WireUsage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: WireInputDetails | None = None
    completion_tokens_details: WireOutputDetails | None = None

    def to_usage(self) -> Usage:
        details = self.prompt_tokens_details, self.completion_tokens_details
        return used(self.prompt_tokens, self.completion_tokens, *details)


class WireReply(BaseModel):
    """A completion, or a chunk of one."""

    model: str = ""
    choices: list[WireChoice]
    usage: WireUsage | None = None


def request_body(model: str, request: Complete, *, provider: str, quirks: Quirks, stream: bool) -> dict[str, Any]:
    """The body of `POST /chat/completions`. `provider`: whose thoughts go back.

    Raises
    ------
    InvalidInput
        If it holds what the server does not take.
    """
    sampling = request.sampling
    messages = [wire for message in request.messages for wire in _messages(message, provider)]
    if request.output is not None and quirks.output == "json_object":
        messages = [_told_schema(request.output), *messages]
    return without_none(
        {
            "model": model,
            "messages": messages,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request.tool_choice, quirks) if request.tools else None,
            "response_format": request.output and _response_format(request.output, quirks),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "reasoning_effort": effort(sampling.thinking),
            quirks.output_limit: sampling.max_output_tokens,
            "stop": list(sampling.stop) or None,
            quirks.seed: sampling.seed,
            "stream": True if stream else None,
            "stream_options": {"include_usage": True} if stream and quirks.stream_usage else None,
        }
    )


def read_reply(wire: WireReply, request: Complete, origin: Origin) -> Reply:
    """The reply that `wire` holds.

    Raises
    ------
    ProviderUnavailable
        If it holds none.
    """
    if not wire.choices:
        raise origin.lost("the reply has no choices")
    choice = wire.choices[0]
    calls = tuple(_call(call, index, request) for index, call in enumerate(choice.message.tool_calls or ()))
    thoughts = _thoughts(choice.message, calls, origin.provider)
    text = (TextPart(text=choice.message.words),) if choice.message.words else ()
    if choice.finish_reason is None and not text and not calls:
        raise origin.lost("the reply's choice is empty")
    return Reply(
        message=ChatMessage(role=Role.ASSISTANT, parts=(*thoughts, *text, *calls)),
        finish_reason=_finish(choice.finish_reason, calls=bool(calls), refused=bool(choice.message.refusal)),
        usage=wire.usage.to_usage() if wire.usage else Usage(model_calls=1),
        model=wire.model,
    )


class ChunkReader:
    """Folds chunks into stream items. Reasoning, text and tool calls are parts 0, 1 and 2 onwards."""

    def __init__(self, request: Complete, origin: Origin) -> None:
        self._request = request
        self._origin = origin
        self._model = ""
        self._usage = Usage(model_calls=1)
        self._finish: str | None = None
        self._refused = False
        self._named: dict[int, str] = {}
        self._sent_back = SentBack()
        self.finished = False

    def read(self, data: bytes) -> list[StreamItem]:
        """What a chunk adds; most hold words alone, which are read without looking at the rest."""
        if data == _DONE:
            self.finished = True
            return []
        found = parse_event(data, self._origin)
        words = _words_alone(found)
        if words is None or not self._model:
            return self._read(found)
        return [Piece(_TEXT, TextDelta(text=words))] if words else []

    def close(self) -> list[StreamItem]:
        """The end of the stream; empty if the provider never said that it had finished."""
        if self._finish is None:
            return []
        reason = _finish(self._finish, calls=bool(self._named), refused=self._refused)
        data = self._sent_back.data() if self._named else None
        thought = ReasoningDelta(provider=self._origin.provider, data=data)
        told: list[StreamItem] = [Piece(_REASONING, thought)] if data else []
        return [*told, Piece(0, EndDelta(finish_reason=reason)), Closing(reason, self._usage, self._model)]

    def _read(self, found: dict[str, Any]) -> list[StreamItem]:
        if (failure := found.get("error")) is not None:
            raise self._origin.from_event({"error": failure})
        chunk = check(found, WireReply, self._origin)
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = chunk.usage.to_usage()
        if not chunk.choices:
            return []
        choice = chunk.choices[0]
        self._finish = choice.finish_reason or self._finish
        return self._pieces(choice.delta)

    def _pieces(self, delta: WireMessage) -> list[StreamItem]:
        found: list[StreamItem] = []
        thoughts, field = delta.thoughts
        self._sent_back.thought(field, delta.reasoning_details or ())
        if thoughts:
            found.append(Piece(_REASONING, ReasoningDelta(text=thoughts)))
        if delta.words:
            self._refused |= bool(delta.refusal)
            found.append(Piece(_TEXT, TextDelta(text=delta.words)))
        found.extend(self._call_piece(call) for call in delta.tool_calls or ())
        return found

    def _call_piece(self, call: WireToolCall) -> Piece:
        first = call.index not in self._named
        identity = self._named.setdefault(call.index, call.id or f"{self._request.call_id}.{call.index}")
        self._sent_back.called(identity, call.extra_content)
        change = ToolCallDelta(
            id=identity if first else None,
            name=call.function.name if first else None,
            arguments=call.function.arguments or "",
        )
        return Piece(_FIRST_TOOL + call.index, change)


def _thoughts(message: WireMessage, calls: tuple[ToolCallPart, ...], provider: str) -> tuple[ReasoningPart, ...]:
    """What the model thought; before it calls tools, with what the server wants to have back."""
    thoughts, field = message.thoughts
    sent_back = SentBack()
    sent_back.thought(field, message.reasoning_details or ())
    for call, wire in zip(calls, message.tool_calls or (), strict=True):
        sent_back.called(call.id, wire.extra_content)
    if calls and (data := sent_back.data()):
        return (ReasoningPart(text=thoughts, provider=provider, data=data),)
    return (ReasoningPart(text=thoughts),) if thoughts else ()


def _words_alone(chunk: dict[str, Any]) -> str | None:
    """The words of a chunk that adds nothing else; `None` if it may add more, or is of another shape."""
    match chunk:
        case {"choices": [{"delta": {"content": str(words), **others}, **about}]}:
            plain = others.keys() <= _PLAIN and about.get("finish_reason") is None
            return words if plain and chunk.get("usage") is None and chunk.get("error") is None else None
        case _:
            return None


def _messages(message: ChatMessage, provider: str) -> list[dict[str, Any]]:
    match message.role:
        case Role.SYSTEM:
            return [{"role": "system", "content": message.text}]
        case Role.USER:
            return [{"role": "user", "content": _content(message)}]
        case Role.ASSISTANT:
            return [assistant(message, provider)]
        case Role.TOOL:
            return [
                {"role": "tool", "tool_call_id": result.call_id, "content": result.content}
                for result in message.tool_results
            ]


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    return user_content(message, text="text", image=_image, file=_file)


def _image(image: ImagePart) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image.url or data_url(image)}}


def _file(file: FilePart) -> dict[str, Any]:
    """Chat Completions takes PDFs, as data; what a text says is sent as text."""
    if file.text is not None:
        return {"type": "text", "text": named_text(file)}
    if file.url is not None:
        raise InvalidInput(f"this provider takes files as data, not by url (file {file.name!r})", path="input.parts")
    check_pdf(file)
    return {"type": "file", "file": {"filename": file.name, "file_data": data_url(file)}}


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice, quirks: Quirks) -> str | dict[str, Any]:
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return quirks.tool_choice_required if choice == "required" else choice


def _response_format(output: OutputFormat, quirks: Quirks) -> dict[str, Any]:
    if quirks.output == "json_object":
        return {"type": "json_object"}
    schema = {"name": output.name, "schema": output.json_schema, "strict": output.strict}
    return {"type": "json_schema", "json_schema": schema}


def _told_schema(output: OutputFormat) -> dict[str, Any]:
    """The schema in words, for a server that only knows that it is to write JSON."""
    if output.strict:
        raise InvalidInput("this provider enforces no schema; ask without strict", path="output.strict")
    schema = json.dumps(output.json_schema, ensure_ascii=False)
    return {"role": "system", "content": f"Answer with one JSON object that follows this JSON Schema:\n{schema}"}


def _call(call: WireToolCall, index: int, request: Complete) -> ToolCallPart:
    identity = call.id or f"{request.call_id}.{index}"
    return ToolCallPart.parse(id=identity, name=call.function.name or "", text=call.function.arguments or "")


def _finish(reason: str | None, *, calls: bool, refused: bool) -> FinishReason:
    if refused:
        return FinishReason.CONTENT_FILTER
    found = _FINISH.get(reason or "", FinishReason.OTHER)
    return FinishReason.TOOL_CALLS if calls and found is FinishReason.STOP else found
