"""The OpenAI Responses format: requests written, replies and stream events read. Pure.

Nothing is kept by the provider (`store: false`): what a model thought comes back encrypted and is sent again with the
conversation that it belongs to.

Source: the OpenAI API reference, "Responses".
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
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.adapters.openai_wire import WireInputDetails, WireOutputDetails, used
from paracle_provider_gateway.adapters.wire import (
    check_pdf,
    data_url,
    effort,
    named_text,
    replayed,
    user_content,
    without_none,
)
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Reply

BETWEEN: Final = "\n\n"
"""Between the texts of one thought."""
_INCOMPLETE: Final = {
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class WireText(BaseModel):
    """A text of a message, or of a thought."""

    type: str = ""
    text: str = ""
    refusal: str = ""


class WireItem(BaseModel):
    """An item of the output, or the start of one."""

    type: str
    id: str | None = None
    content: list[WireText] | None = None
    summary: list[WireText] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None

    @property
    def words(self) -> str:
        return "".join(each.text or each.refusal for each in self.content or ())

    @property
    def refused(self) -> bool:
        return any(each.type == "refusal" for each in self.content or ())

    @property
    def thoughts(self) -> list[WireText]:
        return [*(self.summary or ()), *(self.content or ())]


class WireUsage(BaseModel):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: WireInputDetails | None = None
    output_tokens_details: WireOutputDetails | None = None

    def to_usage(self) -> Usage:
        return used(self.input_tokens, self.output_tokens, self.input_tokens_details, self.output_tokens_details)


class WireIncomplete(BaseModel):
    reason: str | None = None


class WireState(BaseModel):
    """How far a response is."""

    model: str = ""
    status: str | None = None
    usage: WireUsage | None = None
    error: JsonObject | None = None
    incomplete_details: WireIncomplete | None = None

    def finish(self, origin: Origin, *, called: bool, refused: bool) -> FinishReason:
        """Why the reply ended, in which the model `called` a tool or `refused`; raises as `read_reply` does."""
        match self.status:
            case "completed":
                if refused:
                    return FinishReason.CONTENT_FILTER
                return FinishReason.TOOL_CALLS if called else FinishReason.STOP
            case "incomplete":
                reason = self.incomplete_details and self.incomplete_details.reason
                return _INCOMPLETE.get(reason or "", FinishReason.OTHER)
            case "failed":
                raise origin.from_event({"error": self.error})
            case _:
                raise origin.lost(f"the reply has not ended: its status is {self.status}")

    def used(self) -> Usage:
        return self.usage.to_usage() if self.usage else Usage(model_calls=1)


class WireReply(WireState):
    """A whole response."""

    output: list[WireItem]


def request_body(model: str, request: Complete, *, provider: str, stream: bool) -> dict[str, Any]:
    """The body of `POST /responses`. `provider`: whose thoughts go back."""
    sampling = request.sampling
    _refuse("sampling.stop", sampling.stop or None)
    _refuse("sampling.seed", sampling.seed)
    return without_none(
        {
            "model": model,
            "input": [item for message in request.messages for item in _items(message, provider)],
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request.tool_choice) if request.tools else None,
            "text": request.output and {"format": _format(request.output)},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "reasoning": sampling.thinking and {"effort": effort(sampling.thinking)},
            "max_output_tokens": sampling.max_output_tokens,
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "stream": True if stream else None,
        }
    )


def read_reply(wire: WireReply, request: Complete, origin: Origin) -> Reply:
    """The reply that `wire` holds; items of unknown types are left out.

    Raises
    ------
    ProviderUnavailable
        If it has not ended, or holds nothing.
    ParacleError
        If it says that it failed.
    """
    called = any(item.type == "function_call" for item in wire.output)
    reason = wire.finish(origin, called=called, refused=any(item.refused for item in wire.output))
    if not wire.output and reason is FinishReason.STOP:
        raise origin.lost("the reply has no output")
    parts = tuple(
        part
        for index, item in enumerate(wire.output)
        if (part := part_of(item, f"{request.call_id}.{index}", origin.provider)) is not None
    )
    return Reply(
        message=ChatMessage(role=Role.ASSISTANT, parts=parts),
        finish_reason=reason,
        usage=wire.used(),
        model=wire.model,
    )


def part_of(item: WireItem, fallback_id: str, provider: str) -> Part | None:
    """What `item` adds to the message; `fallback_id` is that of a call without one."""
    match item.type:
        case "message":
            return TextPart(text=item.words) if item.words else None
        case "function_call":
            return ToolCallPart.parse(id=item.call_id or fallback_id, name=item.name or "", text=item.arguments or "")
        case "reasoning":
            text = BETWEEN.join(each.text for each in item.thoughts)
            return ReasoningPart(text=text, provider=provider, data=thought_data(item))
        case _:
            return None


def thought_data(item: WireItem) -> JsonObject:
    """What is needed, besides its text, to send a thought back as it came: its texts by kind and length."""
    data: JsonObject = {"id": item.id, "texts": [[each.type, len(each.text)] for each in item.thoughts]}
    return data if item.encrypted_content is None else data | {"encrypted_content": item.encrypted_content}


def _items(message: ChatMessage, provider: str) -> list[dict[str, Any]]:
    match message.role:
        case Role.SYSTEM:
            return [{"role": "system", "content": message.text}]
        case Role.USER:
            return [{"role": "user", "content": _content(message)}]
        case Role.ASSISTANT:
            return [item for part in message.parts if (item := _said(part, provider)) is not None]
        case Role.TOOL:
            return [_result(result) for result in message.tool_results]


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    return user_content(message, text="input_text", image=_image, file=_file)


def _image(image: ImagePart) -> dict[str, Any]:
    return {"type": "input_image", "image_url": image.url or data_url(image), "detail": "auto"}


def _file(file: FilePart) -> dict[str, Any]:
    """PDFs, as data or by URL; what a text says is sent as text."""
    if file.text is not None:
        return {"type": "input_text", "text": named_text(file)}
    if file.url is not None:
        return {"type": "input_file", "file_url": file.url}
    check_pdf(file)
    return {"type": "input_file", "filename": file.name, "file_data": data_url(file)}


def _said(part: Part, provider: str) -> dict[str, Any] | None:
    match part:
        case TextPart(text=text):
            return {"role": "assistant", "content": text} if text else None
        case ToolCallPart():
            arguments = json.dumps(replayed(part), ensure_ascii=False)
            return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": arguments}
        case ReasoningPart(provider=owner, data=data) if owner == provider and data and "id" in data:
            return _thought(part.text, data)
        case _:
            return None


def _thought(text: str, data: JsonObject) -> dict[str, Any]:
    by_kind: dict[str, list[dict[str, Any]]] = {"summary_text": [], "reasoning_text": []}
    for kind, words in _cut(text, data.get("texts")):
        by_kind.setdefault(kind, []).append({"type": kind, "text": words})
    return without_none(
        {
            "type": "reasoning",
            "id": data["id"],
            "summary": by_kind["summary_text"],
            "content": by_kind["reasoning_text"] or None,
            "encrypted_content": data.get("encrypted_content"),
        }
    )


def _cut(text: str, texts: Any) -> list[tuple[str, str]]:
    """The texts of a thought by kind, as `thought_data` has noted them; one summary if the notes do not fit it."""
    found: list[tuple[str, str]] = []
    place = 0
    for kind, length in texts or ():
        found.append((kind, text[place : place + length]))
        place += length + len(BETWEEN)
    if max(0, place - len(BETWEEN)) != len(text):
        return [("summary_text", text)]
    return found


def _result(result: ToolResultPart) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": result.call_id, "output": result.content}


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    """`strict` is said, since the API would take a schema for one that it is to enforce."""
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": False,
    }


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "name": choice.name} if isinstance(choice, NamedTool) else choice


def _format(output: OutputFormat) -> dict[str, Any]:
    return {"type": "json_schema", "name": output.name, "schema": output.json_schema, "strict": output.strict}


def _refuse(path: str, value: object) -> None:
    if value is not None:
        name = path.rpartition(".")[2]
        raise InvalidInput(f"OpenAI's Responses API takes no {name}; leave it out, or ask over openai_chat", path=path)
