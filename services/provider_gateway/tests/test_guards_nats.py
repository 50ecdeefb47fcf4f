"""Guards over real NATS: processes that are asked, and events of what guards did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from provider_gateway_samples import ask

from paracle_chassis.bus import Outgoing
from paracle_chassis.frames import flushed
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import OpenBus
from paracle_chassis.testing.memory import MemoryBus
from paracle_client.worker import GuardAnswer, GuardQuestion, Worker
from paracle_domain.envelope import ERROR, PROGRESS, WORKING, Context
from paracle_domain.errors import (
    DeadlineExceeded,
    InternalError,
    MalformedMessage,
    ParacleError,
    PayloadTooLarge,
    ToolUnavailable,
)
from paracle_domain.guard.messages import Passage, subject_of
from paracle_domain.inference.request import CallLabels
from paracle_domain.machine import EventRecord
from paracle_provider_gateway.adapters.audit import BusAudit
from paracle_provider_gateway.adapters.guards import NatsAsker
from paracle_provider_gateway.guards.rails import Hit
from paracle_provider_gateway.guards.verdicts import Outcome, Verdict

pytestmark = pytest.mark.connected
CONTEXT = Context("acme", principal="ann")
RUN = "run_01JD0000000000000000000000"


def question(*texts: str) -> GuardQuestion:
    passages = tuple(Passage(speaker="user", text=text) for text in texts)
    return GuardQuestion(guard="ours", direction="input", passages=passages, call_id="c", model="m", run_id=RUN)


@pytest.fixture
async def bus(open_bus: OpenBus) -> NatsBus:
    return await open_bus("provider_gateway")


@pytest.fixture
def asker(bus: NatsBus) -> NatsAsker:
    return NatsAsker(bus.link)


async def unheard(_why: str) -> None:
    """Nobody watches."""


async def serve(client: Client, answer: Any, guard: str = "check", tenant: str = "acme") -> list[Msg]:
    asked: list[Msg] = []

    async def hear(message: Msg) -> None:
        asked.append(message)
        for body, headers in answer:
            await client.publish(message.reply, body, headers=headers)

    await client.subscribe(subject_of(guard, tenant), cb=hear)
    await flushed(client)
    return asked


async def test_a_worker_is_asked(asker: NatsAsker, nats_url: str):
    worker = Worker(nats_url, tenant="acme")
    asked: list[GuardQuestion] = []

    @worker.guard(name="check")
    async def check(question: GuardQuestion) -> GuardAnswer:
        asked.append(question)
        return GuardAnswer.replaced(*("*" for _ in question.passages))

    async with worker.serving():
        answer = await asker.ask("check", question("a", "b"), CONTEXT, 10, unheard)
    assert answer.texts == ("*", "*")
    assert asked == [question("a", "b")]


async def test_it_is_told_for_whom_and_until_when(asker: NatsAsker, nats_client: Client):
    asked = await serve(nats_client, [(b"", {PROGRESS: WORKING}), (GuardAnswer.passed().encode(), None)])
    assert (await asker.ask("check", question("a"), CONTEXT, 10, unheard)).verdict == "pass"
    headers = asked[0].headers or {}
    assert (headers["paracle-run-id"], headers["paracle-principal"]) == (RUN, "ann")
    assert "paracle-deadline" in headers
    assert asked[0].subject == "paracle.v1.acme.rpc.guards.check"


async def test_other_tenants_are_not_asked(asker: NatsAsker, nats_client: Client):
    asked = await serve(nats_client, [(GuardAnswer.passed().encode(), None)], tenant="globex")
    with pytest.raises(DeadlineExceeded, match=r"nobody listens on paracle\.v1\.acme\.rpc\.guards\.check: s"):
        await asker.ask("check", question("a"), CONTEXT, 0.5, unheard)
    assert asked == []


async def test_one_that_is_about_to_come_is_waited_for_and_that_is_told_once(
    asker: NatsAsker, nats_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("paracle_provider_gateway.adapters.guards.WORTH_TELLING_S", 0.0)
    worker = Worker(nats_url, tenant="acme")

    @worker.guard()
    def check(question: GuardQuestion) -> None:
        """Says nothing, in a thread."""

    told: list[str] = []

    async def hear(why: str) -> None:
        told.append(why)

    async def asking() -> GuardAnswer:
        return await asker.ask("check", question("a"), CONTEXT, 30, hear)

    task = asyncio.create_task(asking())
    await eventually(lambda: told)
    async with worker.serving():
        assert (await task).verdict == "pass"
    assert told == ["nobody listens on paracle.v1.acme.rpc.guards.check: start a worker that serves it"]


async def test_one_that_is_silent_is_given_up(asker: NatsAsker, nats_client: Client):
    await serve(nats_client, [(b"", {PROGRESS: WORKING})])
    with pytest.raises(DeadlineExceeded, match=r"'check' did not answer within 0\.5 s$"):
        await asker.ask("check", question("a"), CONTEXT, 0.5, unheard)


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        (b"nonsense", None, MalformedMessage),
        (b'{"verdict": "secret"}', None, MalformedMessage),
        (b'{"verdict": "replace", "texts": ["a"]}', None, MalformedMessage),
        (json.dumps(ToolUnavailable("busy").to_problem()).encode(), {ERROR: "tool_unavailable"}, ToolUnavailable),
    ],
)
async def test_what_is_no_answer_is_an_error(
    asker: NatsAsker, nats_client: Client, body: bytes, headers: dict[str, str] | None, kind: type[ParacleError]
):
    await serve(nats_client, [(body, headers)])
    with pytest.raises(kind) as wrong:
        await asker.ask("check", question("a", "b"), CONTEXT, 10, unheard)
    assert "secret" not in str(wrong.value)


async def test_a_guard_that_breaks_says_so(asker: NatsAsker, nats_url: str):
    worker = Worker(nats_url, tenant="acme")

    @worker.guard()
    def check(question: GuardQuestion) -> None:
        raise RuntimeError(question.passages[0].text)

    async with worker.serving():
        with pytest.raises(InternalError, match="guard 'check' broke: RuntimeError") as broke:
            await asker.ask("check", question("secret"), CONTEXT, 10, unheard)
    assert "secret" not in broke.value.message


async def test_a_guard_that_says_something_else_is_told_so_in_its_log(
    asker: NatsAsker, nats_url: str, caplog: pytest.LogCaptureFixture
):
    worker = Worker(nats_url, tenant="acme")

    @worker.guard()
    def check(question: GuardQuestion) -> str:
        return "no refunds"

    async with worker.serving():
        with pytest.raises(InternalError, match="guard 'check' broke: TypeError"):
            await asker.ask("check", question("secret"), CONTEXT, 10, unheard)
    assert "guard 'check' gave str; give a GuardAnswer, or nothing" in caplog.text


async def test_more_than_nats_takes_is_an_error(asker: NatsAsker):
    with pytest.raises(PayloadTooLarge, match="NATS takes messages of"):
        await asker.ask("check", question("a" * 2_000_000), CONTEXT, 10, unheard)


async def test_what_guards_did_is_an_event_of_the_run(bus: NatsBus, nats_client: Client):
    request = ask(labels=CallLabels(run_id=RUN, agent="writer"))
    hits = [
        Hit("no-mail", "pii", "input", Verdict(Outcome.REDACTED, {"email": 2}, ["x"])),
        Hit("ours", "nats", "input", Verdict(Outcome.REFUSED, {"refused": 1}, reason="secret")),
    ]
    await BusAudit(bus).tell(hits, request, CONTEXT)
    (body,) = await stored(nats_client)
    record = EventRecord.decode(body)
    assert isinstance(record, EventRecord)
    first, second = record.each()
    assert (first.type, second.type) == ("guard.redacted", "guard.refused")
    assert (first.seq, second.seq, second.correlation_id) == (1, 2, RUN)
    assert first.data == {
        "guard": "no-mail", "type": "pii", "direction": "input", "found": {"email": 2}, "agent": "writer",
        "run_id": RUN, "call_id": request.call_id, "model": "default",
    }  # fmt: skip
    assert b"secret" not in body


async def stored(client: Client) -> list[bytes]:
    """What the stream of events keeps of guards."""
    subscription = await client.jetstream().subscribe("paracle.v1.acme.evt.guard.>", ordered_consumer=True)
    message = await subscription.next_msg(timeout=10)
    return [message.data]


async def test_what_was_told_lately_is_told_again_if_in_doubt():
    now = 0.0
    bus = MemoryBus()
    published: list[Outgoing] = []
    bus.publish = heard(published)  # type: ignore[method-assign]
    audit = BusAudit(bus, lambda: now)
    hit = Hit("no-mail", "pii", "input", Verdict(Outcome.WARNED, {"email": 1}))
    await audit.tell([hit], ask(), CONTEXT)
    now = 50.0
    await audit.tell([hit], ask(), CONTEXT)
    await audit.round()
    assert len(published) == 2
    now = 70.0
    audit.doubt()
    await audit.round()
    await audit.round()
    assert [one.envelope.id for one in published[2:]] == [published[1].envelope.id]


def heard(published: list[Outgoing]) -> Any:
    async def publish(messages: Sequence[Outgoing]) -> None:
        published.extend(messages)

    return publish
