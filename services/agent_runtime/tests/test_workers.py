"""Tools that workers answer: what they are asked, and what each of their answers says about the effect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from tool_bench import NOW, SECRET, Bench

from paracle_agent_runtime.adapters.workers import NatsWorkers
from paracle_agent_runtime.ports import Answer
from paracle_agent_runtime.tools.outcome import OutcomeUnknownError
from paracle_chassis import codec
from paracle_chassis.link import Link
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_domain import errors
from paracle_domain.task.inputs import Outcome
from paracle_domain.tool.calls import ToolCall
from paracle_embedded import NatsServer

BACKEND = {"type": "nats", "tool": "add"}
GRANTED = {"workers": ["add"]}
CALL = ToolCall("add", "acme", key="k1", deadline_at=NOW)


class FakeWorkers:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self, body: bytes = b"3", headers: dict[str, str] | None = None) -> None:
        self.answer = Answer(body, headers or {})
        self.asked: list[tuple[ToolCall, Any]] = []

    async def ask(self, call: ToolCall, body: bytes) -> Answer:
        self.asked.append((call, json.loads(body)))
        return self.answer


def refusing(error: errors.ParacleError) -> FakeWorkers:
    return FakeWorkers(*codec.encode_error(error))


async def test_a_worker_is_told_who_calls_and_until_when(tmp_path: Path) -> None:
    workers = FakeWorkers()
    bench = Bench(tmp_path, workers=workers)
    end = await bench.call({"a": 1}, backend=BACKEND, permissions=GRANTED, key="k1", timeout_s=9)
    assert (end.output, end.error) == (3, None)
    ((call, arguments),) = workers.asked
    assert arguments == {"a": 1}
    assert (call.subject, call.key, call.principal) == ("paracle.v1.acme.rpc.tools.add", "k1", "ann")
    assert call.deadline_at == NOW + timedelta(seconds=9)
    assert call.task_id is not None
    assert call.run_id is not None


@pytest.mark.parametrize("workers", [[], ["ad"], ["add2"], ["ADD"]])
async def test_nobody_is_asked_who_is_not_granted(tmp_path: Path, workers: list[str]) -> None:
    fake = FakeWorkers()
    end = await Bench(tmp_path, workers=fake).call({}, backend=BACKEND, permissions={"workers": workers}, key="k")
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("forbidden", Outcome.NOT_DONE)
    assert "permissions.workers" in end.error.message
    assert fake.asked == []


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (errors.ToolFailed("no such city"), "tool_failed", Outcome.NOT_DONE),
        (errors.ToolUnavailable("later"), "tool_unavailable", Outcome.NOT_DONE),
        (errors.InputInvalid("a is no number"), "input_schema_mismatch", Outcome.NOT_DONE),
        (errors.InternalError("it broke"), "tool_failed", Outcome.UNKNOWN),
        (errors.DeadlineExceeded("too slow"), "tool_failed", Outcome.UNKNOWN),
        (errors.EffectInDoubt("who knows"), "effect_in_doubt", Outcome.UNKNOWN),
        (errors.PayloadTooLarge("2 MB"), "payload_too_large", Outcome.UNKNOWN),
    ],
)
async def test_an_error_says_whether_something_was_done(
    tmp_path: Path, error: errors.ParacleError, code: str, outcome: Outcome
) -> None:
    end = await Bench(tmp_path, workers=refusing(error)).call({}, backend=BACKEND, permissions=GRANTED)
    assert end.error is not None
    assert (end.error.code, end.outcome) == (code, outcome)
    assert error.message in end.error.message


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{", {}),
        (b"\xff", {}),
        (b"NaN", {}),
        (b"not json", {codec.ERROR_HEADER: "tool_failed"}),
        (b"[1]", {codec.ERROR_HEADER: "tool_failed"}),
        (b'{"code": "tool_failed", "retry_after_s": "soon"}', {codec.ERROR_HEADER: "x"}),
        (b'{"code": "made_up"}', {codec.ERROR_HEADER: "x"}),
    ],
)
async def test_nonsense_leaves_the_outcome_open(tmp_path: Path, body: bytes, headers: dict[str, str]) -> None:
    end = await Bench(tmp_path, workers=FakeWorkers(body, headers)).call({}, backend=BACKEND, permissions=GRANTED)
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("tool_failed", Outcome.UNKNOWN)


async def test_nothing_is_an_answer_too(tmp_path: Path) -> None:
    end = await Bench(tmp_path, workers=FakeWorkers(b"")).call({}, backend=BACKEND, permissions=GRANTED)
    assert (end.output, end.error) == (None, None)


async def test_secrets_are_cut_out_of_what_a_worker_says(tmp_path: Path) -> None:
    granted = GRANTED | {"secrets": ["KEY"]}
    said = json.dumps({"echo": SECRET}).encode()
    end = await Bench(tmp_path, workers=FakeWorkers(said)).call({}, backend=BACKEND, permissions=granted)
    assert end.output == {"echo": "[secret KEY]"}
    failed = refusing(errors.ToolFailed(f"with {SECRET}"))
    end = await Bench(tmp_path, workers=failed).call({}, backend=BACKEND, permissions=GRANTED)
    assert end.error is not None
    assert end.error.message == "with [secret KEY]"


# ── over NATS ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def link(settings: ServiceSettings) -> AsyncIterator[Link]:
    async with opened(settings) as found:
        yield found


@asynccontextmanager
async def opened(settings: ServiceSettings) -> AsyncIterator[Link]:
    found = Link("agent_runtime", settings)
    await found.open()
    try:
        yield found
    finally:
        await found.close()


async def serve(link: Link, *says: Callable[[Msg], Any]) -> None:
    """A worker of the test: does each of `says` with what it is asked."""

    async def work(message: Msg) -> None:
        for say in says:
            await say(message)

    await link.client.subscribe(CALL.subject, queue="tools", cb=work)


async def beat(message: Msg) -> None:
    await message._client.publish(message.reply, b"", headers={codec.PROGRESS_HEADER: codec.WORKING})


@pytest.mark.connected
async def test_a_bare_client_can_be_a_worker(link: Link) -> None:
    seen: list[Msg] = []

    async def answer(message: Msg) -> None:
        seen.append(message)
        await message.respond(b'{"sum": 3}')

    await serve(link, beat, answer)
    assert (await NatsWorkers(link).ask(CALL, b"{}")).body == b'{"sum": 3}'
    assert (seen[0].headers or {})["paracle-idempotency-key"] == "k1"
    assert len(link.inbox) == 0


@pytest.mark.connected
async def test_no_worker_is_an_error_that_may_be_tried_again(link: Link) -> None:
    with pytest.raises(errors.ToolUnavailable, match=r"no worker answers paracle.v1.acme.rpc.tools.add"):
        await NatsWorkers(link).ask(CALL, b"{}")


@pytest.mark.connected
async def test_another_tenants_workers_are_not_asked(link: Link) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(b"1")

    await serve(link, answer)
    with pytest.raises(errors.ToolUnavailable):
        await NatsWorkers(link).ask(ToolCall("add", "rival"), b"{}")


@pytest.mark.connected
async def test_a_worker_that_falls_silent_may_have_done_it(link: Link) -> None:
    await serve(link, beat)
    with pytest.raises(OutcomeUnknownError, match="fell silent"):
        await NatsWorkers(link, idle_s=0.05).ask(CALL, b"{}")


@pytest.mark.connected
@pytest.mark.parametrize("more", [1, -1])
async def test_what_no_message_can_hold_is_not_sent(link: Link, more: int) -> None:
    """Its headers count: a server ends the connection of whoever sends too much."""
    with pytest.raises(errors.PayloadTooLarge, match="NATS takes messages of"):
        await NatsWorkers(link).ask(CALL, b"x" * (link.client.max_payload + more))
    assert link.connections == 0


@pytest.mark.connected
async def test_nothing_is_kept_for_later_while_nats_is_away(nats_server: NatsServer) -> None:
    async with opened(ServiceSettings(nats_url=nats_server.url)) as link:
        nats_server.kill()
        await eventually(lambda: not link.connected)
        with pytest.raises(errors.ToolUnavailable, match="NATS is not connected"):
            await NatsWorkers(link).ask(CALL, b"{}")
        nats_server.start()
