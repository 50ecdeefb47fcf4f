"""Conversations: what is refused, what survives the wire, and what is understood of a model's arguments."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paracle_domain.errors import MalformedMessage
from paracle_domain.inference.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    NamedTool,
    OutputFormat,
    ReasoningPart,
    Role,
    Sampling,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from paracle_domain.inference.request import AbortCall, CallLabels, Complete, abort_subject
from paracle_domain.inference.response import Completion, FinishReason, ModelInfo, ModelList
from paracle_domain.inference.usage import Usage
from paracle_domain.subjects import Subject

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)


def encoded(content: bytes) -> str:
    return b64encode(content).decode()


calls = st.builds(ToolCallPart, id=st.text(), name=st.text(), arguments=objects) | st.builds(
    ToolCallPart, id=st.text(), name=st.text(), invalid=st.text()
)
parts = (
    st.builds(TextPart, text=st.text())
    | st.builds(ImagePart, url=st.text())
    | st.builds(ImagePart, data=st.binary().map(encoded), media_type=st.just("image/png"))
    | st.builds(FilePart, name=st.text(min_size=1, max_size=9), url=st.text())
    | calls
    | st.builds(ToolResultPart, call_id=st.text(), content=st.text(), is_error=st.booleans())
    | st.builds(ReasoningPart, text=st.text(), provider=st.none() | st.text(), data=st.none() | objects)
)
messages = st.builds(ChatMessage, role=st.sampled_from(Role), parts=st.lists(parts, max_size=4).map(tuple))
requests = st.builds(
    Complete,
    call_id=st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True),
    messages=st.lists(messages, min_size=1, max_size=3).map(tuple),
    tools=st.lists(st.builds(ToolDefinition, name=st.text(min_size=1, max_size=9), input_schema=objects)).map(tuple),
    tool_choice=st.sampled_from(["auto", "none", "required"]) | st.just(NamedTool(name="find")),
    output=st.none() | st.builds(OutputFormat, json_schema=objects, strict=st.booleans()),
    sampling=st.builds(Sampling, temperature=st.none() | st.just(0.5), params=objects),
)


@given(requests)
def test_a_request_survives_the_wire(request: Complete):
    assert Complete.decode(request.encode()) == request


@given(messages, st.sampled_from(FinishReason))
def test_a_completion_survives_the_wire(message: ChatMessage, reason: FinishReason):
    completion = Completion(
        message=message, finish_reason=reason, usage=Usage(cost_usd=None), provider="p", model="m", latency_s=0.1
    )
    assert Completion.decode(completion.encode()) == completion


@given(objects)
def test_arguments_survive_being_sent_as_text(arguments: dict):
    sent = ToolCallPart(id="1", name="find", arguments=arguments)
    assert ToolCallPart.parse("1", "find", sent.arguments_text) == sent


@pytest.mark.parametrize("text", ['{"a": ', "[1]", '"words"', "NaN", '{"a": NaN}', "{'a': 1}", "[" * 100_000])
def test_arguments_that_are_no_json_object_are_kept_as_they_came(text: str):
    call = ToolCallPart.parse("1", "find", text)
    assert (call.arguments, call.invalid, call.arguments_text) == ({}, text, text)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_no_text_means_no_arguments(text: str):
    assert ToolCallPart.parse("1", "now", text) == ToolCallPart(id="1", name="now")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "either url or data"),
        ({"url": "u", "data": "QUJD", "media_type": "image/png"}, "either url or data"),
        ({"data": "QUJD"}, "needs its media_type"),
        ({"data": "QUJD", "media_type": "text/html"}, "pattern"),
    ],
)
def test_an_image_has_one_source_and_a_type(fields: dict, complaint: str):
    with pytest.raises(ValidationError, match=complaint):
        ImagePart(**fields)


def test_a_file_has_one_source_and_may_be_text():
    with pytest.raises(ValidationError, match="a file needs either url or data"):
        FilePart()
    texts = [("text/csv", "YSxi", "a,b"), ("application/json", "e30=", "{}"), ("application/pdf", "e30=", None)]
    for media_type, data, text in texts:
        assert FilePart(data=data, media_type=media_type).text == text
    assert FilePart(url="u").text is None


@pytest.mark.parametrize("data", ["d", "QUJ", "QUJD=", "QU JD", "QUJD\n", "_-8=", "Zoë=", "QUJD\x00", "===="])
def test_what_is_no_base64_is_no_data(data: str):
    for kind, media_type in ((ImagePart, "image/png"), (FilePart, "text/plain")):
        with pytest.raises(ValidationError) as wrong:
            kind(data=data, media_type=media_type)
        [found] = wrong.value.errors()
        assert found["loc"] == ("data",)
        assert f"{data!r} is no base64 (" in found["msg"]
        assert "or give a url instead" in found["msg"]


@given(st.binary())
def test_any_bytes_are_data_and_a_text_of_them_can_be_read(content: bytes):
    assert FilePart(data=encoded(content), media_type="text/plain").text == content.decode(errors="replace")


def test_a_message_is_taken_apart_by_kind_of_part():
    image, call = ImagePart(url="u"), ToolCallPart(id="1", name="find")
    result = ToolResultPart(call_id="1", content="found")
    said = ChatMessage.assistant("I will look.", call)
    assert (said.text, said.tool_calls, said.role) == ("I will look.", (call,), Role.ASSISTANT)
    assert ChatMessage.assistant().parts == ()
    assert ChatMessage.user("Look.", image).attached == (image,)
    assert ChatMessage.tool(result).tool_results == (result,)
    assert ChatMessage.system("Be brief.").text == "Be brief."


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"call_id":"c","messages":[]}', "messages"),
        (b'{"call_id":"a b","messages":[{"role":"user"}]}', "call_id"),
        (b'{"call_id":"c","messages":[{"role":"user","parts":[{"type":"smell"}]}]}', "messages[0].parts[0]"),
        (b'{"call_id":"c","messages":[{"role":"user"}],"timeout_s":0}', "timeout_s"),
    ],
)
def test_a_bad_request_names_the_field(body: bytes, path: str):
    with pytest.raises(MalformedMessage) as caught:
        Complete.decode(body)
    assert caught.value.path == path


def test_aborts_are_heard_on_a_subject_of_the_contract():
    assert Subject.parse(abort_subject("acme")).tail == ("provider_gateway", "abort")
    order = AbortCall(call_id="c1")
    assert AbortCall.decode(order.encode()) == order


def test_what_is_listed_survives_the_wire():
    listed = ModelList(models=(ModelInfo(name="sandbox/rules", provider="sandbox", sandbox=True),), default="x/y")
    assert ModelList.decode(listed.encode()) == listed
    assert CallLabels().run_id is None
