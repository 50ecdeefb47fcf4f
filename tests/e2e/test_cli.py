"""The command line against a stack of its own, in a tree of its own, from `up` to `down`, and the demo."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.histories import assert_each_step_once, assert_whole
from tests.e2e.world import MAILS, TRIAGE, paracle

from paracle_domain.machine import EventRecord
from paracle_embedded import ProcessRef

DOZING = """
apiVersion: paracle/v1
kind: Tool
metadata: {name: doze}
spec: {description: Sleep., backend: {type: builtin, function: sleep}, timeout_s: 600}
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: dozing}
spec: {steps: [{id: a, tool: doze, input: {seconds: 600}}]}
"""
_LOOKS = 20
BROKEN = """
apiVersion: paracle/v1
kind: Workflow
metadata: {name: broken}
spec: {steps: [{id: a, tool: read_mails, input: {path: /etc}}]}
"""


class Tree:
    """A copy of what a user has: the example, and whatever the command line makes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: set[ProcessRef] = set()

    def ok(self, *arguments: str) -> str:
        """Standard output of a command that succeeds."""
        told = self.run(*arguments)
        assert told.returncode == 0, told.stderr
        return told.stdout

    def json(self, *arguments: str) -> Any:
        """What a command that succeeds prints as JSON."""
        return json.loads(self.ok(*arguments, "-o", "json"))

    def fails(self, *arguments: str) -> str:
        """Standard error of a command that fails, as it should: with code 1 and without a trace."""
        told = self.run(*arguments)
        assert told.returncode == 1, told
        assert told.stderr.startswith("error: ")
        assert "Traceback" not in told.stderr
        return told.stderr

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return paracle(*arguments, cwd=self.folder)

    def ready(self) -> Any:
        """What `status` shows once everything answers: what stands still for a moment does not."""
        found: Any = None
        for _ in range(_LOOKS):
            told = self.run("status", "-o", "json")
            found = json.loads(told.stdout)
            if {one["state"] for one in found} == {"ready"}:
                assert told.returncode == 0
                return found
        raise AssertionError(found)

    def remember_processes(self) -> None:
        """What runs now must be gone in the end."""
        told = self.run("status", "-o", "json")
        self.processes |= {ProcessRef.of(one["pid"]) for one in json.loads(told.stdout) if one["pid"] is not None}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """A tree with a running stack."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(TRIAGE, folder / "examples" / "triage")
    (folder / "more.yaml").write_text(f"{DOZING}---{BROKEN}", encoding="utf-8")
    found = Tree(folder)
    try:
        found.ok("up", "--port", "0")
        found.remember_processes()
        found.ok("apply", "-f", "examples/triage", "-f", "more.yaml")
        yield found
    finally:
        down = found.run("down")
    assert down.returncode == 0, down.stderr
    assert found.processes
    assert not [one for one in found.processes if one.alive]


def test_up_finds_it_up_and_status_shows_all(tree: Tree) -> None:
    before = tree.ready()
    assert len(before) == 8
    assert "already up" in tree.run("up").stderr
    assert [one["pid"] for one in tree.ready()] == [one["pid"] for one in before]


def test_apply_get_and_explain(tree: Tree) -> None:
    again = tree.json("apply", "-f", "examples/triage")
    assert {one["change"] for one in again["results"]} == {"unchanged"}
    assert {one["name"] for one in tree.json("get", "workflows")["specs"]} == {"triage", "dozing", "broken"}
    assert tree.json("get", "agent", "mail-classifier")["manifest"]["spec"]["extends"] == "support-base"
    explained = tree.json("explain", "mail-extractor")
    assert explained["origins"]["limits.cost_usd"]["name"] == "support-base"
    assert explained["origins"]["tools[read_mails]"]["name"] == "mail-extractor"
    assert "mail-classifier" in tree.ok("get", "agents")
    (tree.folder / "shown.yaml").write_text(tree.ok("get", "agent", "mail-extractor"), "utf-8")
    assert [one["change"] for one in tree.json("apply", "-f", "shown.yaml")["results"]] == ["unchanged"]
    assert "no agent 'nobody'" in tree.fails("get", "agent", "nobody")


def test_a_run_from_its_start_to_its_events(tree: Tree) -> None:
    ended = tree.json("run", "triage", "--input", f"folder={MAILS}", "--watch", "--label", "of=test")
    run_id = ended["run"]["run_id"]
    assert ended["run"]["status"] == "completed"
    assert len(ended["output"]["tickets"]) == 14
    assert ended["output"]["report"]["by_category"]["outage"] == 1
    (listed,) = [one for one in tree.json("runs", "--workflow", "triage")["runs"] if one["run_id"] == run_id]
    assert (listed["status"], listed["labels"]) == ("completed", {"of": "test"})
    lines = tree.ok("events", run_id, "--follow", "-o", "json").splitlines()
    events = [EventRecord.model_validate_json(line) for line in lines]
    assert_whole(events, frozenset({"run.completed"}))
    assert_each_step_once(events)
    shown = tree.ok("events", run_id)
    assert len(shown.splitlines()) == len(events)
    assert f"{'run':<16}" in shown


def test_watching_shows_every_step(tree: Tree) -> None:
    shown = tree.ok("run", "triage", "-i", f"folder={MAILS}", "--watch")
    for step in ("inbox", "classify", "extract", "escalate", "report"):
        assert f"{step:<16} running → completed" in shown
    assert "queued → running" in shown
    assert "Urgent percent  14.3" in shown
    assert f"{'classify':<16} │ " in shown
    assert " │ " not in tree.ok("run", "triage", "-i", f"folder={MAILS}", "--watch", "--no-tokens")


def test_invoke_prints_the_answer_and_names_the_sandbox(tree: Tree) -> None:
    told = tree.run("invoke", "support-base", "My invoice INV-2026-10-3312 is wrong.")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("[sandbox] ")
    assert "SANDBOX" in told.stderr.upper()


def test_a_cancelled_run_is_cancelled(tree: Tree) -> None:
    run_id = tree.json("run", "dozing")["run_id"]
    assert tree.json("cancel", run_id, "--reason", "no time")["status"] in {"cancelling", "cancelled"}
    events = [json.loads(line) for line in tree.ok("events", run_id, "--follow", "-o", "json").splitlines()]
    assert events[-1]["type"] == "run.cancelled"
    assert [one["data"]["reason"] for one in events if one["type"] == "run.cancelling"] == ["no time"]
    assert not [one for one in events if one["type"] == "step.completed"]


def test_a_run_that_fails_is_no_success(tree: Tree) -> None:
    told = tree.fails("run", "broken", "--watch")
    assert told.count("forbidden") == 1
    assert "step 'a'" in told
    assert json.loads(tree.run("run", "broken", "--watch", "-o", "json").stdout)["run"]["status"] == "failed"


def test_the_demo_runs_on_what_is_up_and_leaves_it_up(tree: Tree) -> None:
    assert_demo(tree.run("demo"))
    tree.ready()


def test_the_demo_starts_and_stops_by_itself(tree: Tree) -> None:
    tree.ok("down")
    assert_demo(tree.run("demo"))
    told = tree.run("status", "-o", "json")
    assert told.returncode == 1
    assert {one["state"] for one in json.loads(told.stdout)} == {"down"}
    assert "cannot reach Paracle" in tree.fails("runs")
    tree.ok("up")
    tree.remember_processes()
    assert [one["workflow"] for one in tree.json("runs", "--limit", "1")["runs"]] == ["triage"], "runs outlive a stop"


def assert_demo(told: subprocess.CompletedProcess[str]) -> None:
    """It prints the report, what was used, and the run."""
    assert told.returncode == 0, told.stderr
    assert "Report on 14 items" in told.stdout
    assert "run        run_" in told.stdout
    assert "tok (" in told.stdout
    assert re.search(r"^events     \S*paracle events run_", told.stdout, re.MULTILINE)
    assert "SANDBOX" in told.stdout
