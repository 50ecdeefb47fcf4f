"""Streams: whatever the order and the repetitions, the pieces add up to the whole, or one is said to be missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import ChatMessage, ImagePart, ReasoningPart, Role, TextPart, ToolCallPart
from paracle_domain.inference.deltas import (
    Change,
    Delta,
    EndDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    assemble,
    changes_of,
)
from paracle_domain.inference.response import FinishReason

objects = st.dictionaries(st.text(), st.integers(-(2**53), 2**53) | st.text() | st.none(), max_size=4)
replies = st.builds(
    ChatMessage,
    role=st.just(Role.ASSISTANT),
    parts=st.lists(
        st.builds(TextPart, text=st.text())
        | st.builds(ReasoningPart, text=st.text(), provider=st.none() | st.text(), data=st.none() | objects)
        | st.builds(ToolCallPart, id=st.text(), name=st.text(), arguments=objects)
        | st.builds(ToolCallPart, id=st.text(), name=st.text(), invalid=st.just('{"cut": ')),
        max_size=4,
    ).map(tuple),
)


def finely(index: int, change: Change) -> list[tuple[int, Change]]:
    """`change` in pieces of one character."""
    match change:
        case TextDelta() if len(change.text) > 1:
            return [(index, TextDelta(text=letter)) for letter in change.text]
        case ReasoningDelta():
            rest = [ReasoningDelta(text=letter) for letter in change.text]
            return [(index, change.model_copy(update={"text": ""})), *((index, piece) for piece in rest)]
        case ToolCallDelta():
            rest_of_call = [ToolCallDelta(arguments=letter) for letter in change.arguments]
            return [(index, change.model_copy(update={"arguments": ""})), *((index, piece) for piece in rest_of_call)]
        case _:
            return [(index, change)]


def deltas_of(changes: list[tuple[int, Change]], attempt: int = 1) -> list[Delta]:
    return [
        Delta(call_id="c", attempt=attempt, seq=seq, index=index, change=change)
        for seq, (index, change) in enumerate(changes)
    ]


@given(replies, st.data())
def test_pieces_add_up_in_any_order_and_however_often_they_come(reply: ChatMessage, data: st.DataObject):
    pieces = [piece for index, change in changes_of(reply) for piece in finely(index, change)]
    deltas = deltas_of([*pieces, (0, EndDelta(finish_reason=FinishReason.STOP))])
    again = data.draw(st.lists(st.sampled_from(deltas), max_size=3))
    assert assemble(data.draw(st.permutations([*deltas, *again]))) == reply


@given(replies)
def test_the_coarsest_changes_add_up_too(reply: ChatMessage):
    assert assemble(deltas_of(changes_of(reply))) == reply


def test_interleaved_parts_are_told_apart_by_their_index():
    changes: list[tuple[int, Change]] = [
        (0, ToolCallDelta(id="a", name="find", arguments='{"q":')),
        (1, ToolCallDelta(id="b", name="find")),
        (0, ToolCallDelta(arguments=" 1}")),
        (1, ToolCallDelta(arguments="{}")),
    ]
    assert [call.arguments for call in assemble(deltas_of(changes)).tool_calls] == [{"q": 1}, {}]


def test_a_later_attempt_replaces_an_earlier_one():
    first = deltas_of([(0, TextDelta(text="Half of"))], attempt=1)
    second = deltas_of([(0, TextDelta(text="All of it."))], attempt=2)
    assert assemble([*second, *first]).text == "All of it."


def test_nothing_adds_up_to_an_empty_reply():
    assert assemble([]) == ChatMessage(role=Role.ASSISTANT)


def test_a_missing_piece_is_noticed():
    deltas = deltas_of([(0, TextDelta(text=letter)) for letter in "abc"])
    with pytest.raises(InvalidInput, match="delta 1 of attempt 1 is missing"):
        assemble([deltas[0], deltas[2]])


def test_two_kinds_of_part_do_not_share_an_index():
    with pytest.raises(InvalidInput, match="reasoning, text"):
        assemble(deltas_of([(0, TextDelta(text="a")), (0, ReasoningDelta(text="b"))]))


def test_an_image_is_nothing_that_a_model_says():
    with pytest.raises(InvalidInput, match="image"):
        changes_of(ChatMessage.user("", ImagePart(url="u")))


def test_a_delta_survives_the_wire_and_has_an_id_of_its_own():
    delta = Delta(call_id="c", attempt=2, seq=5, index=1, change=ToolCallDelta(id="1", name="n", arguments="{"))
    assert Delta.decode(delta.encode()) == delta
    assert delta.message_id == "c.2.5"
