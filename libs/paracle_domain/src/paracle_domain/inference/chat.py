"""A provider-neutral conversation: messages of typed parts, and the tools that a model may call."""

from __future__ import annotations

import base64
import json
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from paracle_domain.errors import quote
from paracle_domain.messages import JsonObject, Value
from paracle_domain.strict_json import parse_json

ToolName = Annotated[str, Field(min_length=1, max_length=128)]


def _decodable(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
        why = "too much padding" if len(text) % 4 else None  # which Python lets pass
    except ValueError as error:
        why = str(error)
    if why is not None:
        message = (
            f"{quote(text)} is no base64 ({why}): give the bytes with A-Z, a-z, 0-9, + and /, padded with =, "
            "and nothing between; or give a url instead"
        )
        raise ValueError(message)
    return text


Base64 = Annotated[str, AfterValidator(_decodable), Field(json_schema_extra={"contentEncoding": "base64"})]
"""Bytes as text, as every provider takes them."""


def _check_source(what: str, example: str, url: str | None, data: str | None, media_type: str | None) -> None:
    if (url is None) == (data is None):
        message = f"{what} needs either url or data"
        raise ValueError(message)
    if data is not None and media_type is None:
        message = f"{what} given as data needs its media_type, such as {example}"
        raise ValueError(message)


class Role(StrEnum):
    """Who speaks. Tool results are said by `tool`."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class TextPart(Value):
    """Words."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(Value):
    """An image: by `url`, or as base64 `data` with its `media_type` (`image/png`)."""

    type: Literal["image"] = "image"
    url: str | None = None
    data: Base64 | None = Field(default=None, description="base64")
    media_type: str | None = Field(default=None, pattern=r"^image/[a-z0-9.+-]+$")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _check_source("an image", "image/png", self.url, self.data, self.media_type)
        return self


class FilePart(Value):
    """A file: by `url`, or as base64 `data` with its `media_type` (`application/pdf`, `text/csv`)."""

    type: Literal["file"] = "file"
    name: str = Field(default="file", min_length=1, max_length=255)
    url: str | None = None
    data: Base64 | None = Field(default=None, description="base64")
    media_type: str | None = Field(default=None, pattern=r"^[a-z]+/[a-z0-9.+-]+$")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _check_source("a file", "application/pdf", self.url, self.data, self.media_type)
        return self

    @property
    def text(self) -> str | None:
        """What it says, if it is a text of its own."""
        if self.data is None or self.media_type is None:
            return None
        if not self.media_type.startswith("text/") and self.media_type != "application/json":
            return None
        return base64.b64decode(self.data).decode(errors="replace")


class ToolCallPart(Value):
    """The model's wish to call a tool.

    `invalid` is what the model sent as arguments if that is no JSON object; `arguments` is empty then, and the model
    should be told instead of the tool being called.
    """

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: JsonObject = {}
    invalid: str | None = None

    @classmethod
    def parse(cls, id: str, name: str, text: str) -> Self:
        """A call with the arguments that `text` holds as JSON; empty text stands for none."""
        try:
            found = parse_json(text) if text.strip() else {}
        except ValueError:
            return cls(id=id, name=name, invalid=text)
        return (
            cls(id=id, name=name, arguments=found) if isinstance(found, dict) else cls(id=id, name=name, invalid=text)
        )

    @property
    def arguments_text(self) -> str:
        """The arguments as the model sent them, or as JSON text that says the same."""
        return json.dumps(self.arguments, ensure_ascii=False) if self.invalid is None else self.invalid


class ToolResultPart(Value):
    """What a tool answered to the call `call_id`, as the model is to read it."""

    type: Literal["tool_result"] = "tool_result"
    call_id: str
    content: str
    is_error: bool = False


class ReasoningPart(Value):
    """What the model thought.

    `data` is the provider's own (a signature, encrypted content): it goes back unchanged to the `provider` that gave
    it, and to no other.
    """

    type: Literal["reasoning"] = "reasoning"
    text: str = ""
    provider: str | None = None
    data: JsonObject | None = None


type InputPart = Annotated[ImagePart | FilePart, Field(discriminator="type")]

type Part = Annotated[
    TextPart | ImagePart | FilePart | ToolCallPart | ToolResultPart | ReasoningPart,
    Field(discriminator="type"),
]


class ChatMessage(Value):
    """One contribution to a conversation."""

    role: Role
    parts: tuple[Part, ...] = ()

    @classmethod
    def system(cls, text: str) -> Self:
        return cls(role=Role.SYSTEM, parts=(TextPart(text=text),))

    @classmethod
    def user(cls, text: str, *attached: InputPart) -> Self:
        return cls(role=Role.USER, parts=(TextPart(text=text), *attached))

    @classmethod
    def assistant(cls, text: str = "", *calls: ToolCallPart) -> Self:
        words = (TextPart(text=text),) if text else ()
        return cls(role=Role.ASSISTANT, parts=(*words, *calls))

    @classmethod
    def tool(cls, *results: ToolResultPart) -> Self:
        return cls(role=Role.TOOL, parts=results)

    @property
    def text(self) -> str:
        """All words of the message; reasoning is not among them."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCallPart))

    @property
    def tool_results(self) -> tuple[ToolResultPart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolResultPart))

    @property
    def attached(self) -> tuple[InputPart, ...]:
        """Images and files."""
        return tuple(part for part in self.parts if isinstance(part, ImagePart | FilePart))


class ToolDefinition(Value):
    """A tool as the model sees it. `input_schema` is a JSON Schema of type object."""

    name: ToolName
    description: str = ""
    input_schema: JsonObject = {"type": "object"}


class NamedTool(Value):
    """The model must call this tool."""

    name: ToolName


type ToolChoice = Literal["auto", "none", "required"] | NamedTool


class OutputFormat(Value):
    """The answer is to be JSON of this schema. `strict` asks the provider to enforce it, where it can."""

    name: str = Field(default="answer", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    json_schema: JsonObject
    strict: bool = False


type PromptCache = Literal["auto", "off"]
type Thinking = Literal["off", "low", "medium", "high"]


class Sampling(Value):
    """How the answer is drawn. `params` go to the provider as they are, under its own names.

    `thinking`: how much the model thinks before it answers; absent: as it does by itself. `prompt_cache`: whether the
    provider is told what to keep of a prompt that may come again, where it wants to be told (Anthropic).
    """

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    thinking: Thinking | None = None
    prompt_cache: PromptCache = "auto"
    params: dict[str, JsonValue] = {}
