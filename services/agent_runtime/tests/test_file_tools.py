"""Builtin tools that read files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tool_bench import Bench

from paracle_domain.task.events import TaskCompleted, dump_event, load_event
from paracle_domain.task.inputs import Outcome
from paracle_domain.tool.validation import BUILTINS

FOLDER = {"path": "mails"}


async def test_a_folder_is_read_in_order_with_everything_said_about_each_file(bench: Bench):
    end = await bench.builtin("read_folder", FOLDER, "mails", max_chars=100)
    assert end.error is None
    assert isinstance(end.output, dict)
    files: Any = end.output["files"]
    assert [f["name"] for f in files] == ["a.txt", "b.eml", "c.txt", "d.txt"]
    cafe, mail, blank, huge = files
    assert (cafe["text"], cafe["charset"]) == ("Café €", "cp1252")
    assert (mail["subject"], mail["text"]) == ("Grüße", "Hallo,\nes brennt.\n")
    assert mail["headers"]["from"] == "Zoë <z@example.org>"
    assert (blank["empty"], blank["truncated"], cafe["empty"]) == (True, False, False)
    assert (huge["truncated"], len(huge["text"]), huge["size_bytes"]) == (True, 100, 100_000)


async def test_files_are_listed_and_read(bench: Bench):
    listed = await bench.builtin("list_files", {**FOLDER, "pattern": "*.txt", "max_files": 1}, "mails")
    assert listed.output == {"files": [{"name": "a.txt", "size_bytes": 6}], "total": 3, "truncated": True}
    read = await bench.builtin("read_text", {"path": "mails/d.txt", "max_chars": 5}, "mails")
    assert isinstance(read.output, dict)
    assert (read.output["text"], read.output["truncated"], read.output["charset"]) == ("üüüüü", True, "utf-8")


@pytest.mark.parametrize(
    ("function", "arguments", "code"),
    [
        ("read_text", {"path": "private/key.txt"}, "forbidden"),
        ("read_text", {"path": "mails"}, "input_schema_mismatch"),
        ("read_text", {"file": "x"}, "input_schema_mismatch"),
        ("read_folder", {"path": "mails/a.txt"}, "input_schema_mismatch"),
        ("list_files", {"path": "mails/none"}, "not_found"),
        ("format_disk", {}, "forbidden"),
    ],
)
async def test_builtins_fail_closed(bench: Bench, function: str, arguments: dict[str, Any], code: str):
    end = await bench.builtin(function, arguments, "mails")
    assert end.error is not None
    assert (end.error.code, end.outcome) == (code, Outcome.NOT_DONE)
    assert bench.bugs == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "mails/a.txt", "max_char": 5}, "there is no argument 'max_char'; did you mean 'max_chars'?"),
        ({}, "path is required"),
        ({"path": 7}, "path: Input should be a valid string"),
    ],
)
async def test_a_wrong_argument_is_named(bench: Bench, arguments: dict[str, Any], said: str):
    end = await bench.builtin("read_text", arguments, "mails")
    assert end.error is not None
    assert end.error.message == f"arguments: {said}"


async def test_the_registry_knows_all_functions_that_there_are(bench: Bench):
    end = await bench.builtin("format_disk", {}, "mails")
    assert end.error is not None
    assert end.error.message.endswith(f"there is no builtin 'format_disk'; there are {', '.join(sorted(BUILTINS))}")


async def test_files_made_to_break_their_reader_are_read_all_the_same(bench: Bench, tmp_path: Path):
    folder = tmp_path / "mails"
    (folder / os.fsdecode(b"caf\xe9.eml")).write_bytes(b"From: a\nSubject: =?utf-16?b?2AA=?=\n\nx")
    (folder / "deep.eml").write_bytes(b"From: " + b"(" * 15_000 + b"\nSubject: s\n\nabc\n")
    (folder / "half.eml").write_bytes(b"From: a\nSubject: s\nContent-Type: text/plain; charset=utf-7\n\n+2AA-\n")
    (folder / "circle").symlink_to("circle")
    end = await bench.builtin("read_folder", {**FOLDER, "pattern": "*.eml"}, "mails")
    assert end.error is None
    read = load_event(dump_event(TaskCompleted(output=end.output)))
    assert isinstance(read, TaskCompleted)
    files: Any = read.output
    unsayable = "caf\N{REPLACEMENT CHARACTER}.eml"
    assert [file["name"] for file in files["files"]] == ["b.eml", unsayable, "deep.eml", "half.eml"]
    for path in ("mails/circle", "mails/" + "x" * 4_000):
        lost = await bench.builtin("read_text", {"path": path}, "mails")
        assert lost.error is not None
        assert lost.error.code == "not_found"
    assert bench.bugs == []


async def test_a_folder_is_read_as_far_as_memory_bears(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paracle_agent_runtime.tools.builtin.files._FOLDER_CHARS", 50)
    end = await bench.builtin("read_folder", FOLDER, "mails")
    assert isinstance(end.output, dict)
    assert (len(end.output["files"]), end.output["total"], end.output["truncated"]) == (3, 4, True)  # type: ignore[arg-type]
