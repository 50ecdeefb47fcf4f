"""Streaming: a reply in pieces, and how the pieces become the whole.

A delta belongs to the part number `index` of the reply and to one `attempt`. An attempt that broke off is followed by
one with a higher number, which starts anew: readers drop what the earlier one said.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Annotated, Literal

from pydantic import Field

from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import ChatMessage, Part, ReasoningPart, Role, TextPart, ToolCallPart
from paracle_domain.inference.response import FinishReason
from paracle_domain.messages import JsonObject, Message, Value


class TextDelta(Value):
    """More words of a text part."""

    type: Literal["text"] = "text"
    text: str


class ReasoningDelta(Value):
    """More of a reasoning part; `provider` and `data` come once."""

    type: Literal["reasoning"] = "reasoning"
    text: str = ""
    provider: str | None = None
    data: JsonObject | None = None


class ToolCallDelta(Value):
    """More of a tool call; `id` and `name` come once, `arguments` in pieces of JSON text."""

    type: Literal["tool_call"] = "tool_call"
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class EndDelta(Value):
    """The attempt said all that it had to say."""

    type: Literal["end"] = "end"
    finish_reason: FinishReason


type Change = Annotated[TextDelta | ReasoningDelta | ToolCallDelta | EndDelta, Field(discriminator="type")]


class Delta(Message, type_name="inference.delta"):
    """One piece of the reply to `call_id`, on subject `out.{task_id}`; its message id is `message_id`.

    `seq` counts the deltas of an attempt from 0 without gaps.
    """

    call_id: str
    attempt: int = Field(default=1, ge=1)
    seq: int = Field(ge=0)
    index: int = Field(default=0, ge=0)
    change: Change

    @property
    def message_id(self) -> str:
        return f"{self.call_id}.{self.attempt}.{self.seq}"


def assemble(deltas: Iterable[Delta]) -> ChatMessage:
    """The reply that `deltas` add up to: of the last attempt, in any order, each any number of times.

    Raises
    ------
    InvalidInput
        If a delta is missing, or two kinds of part share an index.
    """
    return build_message((delta.index, delta.change) for delta in _last_attempt(deltas))


def build_message(changes: Iterable[tuple[int, Change]]) -> ChatMessage:
    """The reply that `changes`, each with the index of its part, add up to in the order given."""
    by_part = sorted(((i, c) for i, c in changes if not isinstance(c, EndDelta)), key=lambda pair: pair[0])
    parts = tuple(_part(index, [c for _, c in group]) for index, group in groupby(by_part, key=lambda pair: pair[0]))
    return ChatMessage(role=Role.ASSISTANT, parts=parts)


def changes_of(message: ChatMessage) -> list[tuple[int, Change]]:
    """The coarsest changes that add up to `message`: one for each part.

    Raises
    ------
    InvalidInput
        If it holds a part that no model says (an image or a tool's result).
    """
    return [(index, _change(part)) for index, part in enumerate(message.parts)]


def _last_attempt(deltas: Iterable[Delta]) -> list[Delta]:
    by_place = {(delta.attempt, delta.seq): delta for delta in deltas}
    last = max((attempt for attempt, _ in by_place), default=1)
    found = [by_place[place] for place in sorted(by_place) if place[0] == last]
    missing = next((n for n, delta in enumerate(found) if delta.seq != n), None)
    if missing is not None:
        raise InvalidInput(f"delta {missing} of attempt {last} is missing; read the stream again from its start")
    return found


def _part(index: int, changes: list[TextDelta | ReasoningDelta | ToolCallDelta]) -> Part:
    texts = [c for c in changes if isinstance(c, TextDelta)]
    thoughts = [c for c in changes if isinstance(c, ReasoningDelta)]
    calls = [c for c in changes if isinstance(c, ToolCallDelta)]
    if len(changes) not in {len(texts), len(thoughts), len(calls)}:
        kinds = ", ".join(sorted({c.type for c in changes}))
        raise InvalidInput(f"part {index} of the reply mixes deltas of several kinds: {kinds}")
    if texts:
        return TextPart(text="".join(c.text for c in texts))
    if thoughts:
        return _reasoning(thoughts)
    return _tool_call(calls)


def _reasoning(thoughts: list[ReasoningDelta]) -> ReasoningPart:
    return ReasoningPart(
        text="".join(c.text for c in thoughts),
        provider=next((c.provider for c in thoughts if c.provider is not None), None),
        data=next((c.data for c in thoughts if c.data is not None), None),
    )


def _tool_call(calls: list[ToolCallDelta]) -> ToolCallPart:
    return ToolCallPart.parse(
        id=next((c.id for c in calls if c.id is not None), ""),
        name=next((c.name for c in calls if c.name is not None), ""),
        text="".join(c.arguments for c in calls),
    )


def _change(part: Part) -> Change:
    match part:
        case TextPart():
            return TextDelta(text=part.text)
        case ReasoningPart():
            return ReasoningDelta(text=part.text, provider=part.provider, data=part.data)
        case ToolCallPart():
            return ToolCallDelta(id=part.id, name=part.name, arguments=part.arguments_text)
        case _:
            raise InvalidInput(f"a reply cannot hold a part of type {part.type!r}")
