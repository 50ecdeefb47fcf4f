"""A REST API over real HTTP whose answers a test writes down, and runs to answer with."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from paracle_client import wire
from paracle_client.cli import following, main
from paracle_domain.audit import ModelUsage, UsageReport
from paracle_domain.ids import derive_id
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Message
from paracle_domain.run.commands import ApprovalView, RunAccepted, RunStatus, RunSummary, RunView, StepStatus, StepView
from paracle_domain.task.effects import EffectView
from paracle_domain.task.pools import PoolView

RUN = "run_01JDXXXXXXXXXXXXXXXXXXXXXX".replace("X", "A")
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@dataclass
class Reply:
    """One answer, `wait_s` seconds later. `cut` closes the connection in the middle of it."""

    status: int = 200
    body: bytes = b"{}"
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    wait_s: float = 0.0


@dataclass
class Asked:
    method: str
    path: str
    queries: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        return {key: values[0] for key, values in self.queries.items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeApi:
    """Answers `METHOD /path` with the replies given for it, in turn; the last one again and again."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._replies: dict[str, list[Reply]] = {}
        self._gone = threading.Event()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.answer(self)

            def do_POST(self) -> None:
                api.answer(self)

            def do_DELETE(self) -> None:
                api.answer(self)

            def do_PUT(self) -> None:
                api.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def on(self, what: str, *replies: Reply | Message) -> None:
        self._replies[what] = [one if isinstance(one, Reply) else Reply(body=one.encode()) for one in replies]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.asked.append(Asked(request.command, parts.path, parse_qs(parts.query), headers, body))
        replies = self._replies.get(f"{request.command} {parts.path}") or [problem("not_found", 404, "no such path")]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        self._gone.wait(reply.wait_s)
        request.send_response(reply.status)
        request.send_header("content-type", reply.kind)
        request.send_header("content-length", str(len(reply.body) + (100 if reply.cut else 0)))
        for name, value in reply.headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(reply.body)
        request.close_connection = reply.cut

    def close(self) -> None:
        self._gone.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def problem(code: str, status: int, detail: str, **more: Any) -> Reply:
    body = {"type": f"urn:paracle:error:{code}", "status": status, "detail": detail, "code": code, **more}
    return Reply(status, json.dumps(body).encode(), "application/problem+json")


def record(seq: int, kind: str, /, **data: Any) -> EventRecord:
    return EventRecord(entity="run", id=RUN, seq=seq, type=kind, at=START + timedelta(seconds=seq), data=data)


def stream(*records: EventRecord, cut: bool = False, comment: bool = False) -> Reply:
    text = b": keep-alive\n\n" if comment else b""
    for one in records:
        text += f"id: {one.seq}\nevent: {one.type}\n".encode() + b"data: " + one.encode() + b"\n\n"
    return Reply(200, text, "text/event-stream", cut=cut)


def run_started(seq: int = 1) -> EventRecord:
    given = {"run_id": RUN, "tenant": "default", "principal": "me", "workflow": "triage", "revision": 1, "plan": "p"}
    return record(seq, "run.started", **given)


def view(status: RunStatus = RunStatus.COMPLETED, **more: Any) -> RunView:
    summary = RunSummary(
        run_id=RUN, workflow="triage", revision=1, status=status, created_at=START, finished_at=None, plan="sha256:0"
    )
    steps = (
        StepView(id="report", status=StepStatus.PENDING, target_kind="agent", target="writer", needs=("sort",)),
        StepView(id="sort", status=StepStatus.PENDING, target_kind="tool", target="sorter"),
    )
    return RunView(**{"run": summary, "principal": "me", "steps": steps, "last_seq": 4, **more})


def whole_run() -> tuple[EventRecord, ...]:
    """A run of one tool step and one agent step that completes."""
    used = {"input_tokens": 1_000, "output_tokens": 234, "model_calls": 1, "cost_usd": "0.0012"}
    task = {"task_id": "task_01JDAAAAAAAAAAAAAAAAAAAAAA", "attempt": 1}
    return (
        run_started(1),
        record(2, "step.started", step="sort", target_kind="tool", target="sorter", **task),
        record(3, "step.completed", step="sort", attempt=1, output=[1, 2]),
        record(4, "step.started", step="report", target_kind="agent", target="writer", **task),
        record(5, "step.completed", step="report", attempt=1, output={"title": "All well"}, usage=used),
        record(6, "run.completed", output={"title": "All well", "count": 2}, usage=used),
    )


def approval(**more: Any) -> ApprovalView:
    """A refund that somebody is asked for."""
    given = {
        "approval_id": derive_id("apr", RUN, "ok"),
        "run_id": RUN,
        "workflow": "refund",
        "step": "ok",
        "status": "open",
        "ask": "Refund 12 EUR?",
        "action": {"amount": 12, "to": "Zoë"},
        "digest": "sha256:abc",
        "roles": ("finance",),
        "requested_by": "ann",
        "asked_at": START,
        "expires_at": START + timedelta(hours=1),
        **more,
    }
    return ApprovalView.model_validate(given)


def effect(**more: Any) -> EffectView:
    """A payment that may or may not have been made."""
    given = {
        "key": derive_id("eff", RUN, "pay"),
        "state": "in_doubt",
        "effect": "at_most_once",
        "tool": "pay",
        "revision": 3,
        "run_id": RUN,
        "step": "pay",
        "attempt": 1,
        "task_id": derive_id("task", RUN, "pay", 1),
        "call_id": derive_id("call", RUN, "pay"),
        "scope": "pay",
        "arguments_digest": "abc",
        "reason": "the connection broke",
        "intended_at": START,
        "changed_at": START,
        **more,
    }
    return EffectView.model_validate(given)


def pool(name: str = "gpu", **more: Any) -> PoolView:
    """A worker pool that one process serves."""
    replica = {
        "worker": derive_id("wrk", RUN, name),
        "host": "node-7",
        "pid": 4711,
        "state": "open",
        "in_hand": 2,
        "concurrency": 4,
        "memory_mb": 300,
        "memory_ceiling_mb": 1_024,
        "seen_at": START,
    }
    given = {
        "pool": name,
        "state": "open",
        "waiting": 1_500,
        "in_hand": 2,
        "concurrency": 4,
        "replicas": (replica,),
        **more,
    }
    return PoolView.model_validate(given)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.close()


@pytest.fixture
def triage(api: FakeApi) -> Any:
    """An API that has a run of `triage` on it, answered by the sandbox."""
    used = Usage(input_tokens=1_000, output_tokens=234, model_calls=1)
    api.on("POST /v1/workflows/triage/runs", RunAccepted(run_id=RUN, status=RunStatus.QUEUED))
    api.on("POST /v1/agents/helper/runs", RunAccepted(run_id=RUN, status=RunStatus.QUEUED))
    api.on(f"GET /v1/runs/{RUN}", view(output={"title": "All well", "count": 2}, usage=used, last_seq=6))
    api.on(f"GET /v1/runs/{RUN}/events", stream(*whole_run()))
    late = UsageReport(run_id=RUN, total=Usage())
    whole = UsageReport(run_id=RUN, total=used, by_model=(ModelUsage(provider="sandbox", model="rules", usage=used),))
    api.on(f"GET /v1/runs/{RUN}/usage", late, whole)
    return api


@pytest.fixture
def make() -> Any:
    """The helpers of this module, for tests (which cannot import it)."""
    return sys.modules[__name__]


class Terminal(io.StringIO):
    """Standard input with a person before it."""

    def isatty(self) -> bool:
        return True


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def paracle(
    api: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Result]:
    monkeypatch.setattr(wire, "pause_s", lambda _attempt, _error=None: 0.0)
    monkeypatch.setattr(following, "_POLL_S", 0.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARACLE_URL", api.url)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*args: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["paracle", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Result(int(ended.value.code or 0), said.out, said.err)

    return run
