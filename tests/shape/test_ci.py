"""The last line of `.ci/run` tells the truth."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.shape.repository import ROOT

SUITE = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'


@pytest.mark.parametrize(
    ("reports", "failed_parts", "line"),
    [
        ({"parts": (5, 0, 0, 0), "e2e": (3, 0, 0, 0)}, [], "8 passed, 0 failed"),
        ({"parts": (5, 1, 1, 1), "e2e": (3, 0, 0, 0)}, ["parts"], "5 passed, 2 failed, 1 skipped"),
        ({"parts": (5, 0, 0, 0)}, ["lint"], "5 passed, 1 failed"),
        ({"parts": (5, 0, 0, 0)}, ["e2e", "parts"], "5 passed, 2 failed"),
        ({}, [], "0 passed, 0 failed"),
    ],
)
def test_the_sum_over_all_parts(tmp_path: Path, reports, failed_parts, line) -> None:
    for name, numbers in reports.items():
        (tmp_path / f"{name}.xml").write_text(SUITE.format(*numbers), encoding="utf-8")
    command = [ROOT / "scripts" / "tally", tmp_path, *failed_parts]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{line}\n"
