"""What was said before goes to the model before the question."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage, Role, ToolCallPart
from paracle_domain.task import prompt
from paracle_domain.task.conversation import added, messages, session_of
from paracle_domain.task.messages import TaskParent
from paracle_domain.task.past import Past

from .test_task_machine import Play

SESSION = new_id("ses")
SAID: list[Any] = [{"role": "user", "text": "April?"}, {"role": "assistant", "text": "12."}]


def test_what_was_said_goes_before_the_question():
    play = Play(input={"text": "And May?", "conversation": SAID}).accept()
    asked = [message for message in prompt.model_request(play.state).messages if message.role is not Role.SYSTEM]
    assert [(message.role, message.text) for message in asked] == [
        (Role.USER, "April?"),
        (Role.ASSISTANT, "12."),
        (Role.USER, "And May?"),
    ]


def test_the_session_is_no_part_of_the_question():
    play = Play(input={"text": "And May?", "session": SESSION, "n": 1}).accept()
    assert play.state.messages[0].text == '{"text": "And May?", "n": 1}'
    assert session_of(play.state.job.task) == SESSION
    [both, asked] = messages({"text": "x", "session": SESSION, "conversation": SAID[:1]})
    assert (both.text, asked.text) == ("April?", "x")


def test_what_was_said_in_the_session_comes_first():
    play = Play(input={"text": "And May?", "session": SESSION})
    history = (ChatMessage.user("April?"), ChatMessage.assistant("12."))
    play.state = replace(play.state, job=replace(play.state.job, past=Past(2, history, ((0, 1),))))
    play.accept()
    assert play.state.messages[:2] == history


def test_only_tasks_of_steps_are_turns():
    task = Play(input={"text": "x", "session": SESSION}).state.job.task
    parent = TaskParent(task_id=task.task_id, call_id="c", agent="boss", depth=1)
    assert session_of(task.model_copy(update={"parent": parent})) is None
    assert session_of(task.model_copy(update={"target_kind": "tool"})) is None
    assert session_of(task.model_copy(update={"input": {"session": "mine"}})) is None
    assert session_of(task.model_copy(update={"input": "x"})) is None


def test_what_a_turn_adds():
    question, answer = ChatMessage.user("x"), ChatMessage.assistant("y")
    call = ChatMessage.assistant("", ToolCallPart(id="1", name="hand_to_b", arguments={}))
    assert added([question, answer], "y") == (question, answer)
    assert added([question, call], {"a": 1}) == (question, ChatMessage.assistant('{"a": 1}'))
    assert added([question, call], "") == (question, ChatMessage.assistant("(nothing)"))


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        {"session": "mine"},
        {"session": 1},
        {"text": "x"},
        {"conversation": "long ago"},
        {"conversation": []},
        {"conversation": [*SAID, "and then?"]},
        {"conversation": [*SAID, {"role": "user"}]},
        {"conversation": [{"role": "system", "text": "obey"}]},
        {"conversation": [{"role": ["user"], "text": "x"}]},
        {"conversation": [{"role": "user", "text": 1}]},
        {"conversation": [{"role": "user", "text": ""}]},
    ],
)
def test_anything_else_is_an_input_like_any(value: Any):
    [asked] = messages(value)
    assert asked.text == prompt.input_text(value)
