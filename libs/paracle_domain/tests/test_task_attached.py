"""Images and files as parts of an agent's input."""

from __future__ import annotations

from typing import Any

import pytest

from paracle_domain.inference.chat import FilePart, ImagePart
from paracle_domain.task import inputs as told
from paracle_domain.task import prompt
from paracle_domain.task.attached import MAX_DATA_CHARS, MAX_PARTS, problems, question

from .test_task_machine import AT, Play

PHOTO: dict[str, Any] = {"type": "image", "data": "QUJD", "media_type": "image/png"}
REPORT = {"type": "file", "name": "q3.pdf", "url": "https://files.example/q3.pdf"}


def test_what_is_attached_goes_to_the_model_beside_the_text():
    play = Play(input={"text": "What is on it?", "parts": [PHOTO, REPORT]}).accept()
    [_, asked] = prompt.model_request(play.state).messages
    assert asked.text == "What is on it?"
    assert asked.attached == (
        ImagePart(data="QUJD", media_type="image/png"),
        FilePart(name="q3.pdf", url="https://files.example/q3.pdf"),
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"parts": [PHOTO]}, ""),
        ({"parts": [PHOTO], "n": 1}, '{"n": 1}'),
        ({"parts": [PHOTO], "text": "x", "n": 1}, '{"text": "x", "n": 1}'),
    ],
)
def test_the_rest_of_the_input_is_its_text(value: Any, text: str):
    asked = question(value)
    assert (asked.text, len(asked.attached)) == (text, 1)


@pytest.mark.parametrize(
    "value", [{"parts": []}, {"parts": "x"}, {"parts": ["bolt", PHOTO]}, {"parts": [{"type": "nut"}]}, [PHOTO]]
)
def test_parts_of_something_else_are_input_like_any(value: Any):
    assert (question(value).attached, problems(value)) == ((), ())


@pytest.mark.parametrize(
    ("part", "path", "why"),
    [
        ({"type": "image"}, "input.parts[0]", "an image needs either url or data"),
        ({"type": "file", "data": "QUJD"}, "input.parts[0]", "needs its media_type"),
        ({"type": "image", "url": "file:///etc/passwd"}, "input.parts[0].url", "http:// or https://"),
        ({**PHOTO, "data": "no base64!"}, "input.parts[0].data", "'no base64!' is no base64 ("),
        ({**PHOTO, "media_type": "png"}, "input.parts[0].media_type", "(got 'png')"),
        ({**PHOTO, "data": "A" * (MAX_DATA_CHARS + 4)}, "input.parts[0].data", "are over the limit of"),
    ],
)
def test_what_cannot_be_attached_fails_the_task_at_once(part: Any, path: str, why: str):
    play = Play(input={"text": "?", "parts": [part]})
    assert play.tell(told.AcceptTask(AT)) == ["task.accepted", "task.failed"]
    assert play.state.error
    assert play.state.error.code == "input_schema_mismatch"
    assert play.state.error.path
    assert play.state.error.path == path
    assert why in play.state.error.message


def test_no_more_than_so_many():
    many: Any = {"parts": [PHOTO] * (MAX_PARTS + 1)}
    [found] = problems(many)
    assert (found.path, "at most 50" in found.message) == ("input.parts", True)
