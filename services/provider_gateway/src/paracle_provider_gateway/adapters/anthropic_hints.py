"""What Anthropic's API wants to be told besides: how much to think, and what of a prompt to keep. Pure.

Source: the Anthropic guides "Extended thinking", "Effort" and "Prompt caching".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from paracle_domain.inference.chat import Thinking
from paracle_domain.inference.estimate import THOUGHTS

_BY_BUDGET: Final = re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:-20\d{6}|-latest|@.*)?$)")
"""Models that are told in tokens how much to think; later ones are told an effort, and choose themselves."""
_WORTH_KEEPING: Final = 4_096
"""Characters, about 1024 tokens: the API keeps no shorter beginning of a prompt."""
_KEEP: Final = {"type": "ephemeral"}
_NEVER_MARKED: Final = frozenset({"thinking", "redacted_thinking"})


@dataclass(frozen=True, slots=True)
class ThinkingFields:
    """What goes into the body: `thinking`, `output_config.effort`, and a `max_tokens` that leaves room for thoughts."""

    max_tokens: int
    setting: dict[str, Any] | None = None
    effort: str | None = None


def thinking_of(model: str, thinking: Thinking | None, max_tokens: int) -> ThinkingFields:
    """How `model` is told to think as much as `thinking` says, before it writes `max_tokens` at most."""
    if thinking is None:
        return ThinkingFields(max_tokens)
    if thinking == "off":
        return ThinkingFields(max_tokens, {"type": "disabled"})
    if _BY_BUDGET.match(model):
        budget = THOUGHTS[thinking]
        return ThinkingFields(max_tokens + budget, {"type": "enabled", "budget_tokens": budget})
    return ThinkingFields(max_tokens, {"type": "adaptive"}, thinking)


def with_cache_hints(body: dict[str, Any]) -> dict[str, Any]:
    """`body`, marked where its beginning is likely to come again.

    After tools and system prompt, which all calls of an agent begin with, if they are long enough to be kept at all;
    and after the last message, if the conversation goes on by itself: there are tools, or the model has spoken before.
    Writing to the cache costs a quarter more than reading without one, so a question that is asked once is not marked.
    """
    start = _text_length(body.get("tools")) + _text_length(body.get("system"))
    marked = dict(body)
    if start >= _WORTH_KEEPING and "system" in body:
        marked["system"] = [{"type": "text", "text": body["system"], "cache_control": _KEEP}]
    elif start >= _WORTH_KEEPING:
        *others, last = body["tools"]
        marked["tools"] = [*others, last | {"cache_control": _KEEP}]
    goes_on = "tools" in body or len(body["messages"]) > 1
    if goes_on and start + _text_length(body["messages"]) >= _WORTH_KEEPING:
        marked["messages"] = _marked(body["messages"])
    return marked


def _marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    *others, last = messages
    *blocks, end = last["content"]
    if end["type"] in _NEVER_MARKED or (end["type"] == "text" and not end["text"]):
        return messages
    return [*others, last | {"content": [*blocks, end | {"cache_control": _KEEP}]}]


def _text_length(found: Any) -> int:
    """About how many characters there are to read."""
    match found:
        case str():
            return len(found)
        case dict():
            return sum(map(_text_length, found.values()))
        case list():
            return sum(map(_text_length, found))
        case _:
            return 0
