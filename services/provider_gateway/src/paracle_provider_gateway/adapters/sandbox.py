"""The sandbox as a provider: `sandbox/rules`, and `sandbox/slow`, which takes two seconds for each answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from paracle_domain.errors import InvalidInput, NotFound, quote
from paracle_domain.inference.chat import Part, ReasoningPart, TextPart, ToolCallPart
from paracle_domain.inference.deltas import Change, EndDelta, ReasoningDelta, TextDelta, ToolCallDelta
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.ports import Closing, Piece, Reply, StreamItem
from paracle_provider_gateway.sandbox.rules import answer

NAME: Final = "sandbox"
DELAYS_S: Final = {"rules": 0.0, "slow": 2.0}
_PIECE: Final = 24
_AT_ONCE_CHARS: Final = 50_000


class SandboxProvider:
    """Answers by rules, always the same to the same question, and says so."""

    name = NAME
    source = NAME
    sandbox = True
    listed_models = tuple(DELAYS_S)

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep

    async def default_model(self) -> str:
        return "rules"

    async def ask(self, model: str, request: Complete) -> Reply:
        _only_text(model, request)
        loop, delay_s = asyncio.get_running_loop(), _delay_s(model)
        until = loop.time() + delay_s
        if _length(request) <= _AT_ONCE_CHARS:
            reply = answer(model, request)
        else:
            reply = await asyncio.to_thread(answer, model, request)  # seconds of rules would silence all other calls
        if delay_s:  # what the rules take is a part of it, as of any model's time
            await self._sleep(max(0.0, until - loop.time()))
        return reply

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        reply = await self.ask(model, request)
        for index, part in enumerate(reply.message.parts):
            for change in _changes(part):
                yield Piece(index, change)
        yield Piece(0, EndDelta(finish_reason=reply.finish_reason))
        yield Closing(reply.finish_reason, reply.usage, reply.model)

    async def close(self) -> None:
        """There is nothing to close."""


def _delay_s(model: str) -> float:
    if model not in DELAYS_S:
        known = ", ".join(f"{NAME}/{name}" for name in DELAYS_S)
        raise NotFound(f"the sandbox has no model {quote(model)}; it has {known}", path="model")
    return DELAYS_S[model]


def _only_text(model: str, request: Complete) -> None:
    if any(message.attached for message in request.messages):
        message = f"{NAME}/{model} reads text only; choose a model that takes images and files"
        raise InvalidInput(message, path="model")


def _length(request: Complete) -> int:
    texts = (message.text for message in request.messages)
    results = (result.content for message in request.messages for result in message.tool_results)
    return sum(map(len, texts)) + sum(map(len, results))


def _changes(part: Part) -> list[Change]:
    match part:
        case TextPart():
            return [TextDelta(text=piece) for piece in _pieces(part.text)]
        case ReasoningPart():
            return [ReasoningDelta(text=piece) for piece in _pieces(part.text)]
        case ToolCallPart():
            first: list[Change] = [ToolCallDelta(id=part.id, name=part.name)]
            return [*first, *(ToolCallDelta(arguments=piece) for piece in _pieces(part.arguments_text))]
        case _:
            raise AssertionError(f"the sandbox never says a {part.type}")


def _pieces(text: str) -> list[str]:
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
