"""Guards of agents, from a manifest to a provider's wire: what it sees, what comes back, what the audit log has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml
from tests.e2e.histories import audit
from tests.e2e.test_workers import running
from tests.e2e.world import ROOT, System

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import call, say
from paracle_domain.audit import StoredEvent
from paracle_domain.run.commands import RunStatus

EXAMPLE = ROOT / "examples" / "guards"
MODEL = "openai-compatible/guarded"
MAIL, CARD = "jane@example.com", "4111 1111 1111 1111"
PII = {"name": "no-personal-data", "type": "pii"}
OURS = {"name": "ours", "type": "nats", "guard": "e2e", "on": "input", "timeout_s": 1}
PROGRAM = """
from paracle_client.worker import GuardQuestion, Worker

worker = Worker()

@worker.guard(name="e2e")
def judge(question: GuardQuestion) -> None:
    pass

worker.main()
"""


@pytest.fixture
async def wire(system: System) -> AsyncIterator[FakeOpenAI]:
    """The provider that the stack knows."""
    fake = FakeOpenAI()
    fake.port = system.ports.compatible
    async with fake:
        yield fake


def agent(name: str, *guards: dict[str, Any], **spec: Any) -> dict[str, Any]:
    spec = {"model": {"name": MODEL}, "instructions": "Answer.", "guards": list(guards)} | spec
    return {"apiVersion": "paracle/v1", "kind": "Agent", "metadata": {"name": name}, "spec": spec}


async def apply(system: System, *manifests: dict[str, Any]) -> None:
    await asyncio.to_thread(system.apply, yaml.safe_dump_all(manifests))


async def guards_of(system: System, run_id: str, count: int) -> list[StoredEvent]:
    """What the audit log has of guards, once that many came."""
    found: list[StoredEvent] = []
    async with system.client() as client:

        async def told() -> bool:
            found[:] = [one for one in await audit(client, run_id) if one.event.entity == "guard"]
            return len(found) >= count

        await eventually(told)
    return found


async def test_no_provider_and_no_watcher_sees_personal_data(system: System, wire: FakeOpenAI) -> None:
    tool = {"apiVersion": "paracle/v1", "kind": "Tool", "metadata": {"name": "say-it"}, "spec": {
        "description": "Says it.", "input": {"type": "object", "properties": {"to": {"type": "string"}}},
        "backend": {"type": "builtin", "function": "noop"},
    }}  # fmt: skip
    await apply(system, tool, agent("discreet", PII, tools=["say-it"]))
    wire.script(call("say-it", {"to": MAIL}), say(f"Done: I wrote to {MAIL}."))
    async with await nats.connect(system.stack.nats_url) as watcher:
        told: list[bytes] = []

        async def hear(message: Any) -> None:
            told.append(message.data)

        await watcher.subscribe("paracle.v1.default.out.*", cb=hear)
        await flushed(watcher)
        ended = await system.invoke("discreet", f"I am {MAIL}, card {CARD}.")
        await eventually(lambda: any(b"Done" in data for data in told))
    assert ended.run.status is RunStatus.COMPLETED, ended.error
    assert ended.output == "Done: I wrote to [EMAIL]."
    sent = json.dumps([seen.body for seen in wire.journal])
    assert len(wire.journal) == 2
    assert MAIL not in sent
    assert "1111" not in sent
    assert "I am [EMAIL], card [CREDIT_CARD]." in sent
    assert not any(MAIL.encode() in data for data in told)
    events = await guards_of(system, ended.run.run_id, 4)
    assert [(one.event.type, one.event.data["direction"], one.event.data["found"]) for one in events] == [
        ("guard.redacted", "input", {"email": 1, "credit_card": 1}),
        ("guard.redacted", "output", {"email": 1}),
        ("guard.redacted", "input", {"email": 1, "credit_card": 1}),
        ("guard.redacted", "output", {"email": 1}),
    ]
    assert {one.event.data["agent"] for one in events} == {"discreet"}
    assert MAIL not in "".join(one.model_dump_json() for one in events)


async def test_a_refusal_fails_the_task_and_nobody_is_asked(system: System, wire: FakeOpenAI) -> None:
    await apply(system, agent("strict", PII | {"on_hit": "refuse"}))
    ended = await system.invoke("strict", f"I am {MAIL}")
    assert ended.run.status is RunStatus.FAILED
    assert ended.error is not None
    assert ended.error.code == "content_refused"
    assert "guard 'no-personal-data' of agent 'strict' refused the input: email (1)" in ended.error.message
    assert MAIL not in ended.error.message
    assert wire.journal == []
    (event,) = await guards_of(system, ended.run.run_id, 1)
    assert event.event.type == "guard.refused"


async def test_while_the_worker_of_a_guard_is_dead_nothing_passes(
    system: System, wire: FakeOpenAI, tmp_path: Path
) -> None:
    program, log = tmp_path / "guard.py", tmp_path / "log"
    program.write_text(PROGRAM, encoding="utf-8")
    lax = OURS | {"on_error": "pass"}
    await apply(system, agent("watched", OURS), agent("lax", lax))
    wire.otherwise = say("Fine.")
    with running(system, program, log=log) as process:
        await eventually(lambda: "serving" in log.read_text(encoding="utf-8"), within_s=30)
        assert (await system.invoke("watched", "Hello?")).output == "Fine."
        process.kill()
        await asyncio.to_thread(process.wait)
    asked = len(wire.journal)
    async with system.client() as client, asyncio.timeout(90):
        accepted = await client.invoke("watched", "Hello again?")
        failed = await guards_of(system, accepted.run_id, 1)
        assert failed[0].event.type == "guard.failed"
        assert len(wire.journal) == asked, "the provider was asked without the guard"
        with running(system, program):
            assert (await client.wait(accepted.run_id)).output == "Fine.", "it goes on once the worker is back"
    passed = await system.invoke("lax", "Hello?")
    assert passed.output == "Fine."
    (event,) = await guards_of(system, passed.run.run_id, 1)
    assert (event.event.type, event.event.data["found"]) == ("guard.skipped", {"deadline_exceeded": 1})


async def test_what_a_dead_worker_should_have_judged_is_judged_by_the_next(
    system: System, wire: FakeOpenAI, tmp_path: Path
) -> None:
    program = tmp_path / "guard.py"
    program.write_text(PROGRAM, encoding="utf-8")
    await apply(system, agent("late", OURS | {"on": "output"}))
    wire.script(say("Paid once."), say("Paid again."))
    async with system.client() as client, asyncio.timeout(90):
        accepted = await client.invoke("late", "Hello?")
        (failed, *_) = await guards_of(system, accepted.run_id, 1)
        assert (failed.event.type, failed.event.data["direction"]) == ("guard.failed", "output")
        with running(system, program):
            assert (await client.wait(accepted.run_id)).output == "Paid once."
    assert len(wire.journal) == 1


async def test_the_example_works_as_it_stands(system: System, tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = (EXAMPLE / "agents.yaml").read_text(encoding="utf-8")
    await asyncio.to_thread(system.apply, text)
    letter = await system.invoke("letters", f"I am {MAIL}, my card is {CARD}. How is Project Apollo?")
    assert letter.output == "[sandbox] I am [EMAIL], my card is [CREDIT_CARD]. How is [REDACTED]?"
    with running(system, EXAMPLE / "guards.py", log=log):
        await eventually(lambda: "serving" in log.read_text(encoding="utf-8"), within_s=30)
        loud = await system.invoke("strict-letters", "WHERE IS MY PARCEL")
        refund = await system.invoke("strict-letters", "I want a refund")
    assert loud.output == "[sandbox] Where is my parcel"
    assert refund.error is not None
    assert "letters about refunds are answered by people" in refund.error.message
