"""What guards are shown of messages, and how other texts come into their places."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.inference.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from paracle_provider_gateway.guards.passages import passages_of, with_texts


def data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


CALL = ToolCallPart(
    id="c1", name="send", arguments={"to": ["a", {"b": 41, "c": 1.5, "d": True, "e": None}], "text": "hi"}
)
CONVERSATION = (
    ChatMessage.system("Be kind."),
    ChatMessage.user("Hello.", FilePart(name="x.csv", data=data("a,b"), media_type="text/csv")),
    ChatMessage(role=Role.USER, parts=(TextPart(text="jo"), TextPart(text="hn"), ImagePart(url="https://x/y.png"))),
    ChatMessage(role=Role.ASSISTANT, parts=(ReasoningPart(text="hm", provider="p", data={"signature": "s"}), CALL)),
    ChatMessage(role=Role.ASSISTANT, parts=(ToolCallPart(id="c2", name="send", invalid="{no"),)),
    ChatMessage.tool(ToolResultPart(call_id="c1", content="done")),
    ChatMessage(role=Role.USER, parts=(FilePart(name="x.pdf", data="AAAA", media_type="application/pdf"),)),
)


def test_every_text_is_shown_in_its_order():
    assert [(shown.speaker, shown.text) for shown in passages_of(CONVERSATION)] == [
        ("system", "Be kind."), ("user", "Hello."), ("user", "x.csv"), ("user", "a,b"), ("user", "john"),
        ("reasoning", "hm"), ("arguments", "to"), ("arguments", "a"), ("arguments", "b"), ("arguments", "41"),
        ("arguments", "c"), ("arguments", "1.5"), ("arguments", "d"), ("arguments", "e"), ("arguments", "text"),
        ("arguments", "hi"), ("arguments", "{no"), ("tool", "done"), ("user", "x.pdf"),
    ]  # fmt: skip


def test_the_same_texts_leave_the_very_same_messages():
    texts = [shown.text for shown in passages_of(CONVERSATION)]
    assert all(a is b for a, b in zip(with_texts(CONVERSATION, texts), CONVERSATION, strict=True))


def test_other_texts_come_into_their_places():
    texts = [f"<{shown.text}>" for shown in passages_of(CONVERSATION)]
    system, user, split, assistant, invalid, tool, attached = with_texts(CONVERSATION, texts)
    assert (system.text, user.text, split.text) == ("<Be kind.>", "<Hello.>", "<john>")
    assert user.parts[1] == FilePart(name="<x.csv>", data=data("<a,b>"), media_type="text/csv")
    assert split.parts == (TextPart(text="<john>"), ImagePart(url="https://x/y.png"))
    thought, call = assistant.parts
    assert thought == ReasoningPart(text="<hm>")  # what its provider keeps of it would say what it said
    assert isinstance(call, ToolCallPart)
    assert call.arguments == {
        "<to>": ["<a>", {"<b>": "<41>", "<c>": "<1.5>", "<d>": True, "<e>": None}],
        "<text>": "<hi>",
    }
    assert invalid.tool_calls[0].invalid == "<{no>"
    assert tool.tool_results[0].content == "<done>"
    assert attached.parts == (FilePart(name="<x.pdf>", data="AAAA", media_type="application/pdf"),)


def test_names_that_become_one_lose_nothing():
    message = ChatMessage.assistant("", ToolCallPart(id="c", name="t", arguments={"a@b.de": 1, "c@d.de": 2}))
    (changed,) = with_texts([message], ["[EMAIL]", "1", "[EMAIL]", "2"])
    assert changed.tool_calls[0].arguments == {"[EMAIL]": 1, "[EMAIL]_": 2}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_arguments_stay_json_whatever_is_said_of_them(value):
    message = ChatMessage.assistant("", ToolCallPart(id="c", name="t", arguments={"value": value}))
    shown = passages_of([message])
    (same,) = with_texts([message], [one.text for one in shown])
    assert same is message
    (changed,) = with_texts([message], ["[X]"] * len(shown))
    again = ToolCallPart.parse("c", "t", changed.tool_calls[0].arguments_text)
    assert again == changed.tool_calls[0]
