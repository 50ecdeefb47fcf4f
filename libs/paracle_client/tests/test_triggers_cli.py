"""`paracle triggers` and `paracle delete`, and the client's calls behind them, against a REST API over real HTTP."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from paracle_client import AsyncClient, Client
from paracle_client.cli import main
from paracle_domain.errors import ErrorInfo
from paracle_domain.registry import Applied, AppliedSpec, RevisionList, SpecList, SpecView
from paracle_domain.run.commands import RunAccepted, RunStatus
from paracle_domain.trigger.commands import TriggerCounts, TriggerPage, TriggerRun, TriggerSummary, TriggerView

GONE = Applied(results=(AppliedSpec(kind="Trigger", name="nightly", revision=3, change="deleted"),))


@pytest.fixture
def paracle(
    api: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARACLE_URL", api.url)
    monkeypatch.setenv("COLUMNS", "180")

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["paracle", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run


def summary(make: Any, **more: Any) -> TriggerSummary:
    given: dict[str, Any] = {
        "name": "nightly",
        "revision": 2,
        "workflow": "report",
        "on": "0 2 * * 1-5 (Europe/Berlin)",
        "next_at": make.START,
        "counts": TriggerCounts(fired=3, dropped=1),
    }
    return TriggerSummary.model_validate(given | more)


def view(make: Any, *runs: TriggerRun, **more: Any) -> TriggerView:
    paused = {key: more.pop(key) for key in ("paused_by", "paused_at", "paused_reason") if key in more}
    return TriggerView(trigger=summary(make, **more), spec={}, next_fires=(make.START,), last_runs=runs, **paused)


def test_triggers_are_listed(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    several = (
        summary(make),
        summary(make, name="b", paused=True, next_at=None),
        summary(make, name="c", next_at=None, on="orders.*"),
        summary(make, name="d", problem="no zone"),
    )
    api.on("GET /v1/triggers", TriggerPage(triggers=several, next_cursor="d"))
    _, shown, _ = paracle("triggers", "--limit", "4")
    for part in ("nightly", "active, next at", "fired 3, dropped 1", "paused", "cannot fire: no zone", "--cursor d"):
        assert part in shown
    assert paracle("triggers", "ls", "--limit", "4")[1] == shown
    assert api.asked[0].query == {"limit": "4"}
    assert json.loads(paracle("triggers", "ls", "-o", "json")[1])["triggers"][0]["name"] == "nightly"
    api.on("GET /v1/triggers", TriggerPage(triggers=()))
    assert "no triggers yet" in paracle("triggers")[1]


def test_a_trigger_is_shown_with_its_last_runs(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    error = ErrorInfo(code="input_schema_mismatch", message="n is no number")
    runs = [
        {"status": "started", "run_status": "completed", "cause": "schedule", "scheduled_at": make.START},
        {"status": "failed", "error": error, "cause": "command"},
    ]
    told = [TriggerRun.model_validate({"run_id": make.RUN, "at": make.START, **one}) for one in runs]
    paused = {"paused_by": "ann", "paused_at": make.START, "paused_reason": "closed\x1b", "paused": True}
    api.on("GET /v1/triggers/nightly", view(make, *told, **paused))
    _, shown, _ = paracle("triggers", "show", "nightly")
    for part in ("nightly (revision 2)", "by ann: closed", "completed", "failed: n is no number", "so far"):
        assert part in shown
    assert "\x1b" not in shown
    assert json.loads(paracle("triggers", "show", "nightly", "-o", "json")[1])["paused_by"] == "ann"
    fresh = view(make, counts=TriggerCounts()).model_copy(update={"next_fires": ()})
    api.on("GET /v1/triggers/nightly", fresh)
    assert "no runs yet" in paracle("triggers", "show", "nightly")[1]


@pytest.mark.parametrize(
    ("schedule", "told"),
    [({"timezone": "Europe/Berlin"}, "2027-03-28 03:00:00 (Europe/Berlin)"), ({}, "2027-03-28 01:00:00 (UTC)")],
)
def test_its_next_times_are_told_as_its_schedule_means_them(
    paracle: Callable[..., Any], api: Any, make: Any, schedule: dict[str, str], told: str
) -> None:
    at = (datetime(2027, 3, 28, 1, tzinfo=UTC),)
    found = view(make).model_copy(update={"next_fires": at, "spec": {"schedule": {"cron": "30 2 * * *", **schedule}}})
    api.on("GET /v1/triggers/nightly", found)
    assert told in paracle("triggers", "show", "nightly")[1]


def test_a_trigger_is_paused_and_resumed(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    api.on("POST /v1/triggers/nightly/pause", view(make, paused=True, paused_by="ann"))
    api.on("POST /v1/triggers/nightly/resume", view(make, next_at=None))
    assert paracle("triggers", "pause", "nightly", "--reason", "closed")[1] == "nightly is paused\n"
    assert api.asked[-1].json == {"reason": "closed"}
    assert paracle("triggers", "resume", "nightly")[1] == "nightly is active\n"
    assert json.loads(paracle("triggers", "resume", "nightly", "-o", "json")[1])["trigger"]["name"] == "nightly"
    api.on("POST /v1/triggers/nightly/resume", view(make, problem="no zone\x1b[2J"))
    assert "\x1b" not in paracle("triggers", "resume", "nightly")[1]


def test_a_trigger_is_fired(paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api.on("POST /v1/triggers/orders/fire", RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING))
    assert paracle("triggers", "fire", "orders", "-m", '{"n": 1}', "--key", "once")[1] == f"{make.RUN}\n"
    assert (api.asked[-1].json, api.asked[-1].headers["idempotency-key"]) == ({"message": {"n": 1}}, "once")
    monkeypatch.setattr(sys, "stdin", io.StringIO("[2]"))
    paracle("triggers", "fire", "orders", "-m", "-")
    assert api.asked[-1].json == {"message": [2]}
    assert json.loads(paracle("triggers", "fire", "orders", "-o", "json")[1])["run_id"] == make.RUN
    code, _, said = paracle("triggers", "fire", "orders", "-m", "{")
    assert (code, "--message" in said, "it is no JSON" in said) == (1, True, True)


@pytest.mark.parametrize(("kind", "name"), [("Trigger", "trigger"), ("Provider", "provider"), ("Model", "model")])
def test_manifests_are_got_like_others(paracle: Callable[..., Any], api: Any, make: Any, kind: Any, name: str) -> None:
    spec = SpecView(
        kind=kind, name="a", revision=1, manifest={"kind": kind}, digest="d", author="x", created_at=make.START
    )
    api.on(f"GET /v1/manifests/{name}s", SpecList(specs=()))
    api.on(f"GET /v1/manifests/{name}s/a", spec)
    api.on(f"GET /v1/manifests/{name}s/a/revisions", RevisionList(kind=kind, name="a", revisions=()))
    assert f"no {name}s yet" in paracle("get", f"{name}s")[1]
    assert paracle("get", name, "a")[1] == f"kind: {kind}\n"
    assert paracle("get", name, "a", "--history")[0] == 0


def test_one_manifest_is_deleted(paracle: Callable[..., Any], api: Any) -> None:
    api.on("DELETE /v1/manifests/triggers/nightly", GONE)
    assert "deleted" in paracle("delete", "trigger", "nightly", "--dry-run")[1]
    assert api.asked[-1].query == {"dry_run": "true"}
    assert json.loads(paracle("delete", "trigger", "nightly", "-o", "json")[1])["results"][0]["change"] == "deleted"


def test_what_files_name_is_deleted(paracle: Callable[..., Any], api: Any, make: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Trigger\nmetadata: {name: nightly}\n")
    api.on("POST /v1/manifests/delete", GONE)
    assert "deleted" in paracle("delete", "-f", "a.yaml")[1]
    assert b"kind: Trigger" in api.asked[-1].body
    api.on("POST /v1/manifests/delete", make.problem("spec_invalid", 422, "in use", path="a.yaml#1 spec.workflow"))
    code, _, said = paracle("delete", "-f", "a.yaml")
    assert (code, "in use" in said) == (1, True)


@pytest.mark.parametrize("arguments", [(), ("agent",), ("agent", "a", "-f", "a.yaml"), ("ant", "a")])
def test_a_deletion_says_what(paracle: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    code, _, said = paracle("delete", *arguments)
    assert (code, said.startswith("error: ")) == (1, True)


async def test_the_clients_ask_the_same(api: Any, make: Any) -> None:
    api.on("GET /v1/triggers", TriggerPage(triggers=()))
    api.on("GET /v1/triggers/t", view(make))
    api.on("POST /v1/triggers/t/pause", view(make))
    api.on("POST /v1/triggers/t/resume", view(make))
    api.on("POST /v1/triggers/t/fire", RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING))
    api.on("DELETE /v1/agents/a", GONE)
    api.on("POST /v1/manifests/delete", GONE)
    with Client(api.url) as one:
        plain = [one.triggers(limit=3), one.get_trigger("t"), one.pause_trigger("t", "why"), one.resume_trigger("t")]
        fired = [one.fire_trigger("t", 1), one.delete("agents", "a"), one.delete_manifests("x", dry_run=True)]
    asked = [(item.method, item.path, item.query) for item in api.asked]
    api.asked.clear()
    async with AsyncClient(api.url) as other:
        assert plain == [
            await other.triggers(limit=3),
            await other.get_trigger("t"),
            await other.pause_trigger("t", "why"),
            await other.resume_trigger("t"),
        ]
        assert fired == [
            await other.fire_trigger("t", 1),
            await other.delete("agents", "a"),
            await other.delete_manifests("x", dry_run=True),
        ]
    assert [(item.method, item.path, item.query) for item in api.asked] == asked
