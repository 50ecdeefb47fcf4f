"""One run, for people: what is said of it as a whole, and the rows of its steps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from paracle_client.cli.diffs import diff_lines
from paracle_client.cli.showing import heading, pools_at_work, rows
from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import new_id
from paracle_domain.run.commands import Parent, QueuePlace, RunStatus, StepStatus, StepView, Stuck
from paracle_domain.run.diff import Pins, RunsDiff


def step(name: str, status: StepStatus = StepStatus.COMPLETED, **more: Any) -> StepView:
    return StepView(**{"id": name, "status": status, "target_kind": "tool", "target": "t", **more})


def test_a_plain_run_is_said_in_a_few_lines(make: Any) -> None:
    view = make.view()
    ended = view.run.model_copy(update={"finished_at": make.START + timedelta(seconds=2), "labels": {"a": "b"}})
    lines = list(heading(view.model_copy(update={"run": ended})))
    assert lines[0] == f"{make.RUN}  triage (revision 1)  completed"
    assert lines[1].endswith("by me, took 2.0s")
    assert lines[2:] == ["labels a=b", "pinned sha256:0"]


def test_a_run_of_one_agent_is_of_no_revision(make: Any) -> None:
    view = make.view()
    invoked = view.run.model_copy(update={"workflow": "invoke-writer", "revision": 0})
    lines = list(heading(view.model_copy(update={"run": invoked})))
    assert lines[0] == f"{make.RUN}  invoke-writer  completed"
    pins = Pins(run_id=make.RUN, workflow="invoke-writer", revision=0, plan="sha256:0", contract="1.0")
    first, *_ = diff_lines(RunsDiff(left=pins, right=pins, same=True))
    assert first == f"- {make.RUN}  invoke-writer  sha256:0"


def test_whatever_else_there_is_to_a_run_is_said(make: Any) -> None:
    letter, other = new_id("dead"), new_id("run")
    view = make.view(
        RunStatus.QUEUED,
        parent=Parent(run_id=other, step="each[3]", attempt=2, root_run_id=other, depth=1),
        queue=QueuePlace(ahead=1_200, workflow_running=2, workflow_limit=2, tenant_running=9, tenant_limit=10),
        deadline_at=make.START,
        error=ErrorInfo(code="internal", message="a bug"),
        uncompensated=("pay",),
    )
    stuck = Stuck(dead_letter=letter, code="internal", since=make.START)
    more = {"stuck": stuck, "forked_from": other, "finished_at": None}
    lines = list(heading(view.model_copy(update={"run": view.run.model_copy(update=more)})))
    assert lines[1].endswith("by me")
    assert lines[3:5] == [f"child of {other}, its step each[3], attempt 2", f"forked from {other}"]
    assert lines[5].startswith("times out ")
    assert lines[6] == (
        "queued: 2 of at most 2 runs of the workflow are under way, 9 of at most 10 of the tenant; 1,200 before it"
    )
    assert lines[7].endswith(f"paracle dlq show {letter}")
    assert lines[8:] == ["ends with internal: a bug", "not undone: pay"]
    ended = list(heading(make.view(RunStatus.FAILED, error=view.error)))
    assert ended[-1] == "error internal: a bug"


def test_a_pool_that_is_to_undo_something_is_at_work(make: Any) -> None:
    undone = step("pay.compensate", StepStatus.RUNNING, pool="nobody")
    waiting = step("file", StepStatus.RUNNING, pool="slow", parts=(step("file[0]", StepStatus.RUNNING, pool="slow"),))
    assert pools_at_work(make.view(steps=(step("pay", pool="agents", compensation=undone), waiting))) == {
        "nobody",
        "slow",
    }


def test_a_run_that_is_about_to_be_admitted_says_so(make: Any) -> None:
    place = QueuePlace(ahead=0, workflow_running=0, tenant_running=0)
    assert "queued: about to start; 0 before it" in heading(make.view(RunStatus.QUEUED, queue=place))


def test_steps_are_a_tree(make: Any) -> None:
    child, approval = new_id("run"), new_id("apr")
    failed = ErrorInfo(code="tool_failed", message="no")
    times = {"started_at": make.START, "finished_at": make.START + timedelta(seconds=1.5)}
    each = step("each[0]", target="t", child_run_id=child)
    steps = (
        step("each", target_kind="map", target="", parts=(each,), parts_total=3, parts_ended=1, attempts=1, **times),
        step("pay", kept=True, compensated=True, compensation=step("pay.compensate", target="refund")),
        step("ask", StepStatus.WAITING, target_kind="approval", target="", approval_id=approval, due_at=make.START),
        step("wait", StepStatus.WAITING, target_kind="wait", target="", signal="paid"),
        step("told", target_kind="wait", target="", signal="paid"),
        step("bad", StepStatus.FAILED, degraded=True, error=failed, due_at=make.START),
    )
    found = [(row[0], row[1], row[3], row[4], row[5]) for row in rows(make.view(steps=steps))]
    until = found[5][4].partition("until ")[2]
    assert until
    assert found == [
        ("each", "completed", "1.5s", "1", "map; 1 of 3 ended"),
        ("  each[0]", "completed", "", "", f"tool t; run {child}"),
        ("  and 2 more", "", "", "", ""),
        ("pay", "completed", "", "", "tool t; kept; undone"),
        ("  pay.compensate", "completed", "", "", "tool refund"),
        ("ask", "waiting", "", "", f"approval {approval}; until {until}"),
        ("wait", "waiting", "", "", "wait for signal paid"),
        ("told", "completed", "", "", "wait for signal paid"),
        ("bad", "failed, tolerated", "", "", "tool t; tool_failed: no"),
    ]
