"""What each API is asked: a neutral request in its own words."""

from __future__ import annotations

import json

import pytest
from provider_gateway_samples import SEARCH, Peer

from paracle_chassis.testing.wire import say
from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    NamedTool,
    OutputFormat,
    ReasoningPart,
    Sampling,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

CALL, RESULT = "function_call", "function_call_output"


class TestRequests:
    async def test_a_whole_conversation(self, peer: Peer):
        conversation = (
            ChatMessage.system("Be brief."),
            ChatMessage.user(
                "What is this?", ImagePart(data="QUJD", media_type="image/png"), ImagePart(url="http://i/x")
            ),
            ChatMessage.assistant("", ToolCallPart(id="1", name="search", arguments={"q": "x"})),
            ChatMessage.tool(ToolResultPart(call_id="1", content="nothing", is_error=True)),
            ChatMessage.assistant("", ToolCallPart(id="2", name="search", invalid="{oops")),
            ChatMessage.tool(ToolResultPart(call_id="2", content="arguments are no JSON")),
        )
        stop = () if peer.name == "responses" else ("END",)
        sampling = Sampling(temperature=0.5, top_p=0.9, max_output_tokens=99, stop=stop, params={"user": "u-1"})
        await peer.complete(
            peer.ask(messages=conversation, tools=(SEARCH,), tool_choice=NamedTool(name="search"), sampling=sampling)
        )
        body = peer.server.journal[0].body
        assert (body["temperature"], body["top_p"], body["user"]) == (0.5, 0.9, "u-1")
        sent = body["input" if peer.name == "responses" else "messages"]
        if peer.name == "responses":
            assert (body["max_output_tokens"], body["store"]) == (99, False)
            assert [item.get("role") or item["type"] for item in sent] == ["system", "user", *[CALL, RESULT] * 2]
            assert sent[1]["content"][1]["image_url"] == "data:image/png;base64,QUJD"
            assert json.loads(sent[4]["arguments"]) == {"invalid_arguments": "{oops"}
            assert sent[3] == {"type": RESULT, "call_id": "1", "output": "nothing"}
            assert body["tool_choice"] == {"type": "function", "name": "search"}
        elif peer.name == "openai":
            assert body["max_completion_tokens"] == 99
            assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "assistant", "tool"]
            assert sent[1]["content"][1]["image_url"]["url"] == "data:image/png;base64,QUJD"
            assert json.loads(sent[4]["tool_calls"][0]["function"]["arguments"]) == {"invalid_arguments": "{oops"}
            assert body["tool_choice"] == {"type": "function", "function": {"name": "search"}}
        else:
            assert (body["max_tokens"], body["system"], body["stop_sequences"]) == (99, "Be brief.", ["END"])
            assert [message["role"] for message in sent] == ["user", "assistant", "user", "assistant", "user"]
            assert sent[0]["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": "QUJD"}
            assert sent[2]["content"][0]["is_error"] is True
            assert sent[3]["content"][0]["input"] == {"invalid_arguments": "{oops"}
            assert body["tool_choice"] == {"type": "tool", "name": "search"}

    async def test_files_by_what_they_are(self, peer: Peer):
        report = FilePart(name="q3.pdf", data="JVBERg==", media_type="application/pdf")
        table = FilePart(name="t.csv", data="YSxi", media_type="text/csv")
        await peer.complete(peer.ask(messages=(ChatMessage.user("", report, table),)))
        [message] = peer.server.journal[0].body["input" if peer.name == "responses" else "messages"]
        if peer.name == "responses":
            assert message["content"] == [
                {"type": "input_file", "filename": "q3.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
                {"type": "input_text", "text": "File t.csv:\na,b"},
            ]
        elif peer.name == "openai":
            file = {"filename": "q3.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}
            assert message["content"] == [
                {"type": "file", "file": file},
                {"type": "text", "text": "File t.csv:\na,b"},
            ]
        else:
            pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
            assert [block["source"] for block in message["content"]] == [
                pdf,
                {"type": "text", "media_type": "text/plain", "data": "a,b"},
            ]
            assert message["content"][0]["title"] == "q3.pdf"

    @pytest.mark.parametrize(
        "part",
        [
            ImagePart(data="QUJD", media_type="image/tiff"),
            FilePart(name="a.zip", data="QUJD", media_type="application/zip"),
        ],
    )
    async def test_what_models_do_not_take_is_said_before_it_is_sent(self, peer: Peer, part: ImagePart | FilePart):
        with pytest.raises(InvalidInput, match="models take no"):
            await peer.complete(peer.ask(messages=(ChatMessage.user("?", part),)))
        assert peer.server.journal == []

    async def test_a_file_by_url_goes_where_it_is_taken(self, peer: Peer):
        asked = peer.ask(messages=(ChatMessage.user("?", FilePart(url="https://f.example/a.pdf")),))
        if peer.name == "openai":
            with pytest.raises(InvalidInput, match="as data, not by url"):
                await peer.complete(asked)
            return
        await peer.complete(asked)
        if peer.name == "responses":
            block = peer.server.journal[0].body["input"][0]["content"][1]
            assert block == {"type": "input_file", "file_url": "https://f.example/a.pdf"}
            return
        block = peer.server.journal[0].body["messages"][0]["content"][1]
        assert block["source"] == {"type": "url", "url": "https://f.example/a.pdf"}

    @pytest.mark.parametrize("strict", [False, True])
    async def test_a_schema_for_the_answer(self, peer: Peer, strict: bool):
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        peer.server.script(say('{"a": 1}'))
        output = OutputFormat(name="found", json_schema=schema, strict=strict)
        answer = await peer.complete(peer.ask(output=output))
        assert json.loads(answer.message.text) == {"a": 1}
        body = peer.server.journal[0].body
        if peer.name == "responses":
            wanted = {"type": "json_schema", "name": "found", "schema": schema, "strict": strict}
            assert body["text"] == {"format": wanted}
        elif peer.name == "openai":
            sent = {"name": "found", "schema": schema, "strict": strict}
            assert body["response_format"] == {"type": "json_schema", "json_schema": sent}
        elif strict:
            assert body["output_config"]["format"]["schema"]["properties"].keys() == {"a"}
            assert "system" not in body
        else:
            assert json.dumps(schema) in body["system"]

    async def test_empty_input_is_still_a_valid_request(self, peer: Peer):
        await peer.complete(peer.ask(""))
        body = peer.server.journal[0].body
        [message] = body.get("messages") or body["input"]
        assert message["content"] in ("", [{"type": "text", "text": "(no text)"}])

    @pytest.mark.parametrize(("name", "sampling"), [("stop", Sampling(stop=("END",))), ("seed", Sampling(seed=1))])
    async def test_what_an_api_does_not_take_is_refused_and_not_left_out(
        self, peer: Peer, name: str, sampling: Sampling
    ):
        taken = {"openai": {"stop", "seed"}, "anthropic": {"stop"}, "responses": set[str]()}
        if name in taken[peer.name]:
            await peer.complete(peer.ask(sampling=sampling))
            return
        with pytest.raises(InvalidInput, match=f"takes no {name}") as caught:
            await peer.complete(peer.ask(sampling=sampling))
        assert caught.value.path == f"sampling.{name}"

    async def test_redacted_thoughts_go_back_to_whom_they_came_from_only(self, peer: Peer):
        thought = ReasoningPart(provider="anthropic", data={"redacted": "xyz"})
        foreign = ReasoningPart(text="hm", provider="other", data={"signature": "s"})
        said = ChatMessage.assistant().model_copy(update={"parts": (thought, foreign, TextPart(text="A cat."))})
        await peer.complete(peer.ask(messages=(ChatMessage.user("?"), said, ChatMessage.user("!"))))
        sent = json.dumps(peer.server.journal[0].body)
        assert ('"redacted_thinking"' in sent) is (peer.name == "anthropic")
        assert '"hm"' not in sent
