"""Conversations that grow long: what is summed up, when, what is kept, and what follows from a summary that fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.chat import ChatMessage, FilePart, ImagePart, Part, ReasoningPart, Role, ToolResultPart
from paracle_domain.inference.response import FinishReason
from paracle_domain.machine import fold
from paracle_domain.task import compaction, prompt
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task.compaction import due, weight
from paracle_domain.task.directives import CallModel
from paracle_domain.task.messages import TaskStatus
from paracle_domain.task.past import KeptTurn, Past, Recap, Summed, remembered, summed_up
from paracle_domain.task.state import TaskState, evolve
from paracle_domain.task.story import wishes
from paracle_domain.task.summing import SUMMARY_RETRIES

from .test_task_machine import AT, Play, wish

LONG = "word " * 200  # 250 tokens
TOO_LONG = ErrorInfo(code="context_exceeded", message="p: 9,000 tokens do not fit")


def talk(count: int, text: str = LONG) -> list[KeptTurn]:
    """As many turns of a session: a question and an answer each."""
    return [
        KeptTurn(n, (ChatMessage.user(f"q{n} {text}"), ChatMessage.assistant(f"a{n} {text}")))
        for n in range(1, count + 1)
    ]


def session(turns: list[KeptTurn], recap: Recap | None = None, guards: Any = (), **policy: Any) -> Play:
    """A turn after `turns`."""
    play = Play({"instructions": "Help.", "guards": guards, "compaction": policy})
    past = remembered(len(turns) + 1, turns, recap)
    play.state = replace(play.state, job=replace(play.state.job, past=past))
    return play.accept()


def worker(**policy: Any) -> Play:
    """A task that calls tools."""
    return Play({"instructions": "Help.", "limits": {"turns": 500, "tool_calls": 500}, "compaction": policy}).accept()


def lap(play: Play, number: int, text: str = LONG, **usage: Any) -> None:
    """One turn with a tool, whose result is long."""
    play.reply(wish("look", f"c{number}", n=number), **usage)
    play.returns(text)


def texts(messages: tuple[ChatMessage, ...]) -> list[str]:
    return [message.text[:2] for message in messages]


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_short_conversation_is_told_as_it_is():
    play = session(talk(5))
    assert due(play.state) is None
    assert len(prompt.model_request(play.state).messages) == 12


def test_a_long_one_is_summed_up_first():
    play = session(talk(5), above_tokens=2_500, keep_last=1, instructions="Name the towns.")
    [directive] = play.directives
    assert directive == CallModel(play.state.model_call_id, None, sums_up=True)
    asked = prompt.model_request(play.state)
    assert (asked.call_id, asked.stream_to, asked.tools, asked.output) == (directive.call_id, None, (), None)
    assert asked.messages[0].text.endswith("in at most 800 words.\n\nName the towns.")
    transcript = asked.messages[1].text
    assert "user: q1 word" in transcript
    assert "assistant: a4 word" in transcript
    assert "q5" not in transcript

    assert play.reply(text=" S ", cost_usd="0.5") == ["task.compacted"]
    assert play.state.usage.model_calls == 1
    assert play.state.turn == 0
    request = prompt.model_request(play.state)
    assert request.call_id != asked.call_id
    assert texts(request.messages[1:]) == ["Su", "S", "q5", "a5", "hi"]
    assert play.reply(text="done") == ["task.model_replied", "task.completed"]
    assert len(play.state.messages) == 12, "all of it is kept"
    assert play.state.recap == Recap(summary="S", turn=5, made_in=6, model="sandbox/rules")


def test_what_guards_say_of_answers_is_not_said_of_summaries():
    pii, shape = {"name": "pii", "type": "pii"}, {"name": "shape", "type": "json_schema", "json_schema": {}}
    play = session(talk(5), guards=[pii, shape], above_tokens=2_500)
    assert [guard.name for guard in prompt.model_request(play.state).guards] == ["pii"]
    play.reply(text="S")
    assert [guard.name for guard in prompt.model_request(play.state).guards] == ["pii", "shape"]


def test_another_model_may_sum_up():
    play = session(talk(5), above_tokens=2_000, model="openai/mini")
    request = prompt.model_request(play.state)
    assert (request.model, request.sampling.params) == ("openai/mini", {})


def test_fewer_turns_are_kept_where_they_take_too_much_room():
    play = session(talk(8), above_tokens=4_000, keep_last=6)
    play.reply(text="S")
    assert texts(play.state.told) == ["Su", "S", "q6", "a6", "q7", "a7", "q8", "a8", "hi"]


def test_what_is_longer_than_the_room_is_summed_up_bit_by_bit():
    play = session(talk(9), above_tokens=1_000, keep_last=0)
    seen = []
    while due(play.state) is not None:
        seen.append(due(play.state))
        assert weight(prompt.model_request(play.state).messages[1]) < 1_100
        play.reply(text="S")
    assert seen == [2, 4, 6, 8, 10, 12, 14, 16]
    assert texts(play.state.told) == ["Su", "S", "q9", "a9", "hi"]


def test_the_count_of_the_provider_counts():
    turns = talk(5, "x")
    turns[-1] = replace(turns[-1], tokens=120_000)
    play = session(turns, keep_last=1)
    assert due(play.state) == 8
    play.reply(text="S")
    compacted = play.events[-1]
    assert isinstance(compacted, ev.TaskCompacted)
    assert compacted.tokens_before == 120_005
    assert 30_000 < compacted.tokens_after < 50_000
    assert due(session(talk(5, "x"), keep_last=1).state) is None


def test_never_means_never():
    assert due(session(talk(9), above_tokens=100, when="never").state) is None


def test_what_an_input_quotes_has_turns_too():
    said = [{"role": role, "text": LONG} for _ in range(4) for role in ("user", "assistant")]
    play = Play({"compaction": {"above_tokens": 1_000, "keep_last": 1}}, input={"text": "q", "conversation": said})
    play.accept()
    assert due(play.state) == 2
    play.reply(text="S")
    assert due(play.state) == 4


def test_a_question_alone_is_not_summed_up():
    play = Play({"compaction": {"above_tokens": 100}}, input={"text": LONG}).accept()
    assert due(play.state) is None


# ── within a task ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_long_task_keeps_its_question_and_its_last_replies():
    play = worker(above_tokens=2_000, keep_last=2)
    number = 0
    while due(play.state) is None:
        lap(play, number := number + 1, input_tokens=255 * number)
    asked = prompt.model_request(play.state).messages[1].text
    assert asked.startswith("user: hi\n\nassistant calls look: ")
    assert "result: word" in asked
    play.reply(text="S")
    assert [message.role for message in play.state.told] == ["user", "assistant", "user", *["assistant", "tool"] * 2]
    assert play.state.told[2].text == "hi"
    assert len(play.state.messages) == 1 + 2 * number
    while due(play.state) is None:
        lap(play, number := number + 1, input_tokens=0)
    assert "Sum up" not in prompt.model_request(play.state).messages[0].text
    assert "assistant: S" in prompt.model_request(play.state).messages[1].text, "the summary is summed up with the rest"
    play.reply(text="T")
    assert play.state.told[1].text == "T"
    assert play.reply(text="done")[-1] == "task.completed"
    recap = play.state.recap
    assert recap is not None
    assert (recap.turn, recap.question, recap.resume) == (1, 0, len(play.state.messages) - 5)


def test_a_long_task_in_a_session_tells_the_next_turn_what_it_was_told():
    play = session(talk(2), above_tokens=1_500, keep_last=1)
    number = 0
    while play.state.summed is None or play.state.summed.upto <= 5:
        if due(play.state) is None:
            lap(play, number := number + 1, input_tokens=1_000 + 300 * number)
        else:
            play.reply(text="S")
    before = play.state.told
    play.reply(text="done")
    own = play.state.messages[len(play.state.job.past.messages) :]
    turns = [*talk(2), KeptTurn(3, own, 77)]
    again = remembered(4, turns, play.state.recap)
    assert again.messages == (*before, ChatMessage.assistant("done"))
    assert (again.starts, again.summary, again.tokens) == (((2, 3),), 2, 77)


# ── summaries that fail ──────────────────────────────────────────────────────────────────────────────────────────


def fails(play: Play, code: str = "provider_failed", *, retryable: bool = False) -> list[str]:
    error = ErrorInfo(code=code, message="no", retryable=retryable)
    return play.tell(told.ModelFailed(AT, play.state.model_call_id, error))


def test_a_summary_that_fails_trims_nothing():
    play = session(talk(5), above_tokens=2_000)
    assert fails(play) == ["task.compaction_failed"]
    assert [d.sums_up for d in play.directives] == [False]
    assert len(prompt.model_request(play.state).messages) == 12
    lap(play, 1, input_tokens=2_600)
    assert due(play.state) is not None, "before the next reply it is tried again"


def test_one_that_may_help_is_tried_again():
    play = session(talk(5), above_tokens=2_000)
    for tries in range(1, SUMMARY_RETRIES + 1):
        assert fails(play, retryable=True) == ["task.compaction_failed"]
        assert play.state.tried == tries
        [directive] = play.directives
        assert directive.sums_up
        assert directive.not_before is not None
    fails(play, retryable=True)
    assert [(d.sums_up, d.not_before) for d in play.directives] == [(False, None)]


def test_one_that_nobody_answered_is_asked_again_under_its_id():
    play = session(talk(5), above_tokens=2_000)
    first = play.state.model_call_id
    fails(play, "unavailable", retryable=True)
    [directive] = play.directives
    assert (directive.call_id, directive.sums_up) == (first, True)
    fails(play, "provider_unavailable", retryable=True)
    assert play.state.model_call_id != first


def test_none_is_tried_again_after_the_end_of_the_task():
    play = Play({"compaction": {"above_tokens": 2_000}}, deadline_at=AT + timedelta(seconds=0.1))
    play.state = replace(play.state, job=replace(play.state.job, past=remembered(6, talk(5), None)))
    play.accept()
    fails(play, retryable=True)
    assert not play.directives[0].sums_up


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ({"text": " "}, "empty"),
        ({"text": "S", "finish": FinishReason.LENGTH}, "did not come to its end (length)"),
        ({"text": LONG * 9}, "as long as"),
    ],
)
def test_a_summary_of_no_use_fails_and_is_paid_for(reply: dict[str, Any], why: str):
    play = session(talk(5), above_tokens=2_000)
    assert play.reply(**reply) == ["task.compaction_failed"]
    failed = play.events[-1]
    assert isinstance(failed, ev.CompactionFailed)
    assert why in failed.error.message
    assert play.state.usage.model_calls == 1


def test_summaries_count_for_the_limits():
    play = Play({"limits": {"tokens": 15}, "compaction": {"above_tokens": 2_000}})
    play.state = replace(play.state, job=replace(play.state.job, past=remembered(6, talk(5), None)))
    play.accept()
    assert play.reply(text="S") == ["task.compacted", "task.failed"]
    assert play.error == "limit_exceeded: limits.tokens: 15 of 15 tokens are used"


# ── calls that are too long for their model ──────────────────────────────────────────────────────────────────────


def test_a_call_that_is_too_long_is_made_again_with_a_summary():
    play = worker(keep_last=1)
    for number in range(4):
        lap(play, number, input_tokens=300)
    first = play.state.model_call_id
    assert play.tell(told.ModelFailed(AT, first, TOO_LONG)) == ["task.model_call_failed"]
    assert [d.sums_up for d in play.directives] == [True]
    ids = {first, play.state.model_call_id}
    while due(play.state) is not None:
        play.reply(text="S")
        assert play.state.model_call_id not in ids
        ids.add(play.state.model_call_id)
        if due(play.state) is None and len(play.state.told) > 5:
            play.tell(told.ModelFailed(AT, play.state.model_call_id, TOO_LONG))
    assert len(play.state.told) == 5, "the summary, the question, and one reply with its result"
    play.tell(told.ModelFailed(AT, play.state.model_call_id, TOO_LONG))
    assert play.error.startswith("context_exceeded: p: 9,000 tokens do not fit (nothing is left to sum up")


def test_without_a_summary_a_call_that_is_too_long_fails_the_task():
    play = worker(keep_last=1)
    for number in range(4):
        lap(play, number)
    play.tell(told.ModelFailed(AT, play.state.model_call_id, TOO_LONG))
    assert fails(play, "rate_limited") == ["task.compaction_failed", "task.failed"]
    assert play.error == (
        "context_exceeded: the conversation is too long for the model, and summing it up failed: rate_limited: no"
    )


def test_where_summing_up_failed_before_that_is_said():
    play = session(talk(5), above_tokens=2_000)
    fails(play)
    play.tell(told.ModelFailed(AT, play.state.model_call_id, TOO_LONG))
    assert "(summing up what was said before failed)" in play.error


def test_where_nothing_may_be_summed_up_that_is_said():
    play = session(talk(5), when="never")
    play.tell(told.ModelFailed(AT, play.state.model_call_id, TOO_LONG))
    assert "(compaction.when is never" in play.error


# ── lengths, and what is shown to whoever sums up ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("message", "tokens", "shown"),
    [
        (ChatMessage.user("12345678"), 6, "user: 12345678"),
        (ChatMessage.user("äöü"), 6, "user: äöü"),
        (ChatMessage.assistant("", wish("look", n=1)), 4 + 1 + 2, 'assistant calls look: {"n": 1}'),
        (ChatMessage.tool(ToolResultPart(call_id="1", content="ok")), 5, "result: ok"),
        (ChatMessage.tool(ToolResultPart(call_id="1", content="ok", is_error=True)), 5, "failed: ok"),
        (ChatMessage.tool(ToolResultPart(call_id="1", content="x" * 8_004)), 2_005, None),
    ],
)
def test_texts(message: ChatMessage, tokens: int, shown: str | None):
    assert weight(message) == tokens
    text = compaction.transcript([message])
    assert text == shown if shown else text.endswith("x [cut here: 8,000 of 8,004 characters]")


@pytest.mark.parametrize(
    ("part", "tokens", "shown"),
    [
        (ImagePart(url="https://x/y.png"), compaction.ATTACHED, "user gives an image"),
        (FilePart(name="a.pdf", url="https://x/a.pdf"), compaction.ATTACHED, "user gives the file a.pdf"),
        (FilePart(name="a.txt", data="aGk=", media_type="text/plain"), 1, "user gives the file a.txt: hi"),
        (ReasoningPart(text="hmmm"), 1, ""),
    ],
)
def test_other_parts(part: Part, tokens: int, shown: str):
    message = ChatMessage(role=Role.USER, parts=(part,))
    assert weight(message) == 4 + tokens
    assert compaction.transcript([message]) == shown


def test_a_provider_that_counts_nothing_is_not_believed():
    play = worker(above_tokens=400, keep_last=0)
    lap(play, 1, input_tokens=0, output_tokens=0)
    assert due(play.state) is None, "nothing but the newest reply, whose result the model has yet to see"
    lap(play, 2, input_tokens=0, output_tokens=0)
    assert due(play.state) is not None


def test_a_tool_has_nothing_to_sum_up():
    play = Play(target_kind="tool", target="look", input={"n": 1}).accept()
    assert due(play.state) is None
    assert compaction.size(play.state) == 0


# ── whatever happens ─────────────────────────────────────────────────────────────────────────────────────────────

lengths = st.integers(0, 400)
steps = st.lists(st.tuples(st.sampled_from(["lap", "lap", "two", "long", "fail", "repair"]), lengths), max_size=25)
policies = st.fixed_dictionaries({"above_tokens": st.integers(100, 2_000), "keep_last": st.integers(0, 5)})


def assert_sound(messages: tuple[ChatMessage, ...], question: str) -> None:
    """Speakers take turns, no call is without its result and no result without its call, and the question is there."""
    assert messages[0].role is Role.USER
    called: list[str] = []
    for before, after in pairwise(messages):
        assert (before.role is Role.ASSISTANT) != (after.role is Role.ASSISTANT)
        if before.tool_calls:
            called = [call.id for call in before.tool_calls]
            assert [result.call_id for result in after.tool_results] == called
        else:
            assert not after.tool_results
    assert any(message.text == question for message in messages)


@given(steps, policies, st.integers(0, 8), lengths)
def test_what_a_model_is_told_is_a_conversation_and_all_is_kept(
    story: list[tuple[str, int]], policy: dict[str, Any], turns: int, length: int
) -> None:
    play = session(talk(turns, "w" * length), **policy)
    start = TaskState(play.state.job)
    reached = 0
    for number, (kind, size) in enumerate(story):
        if play.state.status.terminal:
            break
        assert_sound(play.state.told, "hi")
        upto = due(play.state)
        assert prompt.model_request(play.state).call_id == play.state.model_call_id
        if kind == "fail":
            error = TOO_LONG if upto is None else ErrorInfo(code="rate_limited", message="no", retryable=True)
            play.tell(told.ModelFailed(AT, play.state.model_call_id, error))
        elif upto is not None:
            assert upto > reached, "each summary takes in more"
            play.reply(text="S" * (size * 9 if kind == "long" else 1))
            if play.state.summed is not None:
                reached = play.state.summed.upto
        elif kind == "two":
            play.reply(wish("look", "a", n=number), wish("look", "b", m=number), input_tokens=size)
            play.returns("x" * size, 1)
            play.returns("x" * size, 0)
        else:
            lap(play, number, "x" * size * 4, input_tokens=size if number % 3 else 0)
    replies = sum(isinstance(event, ev.ModelReplied) for event in play.events)
    assert len([m for m in play.state.messages if m.role is Role.ASSISTANT]) == turns + replies
    assert fold(evolve, start, [ev.load_event(ev.dump_event(event)) for event in play.events]) == play.state
    if not play.state.status.terminal:
        assert wishes(play.state)


@given(
    st.lists(st.integers(0, 4), max_size=6), st.integers(1, 7), st.integers(0, 4), st.integers(0, 6), st.integers(1, 7)
)
def test_a_past_has_every_message_once_from_its_summary_on(
    counts: list[int], turn: int, question: int, resume: int, made_in: int
) -> None:
    turns = [KeptTurn(n, [ChatMessage.user(f"{n}.{i}") for i in range(c)], n) for n, c in enumerate(counts, start=1)]
    recap = Recap(summary="S", turn=turn, question=question, resume=resume, made_in=made_in)
    past = remembered(len(counts) + 1, turns, recap)
    assert past.messages[:2] == summed_up("S")
    said = [message.text for message in past.messages[2:]]
    later = [m.text for kept in turns if kept.number > turn for m in kept.messages]
    assert said[len(said) - len(later) :] == later
    assert len(set(said)) == len(said)
    assert all(past.messages[at].text.startswith(f"{number}.") for at, number in past.starts)
    whole = remembered(len(counts) + 1, turns, None)
    assert [m.text for m in whole.messages] == [m.text for kept in turns for m in kept.messages]
    assert whole.tokens == next((n for n, c in reversed(list(enumerate(counts, start=1))) if c), None)


def test_a_count_from_before_the_summary_is_not_believed():
    recap = Recap(summary="S", turn=2, made_in=3)
    turns = [KeptTurn(n, (ChatMessage.user("q"), ChatMessage.assistant("a")), 9_000) for n in (1, 2)]
    assert remembered(4, turns, recap).tokens is None
    assert remembered(4, [*turns, KeptTurn(3, turns[0].messages, 50)], recap).tokens == 50


def test_a_summary_of_all_earlier_turns_begins_with_this_one():
    past = Past(turn=4, messages=tuple(ChatMessage.user("q") for _ in range(6)), starts=((0, 1), (2, 2), (4, 3)))
    assert past.recap(Summed(6, "S", "p/m"), 6) == Recap(summary="S", turn=4, made_in=4, model="p/m")
    assert past.recap(Summed(4, "S", "p/m"), 6).turn == 3


def test_ended_tasks_want_nothing() -> None:
    play = session(talk(5), above_tokens=2_000)
    play.tell(told.CancelRequested(AT, "enough"))
    assert play.state.status is TaskStatus.CANCELLED
    assert play.reply(text="S") == []
