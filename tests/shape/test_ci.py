"""The end of `.ci/run` tells the truth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.shape.repository import ROOT

MODULE = """
import pytest
def test_right(): pass
def test_wrong(): assert 1 == 2
@pytest.fixture
def broken(): raise KeyError("who")
class TestGroup:
    def test_not_ready(self, broken): pass
    @pytest.mark.skip(reason="needs bwrap")
    def test_left_out(self): pass
"""
GOOD = "def test_right(): pass"


def report(folder: Path, part: str, text: str, *more: str) -> int:
    """Let pytest test a module with `text` and report on it; its exit code."""
    (folder / part).mkdir()
    (folder / part / "test_it.py").write_text(text, encoding="utf-8")
    options = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={folder}/{part}.xml"]
    command = [sys.executable, "-m", "pytest", *options, *more, "test_it.py"]
    bare = os.environ | {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder / part, env=bare, capture_output=True, check=False).returncode


def tally(folder: Path, tested: list[str], failed: list[str]) -> tuple[int, list[str]]:
    command: list[str | Path] = [ROOT / "scripts/tally", folder, "--tested", *tested, "--failed", *failed]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.stderr == ""
    return told.returncode, told.stdout.splitlines()


def test_all_is_well(tmp_path: Path) -> None:
    assert [report(tmp_path, part, GOOD) for part in ("a", "b")] == [0, 0]
    assert tally(tmp_path, ["a", "b"], []) == (0, ["2 passed, 0 failed"])


def test_what_failed_and_what_was_skipped_is_named(tmp_path: Path) -> None:
    assert [report(tmp_path, "a", GOOD), report(tmp_path, "b", MODULE)] == [0, 1]
    code, lines = tally(tmp_path, ["a", "b"], ["b"])
    assert code == 1
    assert lines == [
        "skipped 1: needs bwrap",
        "FAILED b: test_it.py::test_wrong (failure): assert 1 == 2",
        "FAILED b: test_it.py::TestGroup::test_not_ready (error): failed on setup with \"KeyError: 'who'\"",
        "2 passed, 2 failed, 1 skipped",
    ]


def test_a_module_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert report(tmp_path, "a", "import nothing_of_that_name") == 2
    code, lines = tally(tmp_path, ["a"], ["a"])
    assert (code, lines) == (1, ["FAILED a: test_it.py (error): collection failure", "0 passed, 1 failed"])


@pytest.mark.parametrize("failed", [[], ["a"]])
def test_a_part_that_tests_nothing_has_failed(tmp_path: Path, failed: list[str]) -> None:
    assert report(tmp_path, "a", GOOD, "-k", "no_such_test") == 5
    code, lines = tally(tmp_path, ["a"], failed)
    assert (code, lines[-1]) == (1, "0 passed, 1 failed")


def test_a_part_without_a_report_has_failed_if_it_says_so_or_was_to_test_something(tmp_path: Path) -> None:
    assert report(tmp_path, "a", GOOD) == 0
    assert tally(tmp_path, ["a"], ["lint"]) == (1, ["FAILED lint as a whole, see above", "1 passed, 1 failed"])
    assert tally(tmp_path, ["a", "b"], []) == (1, ["FAILED b: no test passed", "1 passed, 1 failed"])
