"""What was said before, in the field `conversation` of an agent's input: messages that go before the question."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from paracle_domain.inference.chat import ChatMessage, Role, TextPart
from paracle_domain.task import attached

FIELD: Final = "conversation"
_ROLES: Final = {"user": Role.USER, "assistant": Role.ASSISTANT}


def messages(value: JsonValue) -> tuple[ChatMessage, ...]:
    """What the model gets of an input: what was said before, and the question."""
    earlier = _earlier(value)
    if earlier and isinstance(value, dict):
        value = {name: part for name, part in value.items() if name != FIELD}
    return (*earlier, attached.question(value))


def _earlier(value: JsonValue) -> tuple[ChatMessage, ...]:
    """A list of objects that each have a `role` and a `text`; any other field of the name is an input like any."""
    given = value.get(FIELD) if isinstance(value, dict) else None
    if not isinstance(given, list):
        return ()
    found = [_message(one) for one in given]
    return tuple(one for one in found if one is not None) if all(found) else ()


def _message(one: JsonValue) -> ChatMessage | None:
    if not isinstance(one, dict) or set(one) != {"role", "text"}:
        return None
    role, text = one["role"], one["text"]
    if not isinstance(role, str) or role not in _ROLES or not isinstance(text, str) or not text:
        return None
    return ChatMessage(role=_ROLES[role], parts=(TextPart(text=text),))
