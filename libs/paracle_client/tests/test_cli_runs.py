"""`paracle runs …`: lists of them, one of them, two of them, and orders to many."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from paracle_domain.dead_letters import dead_letter_id
from paracle_domain.errors import ProviderUnavailable
from paracle_domain.ids import new_id
from paracle_domain.inference.deltas import Delta, TextDelta
from paracle_domain.inference.retrying import Retried, Retrying
from paracle_domain.run.commands import (
    ApprovalPage,
    RunPage,
    RunsAccepted,
    RunStatus,
    ShownStep,
    StepStatus,
    StepView,
    Stuck,
)
from paracle_domain.run.diff import Difference, Pins, RunsDiff
from paracle_domain.task.output import TaskOutput


def test_runs(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    api.on("GET /v1/runs", RunPage(runs=(make.view().run,), next_cursor="next"))
    out = paracle("runs", "--status", "completed", "--limit", "1").out
    assert make.RUN in out
    assert "more: --cursor next" in out
    assert api.asked[-1].query == {"status": "completed", "limit": "1"}
    api.on("GET /v1/runs", RunPage(runs=()))
    assert paracle("runs").out == "no runs\n"
    assert json.loads(paracle("runs", "-o", "json").out) == {"runs": [], "next_cursor": None}


def test_stuck_runs_are_shown_as_such(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    stuck = Stuck(dead_letter=dead_letter_id("x"), code="internal", since=make.START)
    run = make.view(RunStatus.RUNNING).run.model_copy(update={"stuck": stuck})
    api.on("GET /v1/runs", RunPage(runs=(run,)))
    assert "running, stuck" in paracle("runs", "ls", "--stuck").out
    assert api.asked[-1].query == {"stuck": "true", "limit": "20"}
    (shown,) = json.loads(paracle("runs", "-o", "json").out)["runs"]
    assert shown["stuck"]["dead_letter"] == stuck.dead_letter


def test_runs_ls_is_runs(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    api.on("GET /v1/runs", RunPage(runs=(make.view().run,)))
    options = ("--workflow", "triage", "--status", "failed", "--limit", "7", "--cursor", "c")
    assert paracle("runs", *options).out == paracle("runs", "ls", *options).out
    first, second = (asked.query for asked in api.asked)
    assert first == second == {"workflow": "triage", "status": "failed", "limit": "7", "cursor": "c"}


def test_runs_are_chosen_by_all_that_is_given(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    api.on("GET /v1/runs", RunPage(runs=()))
    more = ("--since", "2h", "--until", "2030-01-02T03:04:05+01:00", "--parent", make.RUN)
    paracle("runs", "ls", "--status", "failed", "--status", "paused", "-l", "a=b:c", "-l", "d=e", *more)
    asked = api.asked[-1].queries
    assert (asked["status"], asked["label"], asked["parent"]) == (["failed", "paused"], ["a:b:c", "d:e"], [make.RUN])
    paracle("runs", "ls", "-l", "k8s:app=a:b", "-l", "c\\d=e")
    assert api.asked.pop().queries["label"] == ["k8s\\:app:a:b", "c\\\\d:e"]
    assert asked["created_before"] == ["2030-01-02T02:04:05+00:00"]
    ago = datetime.now(UTC) - datetime.fromisoformat(asked["created_after"][0])
    assert timedelta(hours=2) <= ago < timedelta(hours=3)
    for never in ("tomorrow", "999999w"):
        assert paracle("runs", "--since", never).err.startswith(f"error: --since: '{never}' is no time")


@pytest.mark.parametrize(("words", "option"), [
    (("runs", "ls", "--parent", "nope"), "--parent"), (("cancel", "--parent", "nope"), "--parent"),
    (("runs", "ls", "--label", f"a={'x' * 201}"), "--label"), (("dlq", "ls", "--run", "nope"), "--run"),
    (("effects", "ls", "--run", "nope"), "--run"), (("usage", "--task", "nope"), "--task"),
])  # fmt: skip
def test_an_option_that_cannot_be_meant_is_named(
    paracle: Callable[..., Any], api: Any, words: tuple[str, ...], option: str
) -> None:
    result = paracle(*words)
    assert (result.code, api.asked) == (1, [])
    assert result.err.startswith(f"error: {option}: ")
    assert "(got '" in result.err


def test_a_search_that_rests_is_gone_on_with(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    run = make.view().run
    api.on(
        "GET /v1/runs", RunPage(runs=(run,), next_cursor="a"), RunPage(runs=(), next_cursor="b"), RunPage(runs=(run,))
    )
    assert len(json.loads(paracle("runs", "-o", "json", "--limit", "3").out)["runs"]) == 2
    assert [asked.query.get("cursor") for asked in api.asked] == [None, "a", "b"]


def test_show(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    api.on(f"GET /v1/runs/{make.RUN}", make.view())
    lines = paracle("runs", "show", make.RUN, "--parts", "3").out.splitlines()
    assert api.asked[-1].query == {"parts": "3", "outputs": "none"}
    assert lines[0] == f"{make.RUN}  triage (revision 1)  completed"
    assert [line.split() for line in lines[-3:]] == [
        ["STEP", "STATUS", "STARTED", "TOOK", "TRIES", "WHAT"],
        ["report", "pending", "agent", "writer"],
        ["sort", "pending", "tool", "sorter"],
    ]
    assert json.loads(paracle("runs", "show", make.RUN, "-o", "json").out)["run"]["run_id"] == make.RUN
    assert "outputs" not in api.asked[-1].query


def test_show_one_step(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    step = make.view().steps[0].model_copy(update={"output": "what it said"})
    api.on(f"GET /v1/runs/{make.RUN}/steps/report", ShownStep(run_id=make.RUN, step=step))
    assert paracle("runs", "show", make.RUN, "--step", "report").out == "what it said\n"
    shown = json.loads(paracle("runs", "show", make.RUN, "-s", "report", "-o", "json").out)
    assert shown["step"]["output"] == "what it said"


def test_many_runs_are_cancelled(paracle: Callable[..., Any], api: Any) -> None:
    api.on("POST /v1/runs/cancel", RunsAccepted(count=1_234))
    assert paracle("runs", "cancel", "--workflow", "w", "--label", "a=b").out == "told 1,234 runs to cancel\n"
    assert api.asked[-1].json == {
        "filter": {"workflow": "w", "statuses": [], "labels": {"a": "b"}, "stuck": False},
        "reason": "cancelled by request",
        "dry_run": False,
    }
    assert paracle("runs", "cancel", "--status", "queued", "--dry-run").out == "would cancel 1,234 runs\n"
    assert api.asked[-1].json["dry_run"] is True
    assert json.loads(paracle("cancel", "--workflow", "w", "-o", "json").out) == {"count": 1_234}


@pytest.mark.parametrize(("said", "code", "orders"), [("y\n", 0, 2), ("n\n", 1, 1)])
def test_a_person_is_asked_before_many_runs_are_cancelled(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch, said: str, code: int, orders: int
) -> None:
    api.on("POST /v1/runs/cancel", RunsAccepted(count=1))
    monkeypatch.setattr(sys, "stdin", make.Terminal(said))
    result = paracle("runs", "cancel", "--workflow", "w")
    assert result.code == code
    assert "cancel 1 run?" in result.err
    assert [asked.json["dry_run"] for asked in api.asked] == [True, False][:orders]
    assert paracle("runs", "cancel", "--workflow", "w", "--yes").out == "told 1 run to cancel\n"


def test_runs_that_differ_and_runs_that_do_not(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    old, new = (Pins(run_id=make.RUN, workflow="w", revision=n, plan=f"sha256:{n}", contract="1.0") for n in (1, 2))
    agent = {"part": "agent a", "left_revision": 3, "right_revision": 4}
    found = (
        Difference(
            part="workflow",
            left_revision=1,
            right_revision=1,
            path="spec.x",
            change="added",
            right=[{"a": 1, "b": None}],
        ),
        Difference(**agent, path="revision", change="changed", left=3, right=4),
        Difference(**agent, path="spec.instructions", change="changed", left="Be kind.", right="y" * 300),
        Difference(part="contract", path="contract", change="changed", left="0.9", right="1.0"),
        Difference(part="tool t", left_revision=1, path="", change="removed"),
        Difference(part="tool u", right_revision=2, path="", change="added"),
    )
    path = f"GET /v1/runs/{make.RUN}/diff"
    api.on(path, RunsDiff(left=old, right=new, same=False, differences=found))
    result = paracle("runs", "diff", make.RUN, make.RUN)
    assert result.code == 1
    assert result.out.splitlines() == [
        f"- {make.RUN}  w (revision 1)  sha256:1",
        f"+ {make.RUN}  w (revision 2)  sha256:2",
        "",
        "workflow (revision 1)",
        "  + spec.x",
        '      + [{"a": 1}]',
        "",
        "agent a (revision 3 → 4)",
        "  ~ spec.instructions",
        '      - "Be kind."',
        f'      + "{"y" * 198}…',
        "",
        "contract",
        "  ~ contract",
        '      - "0.9"',
        '      + "1.0"',
        "",
        "tool t (revision 1, removed)",
        "",
        "tool u (revision 2, added)",
    ]
    api.on(path, RunsDiff(left=old, right=old, same=True))
    same = paracle("runs", "diff", make.RUN, make.RUN)
    assert (same.code, same.out.splitlines()[2:]) == (0, ["both pinned the same plan"])
    assert json.loads(paracle("runs", "diff", make.RUN, make.RUN, "--json").out)["same"] is True


def test_a_diff_that_cannot_be_made_is_no_difference(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    api.on(f"GET /v1/runs/{make.RUN}/diff", make.problem("not_found", 404, "there is no run"))
    result = paracle("runs", "diff", make.RUN, make.RUN)
    assert (result.code, result.err) == (2, "error: there is no run\n")


def test_many_runs_are_resumed(paracle: Callable[..., Any], api: Any) -> None:
    api.on("POST /v1/runs/resume", RunsAccepted(count=2))
    assert paracle("runs", "resume", "--workflow", "w", "--reason", "mended").out == "told 2 runs to resume\n"
    assert (api.asked[-1].json["filter"]["workflow"], api.asked[-1].json["reason"]) == ("w", "mended")


@pytest.mark.parametrize("verb", ["cancel", "resume"])
@pytest.mark.parametrize("options", [(), ("run_1", "--workflow", "w")])
def test_it_must_be_clear_which_runs_are_meant(
    paracle: Callable[..., Any], api: Any, verb: str, options: tuple[str, ...]
) -> None:
    result = paracle("runs", verb, *options)
    assert (result.code, api.asked) == (1, [])
    assert result.err.startswith("error: RUN: give one run's id, or options")


@pytest.mark.parametrize("words", [("cancel",), ("runs", "cancel"), ("runs", "resume")])
def test_one_run_is_told_nothing_in_a_dry_run(
    paracle: Callable[..., Any], api: Any, make: Any, words: tuple[str, ...]
) -> None:
    result = paracle(*words, make.RUN, "--dry-run")
    assert (result.code, api.asked) == (1, [])
    assert result.err.startswith("error: --dry-run: it counts the runs that options choose")


@pytest.mark.parametrize(("words", "path"), [
    (("runs", "--stuck"), "runs"), (("approvals",), "approvals"), (("triggers", "--limit", "5"), "triggers"),
    (("sessions",), "sessions"), (("pools",), "pools"), (("budget", "--scope", "run"), "budgets"),
    (("effects", "--in-doubt"), "effects"), (("dlq", "--code", "internal"), "dead-letters"),
])  # fmt: skip
def test_what_lists_does_so_without_being_told_to(
    paracle: Callable[..., Any], api: Any, words: tuple[str, ...], path: str
) -> None:
    paracle(*words)
    paracle(words[0], "ls", *words[1:])
    bare, told = api.asked
    assert (bare.path, bare.queries) == (told.path, told.queries) == (f"/v1/{path}", told.queries)


def test_a_command_of_a_group_that_is_not_there_is_told_apart(paracle: Callable[..., Any], api: Any) -> None:
    refused = paracle("runs", "shw", "x")
    assert (refused.code, api.asked) == (2, [])
    assert "there is no command 'shw'; did you mean 'show'?" in refused.err


def test_a_step_says_why_its_model_does_not_answer(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    at = make.START + timedelta(seconds=30)
    error = ProviderUnavailable("connection refused").to_info()
    told = TaskOutput(seq=2, retrying=Retrying(call_id="c", error=error, tried=1, at=at))
    words = TaskOutput(seq=3, delta=Delta(call_id="c", seq=0, change=TextDelta(text="Hi")))
    theirs = TaskOutput(seq=4, retrying=Retrying(call_id="c", error=error, tried=1, at=at, agent="poet"))
    ended = TaskOutput(seq=5, retried=Retried(call_id="c", agent="critic"))
    tasks = [new_id("task") for _ in range(4)]
    waits, speaks, unheard, turned = (f"GET /v1/tasks/{task}/output" for task in tasks)
    api.on(waits, make.Reply(200, b"data: " + told.encode() + b"\n\n", "text/event-stream"))
    both = b"".join(b"data: " + one.encode() + b"\n\n" for one in (told, words))
    api.on(speaks, make.Reply(200, both, "text/event-stream"))
    many = b"".join(b"data: " + one.encode() + b"\n\n" for one in (words, theirs, ended))
    api.on(turned, make.Reply(200, many, "text/event-stream"))
    api.on(unheard, make.problem("unavailable", 503, "NATS is away"))
    steps = tuple(
        StepView(id=name, status=StepStatus.RUNNING, target_kind="agent", target="writer", task_id=task)
        for name, task in zip(("waits", "speaks", "unheard", "turned"), tasks, strict=True)
    )
    api.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.RUNNING, steps=steps))
    lines = paracle("runs", "show", make.RUN).out.splitlines()
    why = f"is tried again from {at.astimezone():%H:%M:%S} on: provider_unavailable: connection refused"
    assert [line.split()[0] for line in lines if why in line] == ["waits", "turned"]
    assert [f"poet: the model call failed, and {why}" in line for line in lines if why in line] == [False, True]
    assert [one.query for one in api.asked if "/tasks/" in one.path] == [{"follow": "false"}] * 4
    shown = json.loads(paracle("runs", "show", make.RUN, "-o", "json").out)
    assert len(shown["steps"]) == 4
    assert len([one for one in api.asked if "/tasks/" in one.path]) == 4


def test_a_run_is_shown_although_an_agent_runtime_hangs(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    task = new_id("task")
    step = StepView(
        id="a", status=StepStatus.RUNNING, target_kind="agent", target="writer", pool="agents", task_id=task
    )
    api.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.RUNNING, steps=(step,)))
    hangs = make.problem("deadline_exceeded", 504, "agent_runtime.get_pool did not answer within 5 s")
    api.on("GET /v1/pools/agents", hangs)
    api.on(f"GET /v1/tasks/{task}/output", hangs)
    api.on("GET /v1/approvals", ApprovalPage(approvals=()))
    shown = paracle("runs", "show", make.RUN)
    assert shown.code == 0
    assert "worker pools are unknown: agent_runtime.get_pool did not answer" in shown.out


def test_a_run_says_which_calls_people_are_asked_about(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    asked, held = make.approval(), make.approval(approval_id=new_id("apr"), ask="Pay 7?")
    steps = (
        StepView(id="a", status=StepStatus.RUNNING, target_kind="tool", target="pay", pool="agents"),
        StepView(id="ok", status=StepStatus.WAITING, target_kind="approval", target="", approval_id=asked.approval_id),
    )
    api.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.RUNNING, steps=steps))
    api.on("GET /v1/pools/agents", make.pool("agents"))
    api.on("GET /v1/approvals", ApprovalPage(approvals=(held, asked), next_cursor="more"))
    shown = paracle("runs", "show", make.RUN).out
    assert f"waits until people decide: Pay 7? (paracle approvals show {held.approval_id})" in shown
    assert shown.count("people decide") == 1
    assert f"and more: paracle approvals --status open --run {make.RUN}" in shown
    assert api.asked[-1].query == {"status": "open", "run_id": make.RUN, "limit": "10"}
