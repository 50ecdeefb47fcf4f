"""What a provider says about its own reply, as far as it can be believed. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from paracle_domain.inference.usage import Usage
from paracle_provider_gateway.ports import Said

_MOST_TOKENS: Final = 10**12
_LONGEST_NAME: Final = 200


def credible[S: Said](reply: S) -> S:
    """`reply` with a usage that adds up, and without a model's name that cannot be kept."""
    usage, model = _added_up(reply.usage), _kept(reply.model)
    return reply if usage is reply.usage and model is reply.model else replace(reply, usage=usage, model=model)


def _added_up(used: Usage) -> Usage:
    """`used`; nothing, if it holds a number that no reply has.

    Some providers count what was read from a cache, or thought, beside the input or the output instead of as a part of
    it. A part that is more than its whole is such a one; taken as a part it could make the cost negative.
    """
    cached, written, thought = used.cached_tokens, used.cache_write_tokens, used.reasoning_tokens
    given, said = used.input_tokens, used.output_tokens
    if min(given, said, cached, written, thought) < 0 or max(given, said, cached, written, thought) > _MOST_TOKENS:
        return Usage(model_calls=1)
    if cached + written <= given and thought <= said:
        return used
    beside_input = cached + written if cached + written > given else 0
    beside_output = thought if thought > said else 0
    return used.model_copy(update={"input_tokens": given + beside_input, "output_tokens": said + beside_output})


def _kept(model: str) -> str:
    return model if len(model) <= _LONGEST_NAME and "\x00" not in model else ""
