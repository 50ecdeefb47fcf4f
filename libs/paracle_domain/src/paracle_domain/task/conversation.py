"""What was said before the question of an input: in its field `conversation`, or in the session that it names.

A session is kept by the agent runtime. The field `session` of an agent's input makes its task a turn of it; that of a
delegate does not, since models write those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import JsonValue

from paracle_domain.ids import is_id
from paracle_domain.inference.chat import ChatMessage, Role, TextPart
from paracle_domain.task import attached, prompt
from paracle_domain.task.messages import Task

FIELD: Final = "conversation"
SESSION: Final = "session"
_ROLES: Final = {"user": Role.USER, "assistant": Role.ASSISTANT}


def messages(value: JsonValue) -> tuple[ChatMessage, ...]:
    """What the model gets of an input: what was said before, and the question."""
    earlier = _earlier(value)
    if isinstance(value, dict):
        known = {FIELD} if earlier else set[str]()
        known |= {SESSION} if session_in(value) else set()
        value = {name: part for name, part in value.items() if name not in known}
    return (*earlier, attached.question(value))


def session_of(task: Task) -> str | None:
    """The session that an agent's task is a turn of."""
    return session_in(task.input) if task.target_kind == "agent" and task.parent is None else None


def added(own: Sequence[ChatMessage], output: JsonValue) -> tuple[ChatMessage, ...]:
    """What a completed turn adds to its session: its `own` messages, of which the last is the answer.

    Where another agent took over, none of them is: then it is the question and the `output`.
    """
    last = own[-1]
    if last.role is Role.ASSISTANT and not last.tool_calls and last.text:
        return tuple(own)
    return (own[0], ChatMessage.assistant(prompt.as_text(output) or "(nothing)"))


def session_in(value: JsonValue) -> str | None:
    """The session that an agent's input names."""
    found = value.get(SESSION) if isinstance(value, dict) else None
    return found if isinstance(found, str) and is_id(found, "ses") else None


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
