"""The model: tools first, then an answer in the shape that was asked for."""

from __future__ import annotations

import json
import math
from typing import Final

from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import FinishReason
from paracle_domain.inference.usage import Usage
from paracle_provider_gateway.ports import Reply
from paracle_provider_gateway.sandbox.reading import Reading, read
from paracle_provider_gateway.sandbox.summary import overview, shorten, summarise
from paracle_provider_gateway.sandbox.synthesis import Synthesis
from paracle_provider_gateway.sandbox.tool_use import next_calls

LABEL: Final = "[sandbox]"
_CHARACTERS_PER_TOKEN: Final = 4
_TOKENS_PER_MESSAGE: Final = 4
_TEXT_ANSWER: Final = 600


def answer(model: str, request: Complete) -> Reply:
    """The reply to `request`: always the same to the same one."""
    reading = read(request.messages)
    calls = next_calls(request, reading)
    text = "" if calls else _final(request, reading)
    reason = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
    limit = request.sampling.max_output_tokens
    if limit is not None and tokens(text) > limit:
        text, reason = text[: limit * _CHARACTERS_PER_TOKEN], FinishReason.LENGTH
    message = ChatMessage.assistant(text, *calls)
    return Reply(message, reason, _usage(request, message), model)


def tokens(text: str) -> int:
    """An estimate of how many tokens `text` is."""
    return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)


def _final(request: Complete, reading: Reading) -> str:
    if request.output is not None:
        schema = request.output.json_schema
        return json.dumps(Synthesis(schema).value(schema, reading.matter), ensure_ascii=False)
    words = overview(reading.records) if reading.records else summarise(reading.matter.words, limit=_TEXT_ANSWER)
    return f"{LABEL} {shorten(words, _TEXT_ANSWER)}"


def _usage(request: Complete, reply: ChatMessage) -> Usage:
    schemas = [json.dumps(tool.model_dump()) for tool in request.tools]
    schemas += [json.dumps(request.output.json_schema)] if request.output else []
    asked = sum(_message_tokens(message) for message in request.messages) + sum(map(tokens, schemas))
    return Usage(input_tokens=asked, output_tokens=max(1, _message_tokens(reply)), model_calls=1)


def _message_tokens(message: ChatMessage) -> int:
    said = tokens(message.text) + sum(tokens(result.content) for result in message.tool_results)
    called = sum(tokens(call.name) + tokens(call.arguments_text) for call in message.tool_calls)
    return _TOKENS_PER_MESSAGE + said + called
