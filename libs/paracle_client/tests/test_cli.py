"""The command line, against a REST API over real HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from paracle_client.cli import following, overhearing
from paracle_client.cli.app import COMMANDS, SECTIONS, spelled_out
from paracle_client.cli.app import app as cli
from paracle_client.cli.target import brief, moment
from paracle_domain.agent.spec import AgentSpec
from paracle_domain.dead_letters import dead_letter_id
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import EventRecord
from paracle_domain.registry import (
    Ancestor,
    Applied,
    AppliedSpec,
    Explanation,
    RevisionList,
    RevisionView,
    SpecList,
    SpecSummary,
    SpecView,
    Touched,
)
from paracle_domain.run.commands import ApprovalPage, RunAccepted, RunPage, RunStatus


def every_command() -> Iterator[tuple[str, ...]]:
    """The commands and their subcommands."""
    root = typer.main.get_group(cli)
    context = typer.Context(root)
    for name in COMMANDS:
        yield (name,)
        found = root.get_command(context, name)
        yield from ((name, below) for below in getattr(found, "commands", ()))


def unfinished(told: str) -> list[str]:
    """Lines of a help that break off, its usage aside."""
    return [line for line in told.splitlines()[1:] if line.endswith("...")]


@pytest.mark.parametrize("command", list(every_command()), ids=" ".join)
def test_every_command_explains_itself_with_an_example(paracle: Callable[..., Any], command: tuple[str, ...]) -> None:
    result = paracle(*command, "--help")
    assert result.code == 0
    assert f"Example: paracle {' '.join(command)}" in result.out
    assert unfinished(result.out) == []


def test_the_commands_are_told_by_what_they_are_for(paracle: Callable[..., Any]) -> None:
    told = paracle("--help").out
    assert [line for line in told.splitlines() if line.endswith(":")] == ["Options:", *(f"{one}:" for one in SECTIONS)]
    assert all(f"\n  {name} " in told for name in COMMANDS)
    assert unfinished(told) == []


def test_the_version_is_that_of_the_package(paracle: Callable[..., Any]) -> None:
    told = paracle("--version")
    assert (told.code, told.out) == (0, f"paracle {version('paracle-client')}\n")


def test_arguments_that_are_no_text_are_told(paracle: Callable[..., Any], api: Any) -> None:
    result = paracle("run", "triage", "--input", "name=\udcff.eml")
    assert (result.code, api.asked) == (1, [])
    assert result.err == "error: arguments: 'name=\\udcff.eml' is not UTF-8; write it in UTF-8\n"


def test_json_is_short_for_its_option(paracle: Callable[..., Any], api: Any) -> None:
    api.on("GET /v1/runs", RunPage(runs=()))
    assert json.loads(paracle("runs", "--json").out) == json.loads(paracle("runs", "ls", "-o", "json").out)
    assert spelled_out(["import", "mcp", "a", "--", "serve", "--json"])[3:] == ["--", "serve", "--json"]


def test_without_a_terminal_a_row_is_a_line(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    labels = {f"label-{number}": "x" * 60 for number in range(4)}
    api.on("GET /v1/runs", RunPage(runs=(make.view().run.model_copy(update={"labels": labels}),)))
    head, row = paracle("runs").out.splitlines()
    assert head.startswith("RUN ")
    assert row.startswith(make.RUN)
    assert row.endswith("x" * 60)


def test_times_of_today_are_short_in_lists(make: Any) -> None:
    now = datetime.now().astimezone()
    assert brief(now) == f"{now:%H:%M:%S}"
    assert brief(make.START) == f"{make.START.astimezone():%Y-%m-%d %H:%M}"
    assert brief(None) == moment(None) == ""
    assert moment(make.START) == f"{make.START.astimezone():%Y-%m-%d %H:%M:%S}"


def test_a_field_is_named_once(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.on("GET /v1/runs/x", make.problem("invalid_input", 422, "run_id: is no id", path="path.run_id"))
    assert paracle("runs", "show", "x").err == "error: run_id: is no id\n"
    monkeypatch.setenv("PARACLE_URL", "foo")
    assert paracle("runs").err.startswith("error: url: 'foo' is not an address")


def test_a_wrong_command_line_is_exit_code_2(paracle: Callable[..., Any]) -> None:
    assert "no command 'rnu'; did you mean 'run'?" in paracle("rnu").err
    assert paracle("fly").code == 2
    assert paracle("run").code == 2
    assert "'--status': 'asleep' is not one of 'queued'" in paracle("runs", "--status", "asleep").err
    assert paracle("status", "-o", "xml").code == 2


def test_status_says_how_to_start_what_does_not_run(paracle: Callable[..., Any], tmp_path: Path) -> None:
    down = paracle("status", "--root", str(tmp_path))
    assert (down.code, down.err) == (1, "nothing runs; `paracle up` starts it\n")
    assert "api_gateway" in down.out


def test_apply(paracle: Callable[..., Any], api: Any, tmp_path: Path) -> None:
    touched = (Touched(kind="Workflow", name="triage"),)
    done = Applied(results=(AppliedSpec(kind="Agent", name="a", revision=2, change="updated", touches=touched),))
    api.on("POST /v1/manifests", done)
    (tmp_path / "a.yaml").write_text("kind: Agent\n", encoding="utf-8")
    result = paracle("apply", "-f", "a.yaml")
    assert result.code == 0
    assert result.out.splitlines()[1].split() == ["agent", "a", "2", "updated", "workflow", "triage"]
    assert json.loads(paracle("apply", "-f", "a.yaml", "-o", "json").out) == json.loads(done.encode())


def test_apply_names_the_file_of_each_mistake(paracle: Callable[..., Any], api: Any, make: Any, tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("kind: Agent\n", encoding="utf-8")
    findings = [{"path": "manifests#1 spec", "message": "one"}, {"path": "manifests#2 spec.steps[0]", "message": "two"}]
    api.on(
        "POST /v1/manifests",
        make.problem("spec_invalid", 422, "nothing was applied", path="manifests#1 spec", problems=findings),
    )
    result = paracle("apply", "-f", ".")
    assert (result.code, result.out) == (1, "")
    assert result.err == "error: a.yaml#1 spec: one\nerror: b.yaml#1 spec.steps[0]: two\n"


def test_apply_of_what_cannot_be_read(paracle: Callable[..., Any], api: Any, tmp_path: Path) -> None:
    assert paracle("apply", "-f", "absent.yaml") == (
        1,
        "",
        "error: absent.yaml: cannot be read: No such file or directory\n",
    )
    (tmp_path / "bad.yaml").write_bytes(b"\xff")
    assert "error: bad.yaml: not UTF-8: byte 0xff in line 1" in paracle("apply", "-f", "bad.yaml").err
    assert api.asked == []


def test_a_long_list_goes_on_where_it_is_told_to(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    one = SpecSummary(kind="Agent", name="a", revision=1, author="me", created_at=make.START)
    api.on("GET /v1/agents", SpecList(specs=(one,), next_cursor="a"))
    assert "more: --cursor a\n" in paracle("get", "agents").out
    paracle("get", "agents", "--cursor", "a")
    assert api.asked[-1].query["cursor"] == "a"


def test_whoever_wrote_a_revision_says_nothing_to_the_terminal(
    paracle: Callable[..., Any], api: Any, make: Any
) -> None:
    odd = RevisionView(revision=1, digest="d", author="[/red]\x1b[2J", created_at=make.START, diff="+ long" * 30)
    api.on("GET /v1/agents/a/revisions", RevisionList(kind="Agent", name="a", revisions=(odd,)))
    told = paracle("get", "agent", "a", "--history")
    assert (told.code, "[/red]" in told.out, "\x1b" in told.out) == (0, True, False)
    assert "+ long" * 30 in told.out


def test_get(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    api.on("GET /v1/agents", SpecList(specs=()))
    assert "no agents yet" in paracle("get", "agents").out
    manifest = {"kind": "Agent", "metadata": {"name": "a"}}
    found = SpecView(
        kind="Agent", name="a", revision=1, manifest=manifest, digest="d", author="me", created_at=make.START
    )
    api.on("GET /v1/agents/a", found)
    assert paracle("get", "agent", "a", "--revision", "1").out == "kind: Agent\nmetadata:\n  name: a\n"
    assert api.asked[-1].query == {"revision": "1"}
    assert json.loads(paracle("get", "agent", "a", "-o", "json").out)["digest"] == "d"
    wrong = paracle("get", "agnets")
    assert (wrong.code, wrong.out) == (1, "")
    assert "did you mean 'agents'?" in wrong.err


def test_explain(paracle: Callable[..., Any], api: Any) -> None:
    base, own = Ancestor(name="base", revision=3), Ancestor(name="a", revision=1)
    api.on(
        "GET /v1/agents/a/explain",
        Explanation(
            name="a",
            revision=1,
            spec=AgentSpec(instructions="Be \x1b[2Jkind", tools=("search",)),
            origins={"instructions": base, "tools[search]": own, "limits.turns": base},
            lineage=(own, base),
        ),
    )
    lines = paracle("explain", "a").out.splitlines()
    assert lines[0] == "a (revision 1) ← base (revision 3)"
    rows = [[part.strip() for part in line.split("  ") if part.strip()] for line in lines[2:]]
    assert rows == [
        ["instructions", "base (revision 3)", "Be \ufffd[2Jkind"],
        ["limits.turns", "base (revision 3)", "20"],
        ["tools[search]", "a (revision 1)", "search"],
    ]


def test_run_prints_the_id_at_once(paracle: Callable[..., Any], triage: Any, make: Any) -> None:
    result = paracle("run", "triage", "-i", "folder=mails", "-i", "n:=3", "--label", "team=x", "--key", "k")
    assert result == (0, f"{make.RUN}\n", "")
    assert triage.asked[-1].json == {"input": {"folder": "mails", "n": 3}, "labels": {"team": "x"}}
    assert triage.asked[-1].headers["idempotency-key"] == "k"
    assert json.loads(paracle("run", "triage", "-o", "json").out)["run_id"] == make.RUN


def test_run_watch_shows_the_steps_and_the_output(paracle: Callable[..., Any], triage: Any) -> None:
    result = paracle("run", "triage", "--watch")
    assert result.code == 0
    assert "report           running → completed 1.0s 1,234 tok $0.0012" in result.out
    assert "All well" in result.out


def test_run_watch_as_json_keeps_standard_output_clean(paracle: Callable[..., Any], triage: Any) -> None:
    result = paracle("run", "triage", "--watch", "-o", "json")
    assert json.loads(result.out)["run"]["status"] == "completed"
    assert "running → completed" in result.err


@pytest.mark.parametrize("status", [one for one in RunStatus if one.terminal and one is not RunStatus.COMPLETED])
def test_run_watch_fails_unless_the_run_completed(
    paracle: Callable[..., Any], triage: Any, make: Any, status: RunStatus
) -> None:
    triage.on(
        f"GET /v1/runs/{make.RUN}", make.view(status, error={"code": "tool_failed", "message": "no disk"}, last_seq=0)
    )
    result = paracle("run", "triage", "--watch")
    assert result.code == 1
    assert f"error: run {make.RUN} is {status}: tool_failed: no disk" in result.err
    assert paracle("runs", "wait", make.RUN).err == result.err


def test_a_run_that_was_started_is_waited_for(paracle: Callable[..., Any], triage: Any, make: Any) -> None:
    told = paracle("runs", "wait", make.RUN)
    assert (told.code, told.err) == (0, "")
    assert "All well" in told.out
    assert json.loads(paracle("runs", "wait", make.RUN, "--json").out)["output"]["count"] == 2
    triage.on(f"GET /v1/runs/{make.RUN}", make.view(last_seq=0))
    assert paracle("runs", "wait", make.RUN).out == "", "a run that gave nothing"


def test_what_a_run_failed_with_is_said_once(paracle: Callable[..., Any], triage: Any, make: Any) -> None:
    error = {"code": "tool_failed", "message": "step 'a': no disk", "path": "steps.a"}
    step = {"target_kind": "tool", "target": "x", "status": "failed"}
    steps = [
        {**step, "id": name, "error": {"code": "forbidden", "message": message}}
        for name, message in (("a", "no disk"), ("b", "no key"))
    ]
    triage.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.FAILED, error=error, steps=steps, last_seq=0))
    assert paracle("run", "triage", "--watch").err.splitlines() == [
        f"error: run {make.RUN} is failed: tool_failed: step 'a': no disk",
        "error:   step b is failed: forbidden: no key",
        f"error:   all of its events: paracle events {make.RUN}",
    ]


@pytest.mark.parametrize(
    ("option", "shower"), [("--tokens", (overhearing, "shown")), ("--no-tokens", (following, "watch"))]
)
def test_ctrl_c_leaves_the_run_and_says_how_to_stop_it(
    paracle: Callable[..., Any],
    triage: Any,
    make: Any,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    shower: tuple[Any, str],
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*shower, interrupt)
    result = paracle("run", "triage", "--watch", option)
    assert result.code == 130
    assert f"paracle cancel {make.RUN}" in result.err
    assert not any(one.path.endswith("/cancel") for one in triage.asked)


def test_an_answer_counts_though_nobody_can_tell_whose_it_is(
    paracle: Callable[..., Any], triage: Any, make: Any
) -> None:
    triage.on(f"GET /v1/runs/{make.RUN}", make.view(output="Hello!", usage=Usage(model_calls=1), last_seq=6))
    triage.on(f"GET /v1/runs/{make.RUN}/usage", make.problem("unavailable", 503, "nobody answers for observability"))
    result = paracle("invoke", "helper", "Hi")
    assert (result.code, result.out) == (0, "Hello!\n")
    assert "whether the sandbox answered is unknown: nobody answers for observability" in result.err


@pytest.mark.parametrize("words", [
    ("run", "triage", "--watch"), ("run", "triage", "--watch", "--no-tokens"), ("invoke", "helper", "Hi"),
    ("invoke", "helper", "Hi", "--watch"),
])  # fmt: skip
def test_a_run_that_cannot_be_followed_is_named(
    paracle: Callable[..., Any], triage: Any, make: Any, words: tuple[str, ...]
) -> None:
    triage.on(f"GET /v1/runs/{make.RUN}", make.problem("unavailable", 503, "the orchestrator is away"))
    result = paracle(*words)
    assert (result.code, result.err.splitlines()) == (
        1,
        [
            f"error: run {make.RUN} was started all the same. Follow it: paracle events {make.RUN} --follow",
            "error: the orchestrator is away",
        ],
    )


def test_invoke_says_when_the_sandbox_answered(paracle: Callable[..., Any], triage: Any, make: Any) -> None:
    triage.on(f"GET /v1/runs/{make.RUN}", make.view(output="Hello!", usage=Usage(model_calls=1), last_seq=6))
    result = paracle("invoke", "helper", "Hi")
    assert (result.code, result.out) == (0, "Hello!\n")
    assert "answered by the sandbox" in result.err
    assert next(one for one in triage.asked if one.method == "POST").json["input"] == "Hi"


def test_the_environment_says_who_asks(paracle: Callable[..., Any], api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api.on("GET /v1/runs", RunPage(runs=()))
    monkeypatch.setenv("PARACLE_PRINCIPAL", "ann")
    monkeypatch.setenv("PARACLE_ROLES", "finance, lead")
    paracle("runs")
    assert api.asked[-1].headers["x-paracle-principal"] == "ann"
    assert api.asked[-1].headers["x-paracle-roles"] == "finance,lead"


def test_events(paracle: Callable[..., Any], triage: Any, make: Any) -> None:
    lines = paracle("events", make.RUN, "--follow").out.splitlines()
    assert len(lines) == 6
    assert lines[1].startswith("   2 ")
    as_json = paracle("events", make.RUN, "--follow", "--after", "2", "-o", "json").out.splitlines()
    assert [json.loads(line)["seq"] for line in as_json] == [3, 4, 5, 6]


def test_events_say_why_a_run_begins_to_fail(paracle: Callable[..., Any], triage: Any, make: Any) -> None:
    of_run = {"code": "tool_failed", "message": "step 'sort': no disk", "path": "steps.sort"}
    failed = make.record(2, "step.failed", step="sort", attempt=1, error={"code": "tool_failed", "message": "no disk"})
    failing = make.record(3, "run.failing", outcome="failed", error=of_run)
    ended = make.record(4, "run.failed", error=of_run)
    triage.on(f"GET /v1/runs/{make.RUN}/events", make.stream(make.run_started(), failed, failing, ended))
    assert paracle("events", make.RUN, "--follow").out.splitlines()[2].endswith("run.failing since steps.sort did")
    triage.on(f"GET /v1/runs/{make.RUN}/events", make.stream(failing, ended))
    told = paracle("events", make.RUN, "--follow", "--after", "2").out.splitlines()
    assert told[0].endswith("run.failing tool_failed: step 'sort': no disk")


def test_a_followed_run_that_gets_stuck_is_seen(paracle: Callable[..., Any], triage: Any, make: Any) -> None:
    letter = dead_letter_id("x")
    notes = [
        EventRecord(entity="stuck", id=letter, seq=seq, type=kind, at=make.START)
        for seq, kind in ((1, "run.stuck"), (1, "run.stuck"), (2, "run.unstuck"))
    ]
    first, *rest = make.whole_run()
    triage.on(f"GET /v1/runs/{make.RUN}/events", make.stream(first, *notes, *rest))
    lines = paracle("events", make.RUN, "--follow").out.splitlines()
    assert [line.split()[-2:] for line in lines if letter in line] == [["stuck", letter], ["unstuck", letter]]
    assert [line[:4].strip() for line in lines] == ["1", "", "", "2", "3", "4", "5", "6"]
    shown = paracle("run", "triage", "--watch").out
    assert f"stuck {letter}" in shown


def test_cancel(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    api.on(f"POST /v1/runs/{make.RUN}/cancel", RunAccepted(run_id=make.RUN, status=RunStatus.CANCELLING))
    assert paracle("cancel", make.RUN, "--reason", "enough").out == f"{make.RUN} is cancelling\n"
    assert api.asked[-1].json == {"reason": "enough"}
    api.on(f"POST /v1/runs/{make.RUN}/cancel", make.problem("illegal_transition", 409, "it has ended"))
    assert paracle("runs", "cancel", make.RUN) == (1, "", "error: it has ended\n")


def test_orders_to_a_run(paracle: Callable[..., Any], api: Any, make: Any, tmp_path: Path) -> None:
    for verb in ("pause", "resume", "signals/paid", "fork"):
        api.on(f"POST /v1/runs/{make.RUN}/{verb}", RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING))
    said = f"{make.RUN} is running\n"
    (tmp_path / "paid.json").write_text('[12, "EUR"]')
    for command in (
        ("pause", "--reason", "audit"),
        ("resume",),
        ("signal", "paid", "-p", "amount:=12", "-p", "by=card", "--key", "k"),
        ("signal", "paid", "--payload", "@paid.json"),
        ("signal", "paid"),
        ("fork", "--from", "pay"),
        ("fork", "--from", "pay", "--revision", "2", "-i", "a=1", "-l", "x=y", "--key", "k"),
    ):
        assert paracle("runs", command[0], make.RUN, *command[1:]) == (0, said, "")
    assert [asked.json for asked in api.asked] == [
        {"reason": "audit"},
        {"reason": ""},
        {"payload": {"amount": 12, "by": "card"}},
        {"payload": [12, "EUR"]},
        {"payload": None},
        {"from_step": "pay"},
        {"from_step": "pay", "revision": 2, "input": {"a": "1"}, "labels": {"x": "y"}},
    ]
    assert [api.asked[n].headers["idempotency-key"] for n in (2, 6)] == ["k", "k"]
    assert paracle("runs", "signal", make.RUN, "paid", "-p", "what").err.startswith("error: --payload: ")


def test_approvals_are_listed(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    one = make.approval(quorum=2, decisions=[{"principal": "bob", "decision": "approve", "at": make.START}])
    api.on("GET /v1/approvals", ApprovalPage(approvals=(one,), next_cursor="next"))
    options = ("--status", "open", "--run", make.RUN, "--workflow", "refund", "--approver", "finance", "--mine")
    shown = paracle("approvals", *options).out
    for part in (one.approval_id, "open (1 of 2)", "Refund 12 EUR?", "role finance", "more: --cursor next"):
        assert part in shown
    assert paracle("approvals", "ls", *options).out == shown
    assert api.asked[0].query == api.asked[1].query
    assert api.asked[0].query["mine"] == "true"
    api.on("GET /v1/approvals", ApprovalPage(approvals=()))
    assert paracle("approvals").out == "no approvals\n"
    assert json.loads(paracle("approvals", "-o", "json").out)["approvals"] == []


def test_an_approval_is_shown_with_its_exact_action(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    told = {"principal": "bob", "decision": "reject", "reason": "not ours\x1b[2J", "at": make.START}
    one = make.approval(decisions=[told], roles=(), escalated=True, action={"a\x1b": ["x" * 300]})
    api.on(f"GET /v1/approvals/{one.approval_id}", one)
    shown = paracle("approvals", "show", one.approval_id).out
    for part in ("Refund 12 EUR?", "of anybody, after an escalation", "by bob: not ours", "sha256:abc", "x" * 300):
        assert part in shown
    assert "\x1b" not in shown
    assert json.loads(paracle("approvals", "show", one.approval_id, "-o", "json").out)["digest"] == "sha256:abc"


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_person_confirms_what_was_shown(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    one, ended = make.approval(), make.approval(status="approved")
    path = f"/v1/approvals/{one.approval_id}"
    api.on(f"GET {path}", one, ended)
    api.on(f"POST {path}/decision", RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING))
    monkeypatch.setattr(sys, "stdin", make.Terminal("y\n"))
    monkeypatch.setenv("COLUMNS", "60")
    result = paracle("approvals", decision, one.approval_id, "--reason", "checked")
    assert result.code == 0
    assert '"to": "Zoë"' in result.out
    assert f"{decision.capitalize()} exactly this?" in result.out
    assert result.out.endswith(f"{one.approval_id} is approved; run {make.RUN}\n")
    assert api.asked[1].json == {"decision": decision, "digest": "sha256:abc", "reason": "checked"}


def test_what_a_person_is_shown_does_not_mix_with_json(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make.approval()
    path = f"/v1/approvals/{one.approval_id}"
    api.on(f"GET {path}", one)
    api.on(f"POST {path}/decision", RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING))
    monkeypatch.setattr(sys, "stdin", make.Terminal("y\n"))
    told = paracle("approvals", "approve", one.approval_id, "-o", "json")
    assert json.loads(told.out)["approval_id"] == one.approval_id
    assert '"to": "Zoë"' in told.err
    assert "Approve exactly this?" in told.err


def test_a_person_who_says_no_decides_nothing(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make.approval()
    api.on(f"GET /v1/approvals/{one.approval_id}", one)
    monkeypatch.setattr(sys, "stdin", make.Terminal("n\n"))
    assert paracle("approvals", "approve", one.approval_id).code == 1
    assert [asked.method for asked in api.asked] == ["GET"]


def test_a_script_names_what_it_decides_on(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    one = make.approval()
    path = f"/v1/approvals/{one.approval_id}"
    api.on(f"GET {path}", one)
    api.on(f"POST {path}/decision", RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING))
    refused = paracle("approvals", "approve", one.approval_id)
    assert (refused.code, refused.err[:16]) == (1, "error: --digest:")
    assert api.asked == []
    told = paracle("approvals", "approve", one.approval_id, "--digest", "sha256:seen", "-o", "json")
    assert json.loads(told.out)["status"] == "open"
    assert api.asked[0].json == {"decision": "approve", "digest": "sha256:seen", "reason": ""}


def test_nobody_there(paracle: Callable[..., Any]) -> None:
    result = paracle("runs", "--url", "http://127.0.0.1:9")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: cannot reach Paracle at http://127.0.0.1:9")


def test_a_reader_that_has_gone_is_no_traceback(api: Any, make: Any) -> None:
    api.on("GET /v1/runs", RunPage(runs=(make.view().run,) * 2_000))
    argv = [sys.executable, "-c", "from paracle_client.cli import main; main()", "runs", "-o", "json", "--url", api.url]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(10)
    child.stdout.close()
    said = child.stderr.read().decode()
    child.stderr.close()
    assert (child.wait(60), said) == (1, "")


def test_the_command_line_starts_without_loading_what_it_does_not_need() -> None:
    heavy = "('httpx2', 'paracle_domain', 'nats', 'yaml')"
    code = f"import sys, paracle_client.cli; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out == "[]\n"
