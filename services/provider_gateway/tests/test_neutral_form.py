"""Properties of the neutral form: what is said in it survives every API, there and back, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final

import pytest
from anthropic.types import message_create_params as anthropic_params
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as responses_params
from provider_gateway_samples import ask
from pydantic import TypeAdapter
from wire_formats import FORMATS, Format

from paracle_chassis.testing.wire import ToolUse, Turn
from paracle_domain.inference.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    NamedTool,
    OutputFormat,
    Part,
    ReasoningPart,
    Role,
    Sampling,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from paracle_domain.inference.deltas import build_message
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import FinishReason
from paracle_domain.provider.presets import Quirks
from paracle_provider_gateway.adapters import anthropic_wire, openai_wire, responses_wire
from paracle_provider_gateway.adapters.anthropic_wire import MessageReader
from paracle_provider_gateway.adapters.openai_wire import ChunkReader
from paracle_provider_gateway.adapters.responses_events import ResponseReader
from paracle_provider_gateway.adapters.wire import EventReader, read_stream
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Closing, Piece, Reply

ME = "mine"
ORIGIN = Origin(ME, "KEY")
ASKED = ask(call_id="the-call")
every_api = pytest.mark.parametrize("api", FORMATS.values(), ids=FORMATS)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
some_words = words.filter(bool)
names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(words, values, max_size=3)
ids = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
calls = st.lists(
    st.builds(ToolCallPart, id=ids, name=names, arguments=objects), max_size=4, unique_by=lambda call: call.id
)


def foreign(api: Format) -> st.SearchStrategy[ReasoningPart]:
    """Thoughts of another provider that speaks the same API."""
    return st.builds(ReasoningPart, text=words, provider=st.just("other"), data=st.just({"id": "x", "signature": "s"}))


def own(api: Format) -> st.SearchStrategy[Any]:
    """Thoughts as the API tells them."""
    made = {
        "anthropic": signed() | st.builds(redacted, some_words),
        "openai-responses": thought_items().map(part_of),
        "openai-chat": st.builds(ReasoningPart, text=some_words),
    }
    return made[api.api]


def signed() -> st.SearchStrategy[ReasoningPart]:
    return st.builds(
        ReasoningPart, text=words, provider=st.just(ME), data=some_words.map(lambda signature: {"signature": signature})
    )


def redacted(data: str) -> ReasoningPart:
    return ReasoningPart(provider=ME, data={"redacted": data})


def thought_items() -> st.SearchStrategy[dict[str, Any]]:
    """Reasoning items of the Responses API."""

    def text(kind: str) -> st.SearchStrategy[dict[str, Any]]:
        return words.map(lambda words: {"type": kind, "text": words})

    item = {"type": st.just("reasoning"), "id": ids, "summary": st.lists(text("summary_text"), max_size=3)}
    more = {"content": st.lists(text("reasoning_text"), min_size=1, max_size=3), "encrypted_content": some_words}
    return st.fixed_dictionaries(item, optional=more)


def part_of(item: dict[str, Any]) -> Part | None:
    return responses_wire.part_of(responses_wire.WireItem.model_validate(item), "id", ME)


@given(thought_items())
def test_a_thought_of_responses_goes_back_as_it_came(item: dict[str, Any]):
    said = ChatMessage(role=Role.ASSISTANT, parts=(part_of(item),))
    body = body_of(FORMATS["responses"], ask(messages=(said,)))
    assert body["input"] == [item]


@every_api
@given(data=st.data())
def test_what_a_model_said_is_what_it_is_told_to_have_said(api: Format, data: st.DataObject):
    thoughts = data.draw(st.lists(own(api) | foreign(api), max_size=2))
    texts = [TextPart(text=each) for each in data.draw(st.lists(some_words, max_size=1))]
    parts = (*thoughts, *texts, *data.draw(calls))
    said = ChatMessage(role=Role.ASSISTANT, parts=parts)
    body = body_of(api, ask(messages=(ChatMessage.user("?"), said, ChatMessage.user("!"))))
    kept = [part for part in parts if not isinstance(part, ReasoningPart) or part.provider == ME]
    assert told(api, body) == kept


def told(api: Format, body: dict[str, Any]) -> list[Part]:
    """The parts of what the model said, read from the body of a request as if it were a reply."""
    reply: dict[str, Any]
    match api.api:
        case "openai-chat":
            reply = {"choices": [{"message": body["messages"][1], "finish_reason": "stop"}]}
        case "openai-responses":
            reply = {"status": "incomplete", "output": [_as_output(item) for item in body["input"][1:-1]]}
        case "anthropic":
            if len(body["messages"]) == 1:  # it said nothing of its own
                return []
            reply = {"content": body["messages"][1]["content"], "stop_reason": "end_turn"}
    parts = read_whole(api, json.dumps(reply).encode()).message.parts
    return [part for part in parts if part != TextPart(text="(no text)")]


def _as_output(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("role") != "assistant":
        return item
    return {"type": "message", "content": [{"type": "output_text", "text": item["content"]}]}


turns = st.builds(
    Turn,
    text=words,
    reasoning=words,
    tools=st.lists(
        st.builds(ToolUse, name=names, arguments=objects.map(json.dumps), id=ids), max_size=3, unique_by=lambda t: t.id
    ).map(tuple),
    cached_tokens=st.integers(0, 9),
).filter(lambda turn: turn.text or turn.tools)


@every_api
@given(turn=turns, places=st.lists(st.integers(0, 10_000), max_size=6))
async def test_a_stream_adds_up_to_the_whole_reply_however_it_is_cut(api: Format, turn: Turn, places: list[int]):
    whole, streamed = read_whole(api, api.whole(turn)), await read_streamed(api, turn, places)
    assert streamed == whole
    found = [(call.id, call.name, call.arguments) for call in whole.message.tool_calls]
    assert found == [(tool.id, tool.name, json.loads(tool.arguments)) for tool in turn.tools]
    assert whole.message.text == turn.text
    assert whole.finish_reason is (FinishReason.TOOL_CALLS if turn.tools else FinishReason.STOP)


def read_whole(api: Format, body: bytes) -> Reply:
    match api.api:
        case "openai-chat":
            return openai_wire.read_reply(openai_wire.WireReply.model_validate_json(body), ASKED, ORIGIN)
        case "openai-responses":
            return responses_wire.read_reply(responses_wire.WireReply.model_validate_json(body), ASKED, ORIGIN)
        case "anthropic":
            return anthropic_wire.read_reply(anthropic_wire.WireReply.model_validate_json(body), ORIGIN)


class Chunks:
    """A response that arrives in pieces."""

    headers: Mapping[str, str] = {"content-type": "text/event-stream"}

    def __init__(self, data: bytes, places: list[int]) -> None:
        ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
        self._chunks = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


async def read_streamed(api: Format, turn: Turn, places: list[int]) -> Reply:
    readers: dict[str, Callable[[], EventReader]] = {
        "openai-chat": lambda: ChunkReader(ASKED, ORIGIN),
        "openai-responses": lambda: ResponseReader(ASKED, ORIGIN),
        "anthropic": lambda: MessageReader(ORIGIN),
    }
    body = Chunks(b"".join(api.events(turn)), places)
    items = [item async for item in read_stream(body, readers[api.api](), ORIGIN)]
    end = items[-1]
    assert isinstance(end, Closing)
    pieces = [(item.index, item.change) for item in items if isinstance(item, Piece)]
    return Reply(build_message(pieces), end.finish_reason, end.usage, end.model)


pictures = st.just(ImagePart(data="QUJD", media_type="image/png")) | st.just(ImagePart(url="https://i.example/x"))
files = st.just(FilePart(name="a.pdf", data="JVBERg==", media_type="application/pdf")) | st.just(
    FilePart(name="t.csv", data="YSxi", media_type="text/csv")
)
tool = st.builds(ToolDefinition, name=names, description=words, input_schema=st.just({"type": "object"}))


@st.composite
def requests(draw: st.DrawFn, api: Format) -> Complete:
    """A conversation with everything that may be in one."""
    told = words | st.just("Be brief. " * 500)
    turns: list[ChatMessage] = [ChatMessage.system(draw(told))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append(ChatMessage.user(draw(words), *draw(st.lists(pictures | files, max_size=2))))
        used = draw(calls)
        thoughts = draw(st.lists(own(api) | foreign(api), max_size=1))
        parts = (*thoughts, TextPart(text=draw(words)), *used)
        turns.append(ChatMessage(role=Role.ASSISTANT, parts=parts))
        results = [ToolResultPart(call_id=call.id, content=draw(words), is_error=draw(st.booleans())) for call in used]
        turns += [ChatMessage.tool(*results)] if results else []
    tools = draw(st.lists(tool, max_size=3, unique_by=lambda each: each.name))
    choices = st.sampled_from(["auto", "none", "required"])
    schema = OutputFormat(json_schema={"type": "object"}, strict=False)
    return ask(
        messages=tuple(turns),
        tools=tuple(tools),
        tool_choice=draw(choices | st.sampled_from([NamedTool(name=t.name) for t in tools])) if tools else "auto",
        output=draw(st.none() | st.just(schema)),
        sampling=Sampling(
            thinking=draw(st.sampled_from([None, "off", "low", "high"])),
            prompt_cache=draw(st.sampled_from(["auto", "off"])),
            temperature=draw(st.none() | st.floats(0, 2)),
            max_output_tokens=draw(st.none() | st.integers(1, 99)),
        ),
    )


def body_of(api: Format, request: Complete, *, stream: bool = False) -> dict[str, Any]:
    match api.api:
        case "openai-chat":
            return openai_wire.request_body("m", request, provider=ME, quirks=Quirks(), stream=stream)
        case "openai-responses":
            return responses_wire.request_body("m", request, provider=ME, stream=stream)
        case "anthropic":
            return anthropic_wire.request_body(
                "m", request, provider=ME, max_output_tokens=9, schema_format=None, stream=stream
            )


SDK_TYPES: dict[str, tuple[Any, Any]] = {
    "openai-chat": (chat_params.CompletionCreateParamsNonStreaming, chat_params.CompletionCreateParamsStreaming),
    "openai-responses": (
        responses_params.ResponseCreateParamsNonStreaming,
        responses_params.ResponseCreateParamsStreaming,
    ),
    "anthropic": (anthropic_params.MessageCreateParamsNonStreaming, anthropic_params.MessageCreateParamsStreaming),
}
STILL_TAKEN = {"temperature", "top_p"}
"""What SDKs no longer name for the sake of the newest models."""
ADAPTERS = {api: tuple(TypeAdapter(kind) for kind in kinds) for api, kinds in SDK_TYPES.items()}


@every_api
@settings(max_examples=40)
@given(data=st.data(), stream=st.booleans())
def test_bodies_are_what_the_sdks_take(api: Format, data: st.DataObject, stream: bool):
    body = body_of(api, data.draw(requests(api)), stream=stream)
    exhaust(ADAPTERS[api.api][stream].validate_python(body))
    assert body.keys() <= SDK_TYPES[api.api][stream].__annotations__.keys() | STILL_TAKEN


def exhaust(found: Any) -> None:
    """Look at everything: the SDKs' types have iterables, which are checked when they are iterated."""
    match found:
        case str() | bytes() | None:
            return
        case Mapping():
            for value in found.values():
                exhaust(value)
        case Iterable():
            for value in found:
                exhaust(value)
        case _:
            return


@every_api
@given(text=some_words, places=st.lists(st.integers(0, 10_000), max_size=3))
async def test_a_refusal_is_one_however_it_is_told(api: Format, text: str, places: list[int]):
    turn = Turn(text=text, finish=api.filtered)
    assert read_whole(api, api.whole(turn)).finish_reason is FinishReason.CONTENT_FILTER
    assert (await read_streamed(api, turn, places)).finish_reason is FinishReason.CONTENT_FILTER


CALLS: list[dict[str, Any]] = [
    {"id": "a", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"google": {"thought_signature": "s"}}},
    {"id": "b", "function": {"name": "g", "arguments": "{}"}},
]


type Json = dict[str, Any]


def chat_reply(message: Json) -> Reply:
    return read_whole(FORMATS["chat"], json.dumps({"choices": [{"message": message}]}).encode())


async def chat_stream(*deltas: Json) -> ChatMessage:
    """The message that these make, of which the last calls tools."""
    choices: list[Json] = [*({"delta": delta} for delta in deltas), {"finish_reason": "stop"}]
    chunks = [f"data: {json.dumps({'choices': [choice]})}\n\n".encode() for choice in choices]
    items = [item async for item in read_stream(Chunks(b"".join(chunks), []), ChunkReader(ASKED, ORIGIN), ORIGIN)]
    return build_message((item.index, item.change) for item in items if isinstance(item, Piece))


def sent_again(message: ChatMessage, provider: str = ME) -> Json:
    body = openai_wire.request_body("m", ask(messages=(message,)), provider=provider, quirks=Quirks(), stream=False)
    [sent] = body["messages"]
    return dict(sent)


NUMBERED: Final = [call | {"index": index} for index, call in enumerate(CALLS)]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_what_servers_want_back_with_the_results_of_tools_goes_back(field: str):
    """DeepSeek's thoughts, and Gemini's signatures."""
    message = chat_reply({"content": "I look.", field: "Hm, cats.", "tool_calls": CALLS}).message
    deltas: list[Json] = [{field: "Hm, "}, {field: "cats."}, {"content": "I look."}, {"tool_calls": NUMBERED}]
    assert await chat_stream(*deltas) == message
    sent = sent_again(message)
    assert sent[field] == "Hm, cats."
    assert [call.get("extra_content") for call in sent["tool_calls"]] == [CALLS[0]["extra_content"], None]
    other = json.dumps(sent_again(message, "other"))
    assert "cats" not in other
    assert "thought_signature" not in other


def thinking(text: str) -> Json:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


async def test_a_content_of_chunks_is_read_and_goes_back_with_its_thoughts():
    """Mistral's."""
    words: Json = {"type": "text", "text": "I look."}
    reference: Json = {"type": "reference", "reference_ids": [1]}
    message = chat_reply({"content": [thinking("Hm, cats."), reference, words], "tool_calls": CALLS}).message
    deltas: list[Json] = [{"content": [thinking("Hm, ")]}, {"content": [thinking("cats.")]}, {"content": "I "}]
    assert await chat_stream(*deltas, {"content": [words | {"text": "look."}]}, {"tool_calls": NUMBERED}) == message
    assert message.text == "I look."
    assert sent_again(message)["content"] == [thinking("Hm, cats."), words]
    assert sent_again(message, "other")["content"] == "I look."
    silent = chat_reply({"content": [{"type": "thinking", "thinking": "Hm."}], "tool_calls": CALLS}).message
    assert sent_again(silent)["content"] == [thinking("Hm.")]
    said = chat_reply({"content": [thinking("Hm."), words]})
    assert [type(part) for part in said.message.parts] == [ReasoningPart, TextPart]
    assert sent_again(said.message)["content"] == "I look."


DETAILS: Final[list[Json]] = [
    {"type": "reasoning.summary", "summary": "Hm, cats.", "id": "r1", "format": "openai-responses-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "c2VjcmV0", "id": "r1", "format": "openai-responses-v1", "index": 0},
    {"type": "reasoning.text", "text": " Dogs?", "signature": "sig", "format": "anthropic-claude-v1", "index": 1},
]


@pytest.mark.parametrize("plain", [{"reasoning": "Hm, cats. Dogs?"}, {}])
async def test_details_of_thoughts_go_back_unchanged(plain: Json):
    """OpenRouter's; in a stream they come in pieces."""
    message = chat_reply({"content": None, **plain, "reasoning_details": DETAILS, "tool_calls": CALLS}).message
    [thought, *_] = message.parts
    assert isinstance(thought, ReasoningPart)
    assert thought.text == "Hm, cats. Dogs?"
    sent = sent_again(message)
    assert sent["reasoning_details"] == DETAILS
    assert "reasoning" not in sent
    assert "reasoning_details" not in sent_again(message, "other")
    summary, encrypted, text = DETAILS
    pieces: list[tuple[str, list[Json]]] = [
        ("Hm, ", [summary | {"summary": "Hm, "}]),
        ("cats.", [summary | {"summary": "cats."}]),
        ("", [encrypted]),
        (" Dogs", [text | {"text": " Dogs", "signature": None}]),
        ("?", [text | {"text": "?"}]),
    ]
    deltas = [{"reasoning": words if plain else None, "reasoning_details": found} for words, found in pieces]
    assert await chat_stream(*deltas, {"tool_calls": NUMBERED}) == message


@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_refusal_is_none(nothing: str | None):
    message = {"content": "Yes.", "refusal": nothing}
    whole = read_whole(FORMATS["chat"], json.dumps({"choices": [{"message": message}]}).encode())
    assert whole.finish_reason is not FinishReason.CONTENT_FILTER
