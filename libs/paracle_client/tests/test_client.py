"""Both clients, over real HTTP. Each test runs with the one and with the other."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from paracle_client import AsyncClient, Client, calls, wire
from paracle_domain.errors import (
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    MalformedMessage,
    NotFound,
    SpecInvalid,
    Unavailable,
)
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Done
from paracle_domain.registry import Applied, AppliedSpec
from paracle_domain.run.commands import (
    ApprovalPage,
    ApprovalStatus,
    RunAccepted,
    RunEvents,
    RunFilter,
    RunPage,
    RunsAccepted,
    RunStatus,
    ShownStep,
)
from paracle_domain.task.output import TaskOutput, ToolProgress
from paracle_domain.task.sessions import SessionPage, SessionSummary, SessionView


class Sync:
    """`AsyncClient` with the face of `Client`: one set of tests for both."""

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(url, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return self._iterate(result) if inspect.isasyncgen(result) else self._runner.run(result)

        return call

    def _iterate(self, events: Any) -> Iterator[EventRecord]:
        async def following() -> EventRecord | None:
            return await anext(events, None)

        while (record := self._runner.run(following())) is not None:
            yield record

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Client, Sync], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest, api: Any) -> Iterator[Any]:
    opened: list[Any] = []

    def connecting(url: str = api.url, **options: Any) -> Any:
        opened.append(request.param(url, **options))
        return opened[-1]

    yield connecting
    for client in opened:
        client.close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "pause_s", lambda _attempt, _error=None: 0.0)


def seqs(events: Iterator[EventRecord]) -> list[int]:
    return [record.seq for record in events]


def test_both_clients_have_every_call_alike() -> None:
    known = [one for name in calls.__all__ for one in vars(getattr(calls, name)).values()]
    made = {one for one in known if getattr(one, "__annotations__", {}).get("return", "")[:5] == "Call["}
    parts = {calls.runs.events, calls.runs.task_output, calls.people.settle_all}  # of what takes more than one call
    assert parts < made
    for client in (Client, AsyncClient):
        methods = {one.__name__: one for one in vars(client).values() if inspect.isfunction(one)}
        assert {one.__name__ for one in made - parts if not one.__name__.startswith("_")} <= {*methods}
        assert inspect.getdoc(methods["cancel"]) == inspect.getdoc(calls.runs.cancel)
        told = inspect.signature(methods["cancel"])
        assert [*told.parameters] == ["self", *inspect.signature(calls.runs.cancel).parameters]
        assert told.return_annotation == "RunAccepted"


def test_who_asks_is_said_if_it_was_told(api: Any, connect: Any) -> None:
    api.on("GET /v1/runs", RunPage(runs=()))
    connect(principal="ann", roles=("finance", "lead")).runs()
    connect().runs()
    named, nameless = (asked.headers for asked in api.asked)
    assert (named["x-paracle-principal"], named["x-paracle-roles"]) == ("ann", "finance,lead")
    assert not [name for name in nameless if name.startswith("x-paracle")]


def test_apply_sends_the_text_as_it_is(api: Any, connect: Any) -> None:
    done = Applied(results=(AppliedSpec(kind="Agent", name="a", revision=1, change="created"),))
    api.on("POST /v1/manifests", done)
    assert connect().apply("kind: Agent # é", "a.yaml", dry_run=True) == done
    asked = api.asked[0]
    assert (asked.body.decode(), asked.query) == ("kind: Agent # é", {"source": "a.yaml", "dry_run": "true"})
    assert asked.headers["content-type"] == "application/yaml"


def test_a_start_carries_a_key_that_a_retry_keeps(api: Any, connect: Any, make: Any) -> None:
    accepted = RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING)
    api.on("POST /v1/workflows/tri%2Fage/runs", make.problem("unavailable", 503, "starting"), accepted)
    assert connect().start_run("tri/age", {"a": 1}, labels={"team": "x"}, revision=2) == accepted
    first, second = api.asked
    assert first.json == {"input": {"a": 1}, "labels": {"team": "x"}, "revision": 2}
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.headers["idempotency-key"].startswith("run_")


def test_the_key_of_the_caller_is_used(api: Any, connect: Any, make: Any) -> None:
    api.on("POST /v1/agents/helper/runs", RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING))
    connect().invoke("helper", "hello", idempotency_key="mine")
    assert api.asked[0].headers["idempotency-key"] == "mine"
    assert api.asked[0].json == {"input": "hello", "labels": {}}


@pytest.mark.parametrize("key", ["", "Bestellung 47 für Zoë", "x" * 300])
def test_a_key_is_sent_as_it_is(api: Any, connect: Any, make: Any, key: str) -> None:
    """An empty one is refused by the API: in its place, another would let a run start as often as it is asked for."""
    api.on("POST /v1/agents/helper/runs", RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING))
    api.on(f"POST /v1/runs/{make.RUN}/signals/paid", RunAccepted(run_id=make.RUN, status=RunStatus.RUNNING))
    connect().invoke("helper", "hello", idempotency_key=key)
    connect().signal(make.RUN, "paid", idempotency_key=key)
    assert [asked.headers["idempotency-key"].encode("latin-1").decode() for asked in api.asked] == [key, key]


@pytest.mark.parametrize("text", ["a\nb", " a", "a ", "\x7f", "\udcff"])
def test_what_no_header_carries_is_refused_by_its_name(api: Any, connect: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be sent") as caught:
        connect().start_run("w", idempotency_key=text)
    assert caught.value.path == "idempotency_key"
    with pytest.raises(InvalidInput, match="cannot be sent") as caught:
        connect(principal=text)
    assert caught.value.path == "principal"
    assert api.asked == []


def test_questions(api: Any, connect: Any, make: Any) -> None:
    api.on("GET /v1/runs", RunPage(runs=(make.view().run,), next_cursor="c"))
    client = connect()
    assert client.runs(workflow="w", status=RunStatus.FAILED, limit=3).next_cursor == "c"
    assert api.asked[0].query == {"workflow": "w", "status": "failed", "limit": "3"}
    api.on(f"GET /v1/runs/{make.RUN}", make.view())
    assert client.get_run(make.RUN).steps[0].id == "report"
    step = make.view().steps[0]
    api.on(f"GET /v1/runs/{make.RUN}/steps/each%5B3%5D", ShownStep(run_id=make.RUN, step=step))
    assert client.get_step(make.RUN, "each[3]", parts=1).step == step
    api.on(f"POST /v1/runs/{make.RUN}/cancel", RunAccepted(run_id=make.RUN, status=RunStatus.CANCELLING))
    assert client.cancel(make.RUN, "enough").status is RunStatus.CANCELLING
    assert api.asked[-1].json == {"reason": "enough"}


def test_orders_to_a_run(api: Any, connect: Any, make: Any) -> None:
    accepted = RunAccepted(run_id=make.RUN, status=RunStatus.PAUSED)
    for verb in ("pause", "resume", "signals/paid", "fork"):
        api.on(f"POST /v1/runs/{make.RUN}/{verb}", accepted)
    client = connect()
    assert client.pause(make.RUN, "audit") == client.resume(make.RUN) == accepted
    assert client.signal(make.RUN, "paid", {"amount": 12}) == accepted
    assert client.fork(make.RUN, "pay", revision=2, value={"a": 1}, labels={"x": "y"}) == accepted
    client.signal(make.RUN, "paid", idempotency_key="mine")
    client.fork(make.RUN, "pay", idempotency_key="mine")
    assert [asked.json for asked in api.asked] == [
        {"reason": "audit"},
        {"reason": ""},
        {"payload": {"amount": 12}},
        {"from_step": "pay", "revision": 2, "input": {"a": 1}, "labels": {"x": "y"}},
        {"payload": None},
        {"from_step": "pay"},
    ]
    keys = [asked.headers.get("idempotency-key", "") for asked in api.asked]
    assert (keys[2][:4], keys[3][:4], keys[4], keys[5]) == ("msg_", "run_", "mine", "mine")


def test_approvals(api: Any, connect: Any, make: Any) -> None:
    one = make.approval()
    path = f"/v1/approvals/{one.approval_id}"
    api.on("GET /v1/approvals", ApprovalPage(approvals=(one,)))
    api.on(f"GET {path}", one)
    api.on(f"POST {path}/decision", make.problem("conflict", 409, "it is something else by now"))
    client = connect()
    query = {"run_id": make.RUN, "workflow": "refund", "approver": "finance", "cursor": "c"}
    assert client.approvals(status=ApprovalStatus.OPEN, mine=True, limit=3, **query).approvals == (one,)
    assert client.approvals().approvals == (one,)
    assert api.asked[0].query == query | {"status": "open", "mine": "true", "limit": "3"}
    assert api.asked[1].query == {"limit": "50"}
    assert client.get_approval(one.approval_id) == one
    with pytest.raises(Conflict, match="something else"):
        client.decide(one.approval_id, "approve", digest=one.digest, reason="fine")
    assert api.asked[-1].json == {"decision": "approve", "digest": "sha256:abc", "reason": "fine"}


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("GET /v1/agents", lambda client: client.list("agents")),
        ("GET /v1/tools/x", lambda client: client.get("tools", "x", revision=1)),
        ("GET /v1/tools/x/revisions", lambda client: client.revisions("tools", "x")),
        ("GET /v1/agents/x/explain", lambda client: client.explain("x")),
        ("GET /v1/runs/r/usage", lambda client: client.usage("r")),
        ("GET /v1/runs/r/audit", lambda client: client.audit("r")),
        ("GET /v1/runs/r/diff", lambda client: client.diff_runs("r", "s")),
        ("POST /v1/runs/resume", lambda client: client.resume_runs(RunFilter(workflow="w"))),
    ],
)
def test_errors_come_out_as_they_were_raised(api: Any, connect: Any, make: Any, what: str, call: Any) -> None:
    api.on(what, make.problem("spec_invalid", 422, "no good", path="spec.x", problems=[{"path": "p", "message": "m"}]))
    with pytest.raises(SpecInvalid, match=r"spec\.x: no good") as caught:
        call(connect())
    assert caught.value.problems[0].path == "p"
    assert len(api.asked) == 1


def test_an_order_to_many_runs_has_the_time_that_it_takes(api: Any, connect: Any, make: Any) -> None:
    api.on("POST /v1/runs/cancel", make.Reply(200, RunsAccepted(count=3).encode(), wait_s=0.2))
    client = connect(timeout_s=0.05)
    assert client.cancel_runs(RunFilter(workflow="w", labels={"a": "b"}), "enough").count == 3
    assert api.asked[0].json["filter"]["labels"] == {"a": "b"}
    assert len(api.asked) == 1


def test_answers_of_something_else(api: Any, connect: Any, make: Any) -> None:
    client = connect()
    api.on("GET /v1/runs", make.Reply(200, b"<html>", "text/html"))
    with pytest.raises(MalformedMessage, match="is it Paracle"):
        client.runs()
    api.on("GET /v1/runs", make.Reply(500, b"<html>oops", "text/html"))
    with pytest.raises(InternalError, match="answered with 500: <html>oops"):
        client.runs()
    api.on("GET /v1/runs", make.Reply(502, b"[]"))
    with pytest.raises(Unavailable, match="answered with 502"):
        client.runs()


def test_nobody_there(connect: Any) -> None:
    with pytest.raises(Unavailable, match=r"cannot reach Paracle at http://127\.0\.0\.1:9 .*paracle up"):
        connect("http://127.0.0.1:9").runs()


def test_a_bad_address(connect: Any) -> None:
    for url in ("127.0.0.1:8080", "nats://127.0.0.1:4222", "", "http://h:port", "http://h:99999", "http://[::1"):
        with pytest.raises(InvalidInput, match="is not an address"):
            connect(url)


def test_a_proxy_is_not_asked_for_this_machine(api: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    api.on("GET /v1/runs", RunPage(runs=()))
    assert connect().runs().runs == ()


def test_a_part_of_paracle_that_was_silent_is_asked_again(api: Any, connect: Any, make: Any) -> None:
    silent = make.problem("deadline_exceeded", 504, "orchestrator.list_runs did not answer within 5 s")
    api.on("GET /v1/runs", silent, RunPage(runs=()))
    assert connect().runs().runs == ()
    assert len(api.asked) == 2


def test_no_answer_in_time(connect: Any) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeadlineExceeded, match="did not answer in time"):
            connect(url, timeout_s=0.5).runs()


def test_events_so_far_page_by_page(api: Any, connect: Any, make: Any) -> None:
    first, second = make.whole_run()[:3], make.whole_run()[3:]
    api.on(
        f"GET /v1/runs/{make.RUN}/events",
        RunEvents(events=first, terminal=False),
        RunEvents(events=second, terminal=True),
    )
    assert seqs(connect().events(make.RUN)) == [1, 2, 3, 4, 5, 6]
    assert [one.query["after"] for one in api.asked] == ["0", "3"]


def test_a_run_whose_outputs_fit_into_no_answer_is_had_without_those_of_its_steps(
    api: Any, connect: Any, make: Any
) -> None:
    run = make.view(output="all of it", outputs="run", last_seq=6)
    large = make.problem("payload_too_large", 413, "ask for its parts")
    api.on(f"GET /v1/runs/{make.RUN}", run, run, large, run)
    api.on(f"GET /v1/runs/{make.RUN}/events", make.stream())
    assert connect().wait(make.RUN) == run
    asked = [one.query for one in api.asked if one.path == f"/v1/runs/{make.RUN}"]
    assert asked == [*[{"parts": "0", "outputs": "none"}] * 2, {}, {"outputs": "run"}]


def test_events_so_far_of_a_run_that_goes_on(api: Any, connect: Any, make: Any) -> None:
    going = RunEvents(events=make.whole_run()[:2], terminal=False)
    api.on(f"GET /v1/runs/{make.RUN}/events", going, RunEvents(events=(), terminal=False))
    assert seqs(connect().events(make.RUN)) == [1, 2]


def test_a_followed_run_goes_on_where_the_connection_broke(api: Any, connect: Any, make: Any) -> None:
    run = make.whole_run()
    api.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.RUNNING))
    api.on(
        f"GET /v1/runs/{make.RUN}/events",
        make.stream(*run[:2], cut=True, comment=True),
        make.problem("unavailable", 503, "restarting"),
        make.stream(),
        make.stream(*run[1:4]),  # begins with one that was seen
        make.stream(*run[4:]),
    )
    assert seqs(connect().events(make.RUN, follow=True)) == [1, 2, 3, 4, 5, 6]
    streams = [one for one in api.asked if one.path.endswith("/events")]
    assert [one.headers["last-event-id"] for one in streams] == ["0", "2", "2", "2", "4"]
    assert {one.headers["accept"] for one in streams} == {"text/event-stream"}
    assert {one.query["follow"] for one in streams} == {"true"}


def test_following_gives_up_on_what_cannot_get_better(api: Any, connect: Any, make: Any) -> None:
    with pytest.raises(NotFound):
        seqs(connect().events("run_gone", follow=True))
    api.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.RUNNING))
    bad = b'data: {"code": "not_found", "detail": "gone", "status": 404}\n\n'
    api.on(f"GET /v1/runs/{make.RUN}/events", make.Reply(200, bad, "text/event-stream"))
    with pytest.raises(NotFound, match="gone"):
        seqs(connect().events(make.RUN, follow=True))
    api.on(f"GET /v1/runs/{make.RUN}/events", make.Reply(200, b"{}"))
    with pytest.raises(MalformedMessage, match="instead of an event stream"):
        seqs(connect().events(make.RUN, follow=True))


def test_following_gives_up_after_a_minute_of_silence(
    api: Any, connect: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "STREAM_PATIENCE_S", 0.0)
    api.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.RUNNING))
    api.on(f"GET /v1/runs/{make.RUN}/events", make.problem("unavailable", 503, "down"))
    with pytest.raises(Unavailable, match="down"):
        seqs(connect().events(make.RUN, follow=True))


def test_a_reader_that_takes_its_time_is_given_the_same_minute(
    api: Any, connect: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: now))
    run = make.whole_run()
    api.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.RUNNING))
    down = make.problem("unavailable", 503, "restarting")
    api.on(f"GET /v1/runs/{make.RUN}/events", make.stream(*run[:2], cut=True), down, make.stream(*run[2:]))
    seen = []
    for record in connect().events(make.RUN, follow=True):
        seen.append(record.seq)
        now += 100.0
    assert seen == [1, 2, 3, 4, 5, 6]


def test_following_an_ended_run_from_its_end_does_not_wait(api: Any, connect: Any, make: Any) -> None:
    api.on(f"GET /v1/runs/{make.RUN}", make.view(last_seq=6))
    assert seqs(connect().events(make.RUN, after=6, follow=True)) == []
    assert connect().wait(make.RUN).run.status is RunStatus.COMPLETED


def test_following_from_beyond_the_end_ends_with_the_run(api: Any, connect: Any, make: Any) -> None:
    """A cursor of another run: nothing is told after it, so no event says that the run has ended."""
    running, ended = make.view(RunStatus.RUNNING, last_seq=2), make.view(last_seq=6)
    api.on(f"GET /v1/runs/{make.RUN}", running, running, ended)
    api.on(f"GET /v1/runs/{make.RUN}/events", make.stream(), make.stream(), make.problem("not_found", 404, "asked on"))
    assert seqs(connect().events(make.RUN, after=99, follow=True)) == []


@pytest.mark.parametrize("data", ["nonsense", "[]", '{"seq": 1}', '"text"'])
def test_what_is_no_event(data: str) -> None:
    lines = wire.EventLines()
    assert lines.feed(f"data: {data}") is None
    with pytest.raises(MalformedMessage, match="not an event"):
        lines.feed("")


def test_an_event_over_several_lines(make: Any) -> None:
    lines = wire.EventLines()
    text = json.dumps(json.loads(make.run_started().encode()), indent=1)
    for line in (":comment", "retry: 5", "id: 1", "event", *(f"data:{one}" for one in text.split("\n"))):
        assert lines.feed(line) is None
    assert lines.feed("") == make.run_started()
    assert lines.feed("") is None


TASK = "task_01JDAAAAAAAAAAAAAAAAAAAAAA"


def words(*outputs: TaskOutput) -> bytes:
    return b": keep-alive\n\n" + b"".join(b"id: 1\ndata: " + one.encode() + b"\n\n" for one in outputs)


def test_what_a_task_says_goes_on_where_the_connection_broke(api: Any, connect: Any, make: Any) -> None:
    said = [TaskOutput(seq=n, tool=ToolProgress(call_id=f"c{n}", tool="t", stage="started")) for n in (3, 5, 9)]
    api.on(
        f"GET /v1/tasks/{TASK}/output",
        make.Reply(200, words(said[0], said[1]), "text/event-stream", cut=True),
        make.problem("unavailable", 503, "restarting"),
        make.Reply(200, words(said[2], TaskOutput(seq=9, ended=True)), "text/event-stream"),
    )
    found = list(connect().output(TASK, after=2))
    assert found == [*said, TaskOutput(seq=9, ended=True)]
    assert [one.headers["last-event-id"] for one in api.asked] == ["2", "5", "5"]


def test_what_a_task_said_so_far_ends_there(api: Any, connect: Any, make: Any) -> None:
    said = TaskOutput(seq=3, tool=ToolProgress(call_id="c", tool="t", stage="started"))
    api.on(f"GET /v1/tasks/{TASK}/output", make.Reply(200, words(said), "text/event-stream"))
    assert list(connect().output(TASK, follow=False)) == [said]
    assert [one.query for one in api.asked] == [{"follow": "false"}]
    api.on(f"GET /v1/tasks/{TASK}/output", make.problem("unavailable", 503, "restarting"))
    with pytest.raises(Unavailable, match="restarting"):
        list(connect().output(TASK, follow=False))


def test_what_is_not_said_by_a_task(api: Any, connect: Any, make: Any) -> None:
    api.on(f"GET /v1/tasks/{TASK}/output", make.Reply(200, b'data: {"sequence": 1}\n\n', "text/event-stream"))
    with pytest.raises(MalformedMessage, match="not an event"):
        list(connect().output(TASK))
    bad = b'data: {"code": "not_found", "detail": "gone", "status": 404}\n\n'
    api.on(f"GET /v1/tasks/{TASK}/output", make.Reply(200, bad, "text/event-stream"))
    with pytest.raises(NotFound, match="gone"):
        list(connect().output(TASK))


def test_sessions(api: Any, connect: Any, make: Any) -> None:
    session = "ses_01JDAAAAAAAAAAAAAAAAAAAAAA"
    summary = SessionSummary(session_id=session, turns=0, open=0, created_at=make.START, asked_at=make.START)
    api.on("GET /v1/sessions", SessionPage(sessions=(summary,)))
    api.on(f"GET /v1/sessions/{session}", SessionView(session=summary, turns=()))
    api.on(f"DELETE /v1/sessions/{session}", Done())
    client = connect()
    assert client.sessions(limit=7, cursor=session).sessions == (summary,)
    assert api.asked[-1].query == {"limit": "7", "cursor": session}
    assert client.get_session(session, after=2).session == summary
    assert api.asked[-1].query == {"after": "2"}
    assert client.delete_session(session) == Done()
