"""Providers and models that a tenant sets up, through the whole system: changed without a restart, and keys kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from nats.aio.client import Client as Nats
from nats.js.errors import NotFoundError
from tests.e2e.test_telemetry import log_files
from tests.e2e.world import ROOT, System

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Turn, cut, fail, reset, say
from paracle_client.stack import SERVICES
from paracle_domain.errors import SpecInvalid
from paracle_domain.run.commands import RunStatus

KEY = "sk-mine-5d1e0f7a2b"
ROTATED = "sk-mine-9c3b8e6d4f"


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "paracle/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def provider(fake: FakeOpenAI) -> dict[str, Any]:
    return manifest("Provider", "mine", base_url=fake.url, key={"file": "mine"})


MODEL = manifest("Model", "fast", routes=[{"model": "mine/small"}])
AGENT = manifest("Agent", "asker", model={"name": "fast"}, instructions="Answer.")
LATER = manifest(
    "Workflow",
    "asks-later",
    steps=[
        {"id": "told", "wait": {"signal": "now"}},
        {"id": "ask", "agent": "asker", "input": {"text": "Well?"}, "needs": ["told"]},
    ],
)


async def apply(system: System, *manifests: dict[str, Any]) -> None:
    await asyncio.to_thread(system.apply, yaml.safe_dump_all(manifests))


@asynccontextmanager
async def fakes() -> AsyncIterator[tuple[FakeOpenAI, FakeOpenAI]]:
    async with FakeOpenAI() as first, FakeOpenAI() as second:
        yield first, second


@pytest.fixture
def key(system: System) -> Path:
    """The file with the key of the tenant."""
    folder = system.keys / "default"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine").write_text(KEY)
    return folder / "mine"


def bearers(fake: FakeOpenAI) -> list[str]:
    return [seen.headers["Authorization"] for seen in fake.journal]


async def test_providers_are_changed_while_everything_runs(system: System, key: Path) -> None:
    gateway = system.pids()["provider_gateway"]
    async with fakes() as (first, second), system.client() as client:
        await apply(system, AGENT, MODEL, provider(first), LATER)
        first.script(say("One."), Turn(text="Two, slowly.", delay_s=1.0))
        assert (await system.invoke("asker", {"text": "?"})).output == "One."

        in_the_air = asyncio.create_task(system.invoke("asker", {"text": "?"}))
        await eventually(lambda: len(first.journal) == 2)
        await apply(system, provider(second))
        second.otherwise = say("Three.")
        assert (await system.invoke("asker", {"text": "?"})).output == "Three."
        assert (await in_the_air).output == "Two, slowly.", "a call in the air ends where it began"

        fresh = key.with_suffix(".new")
        fresh.write_text(ROTATED)
        fresh.rename(key)
        await system.invoke("asker", {"text": "?"})
        assert bearers(first) == [f"Bearer {KEY}"] * 2
        assert bearers(second) == [f"Bearer {KEY}", f"Bearer {ROTATED}"]

        with pytest.raises(SpecInvalid, match="it is to be deleted"):
            await client.delete("models", "fast")
        waiting = await client.start_run("asks-later")
        await client.delete("workflows", "asks-later")
        await client.delete("agents", "asker")
        await client.delete("models", "fast")
        await client.delete("providers", "mine")
        await client.signal(waiting.run_id, "now")
        ended = await client.wait(waiting.run_id)
        assert ended.run.status is RunStatus.FAILED
        assert ended.error is not None
        assert ended.error.code == "not_found"
        assert "there is no model 'fast'" in ended.error.message
        assert len(second.journal) == 2
    assert system.pids()["provider_gateway"] == gateway, "without a restart"


async def test_models_are_asked_while_the_registry_is_away(system: System, key: Path) -> None:
    del key
    async with fakes() as (fake, _), system.client() as client:
        await apply(system, AGENT, MODEL, provider(fake), LATER)
        await system.invoke("asker", {"text": "?"})
        waiting = await client.start_run("asks-later")
        system.stack.kill("registry")
        fake.script(say("Here."))
        await client.signal(waiting.run_id, "now")
        ended = await client.wait(waiting.run_id)
        assert (ended.run.status, len(fake.journal)) == (RunStatus.COMPLETED, 2)


async def test_a_gateway_that_starts_without_the_registry_knows_what_tenants_set_up(system: System, key: Path) -> None:
    del key
    async with fakes() as (fake, _), system.client() as client:
        await apply(system, AGENT, MODEL, provider(fake), LATER)
        await system.invoke("asker", {"text": "?"})
        waiting = await client.start_run("asks-later")
        system.stack.kill("registry")
        system.stack.kill("provider_gateway")
        await asyncio.to_thread(system.stack.start, "provider_gateway")
        fake.script(say("Here."))
        await client.signal(waiting.run_id, "now")
        ended = await client.wait(waiting.run_id)
        assert (ended.run.status, len(fake.journal)) == (RunStatus.COMPLETED, 2), ended.error


async def test_a_key_is_told_nowhere(system: System, key: Path, bare: Nats) -> None:
    said: list[str] = []
    async with fakes() as (fake, _), system.client() as client:
        await apply(system, AGENT, MODEL, provider(fake))
        bad = f"the key {KEY} is not good (Authorization: Bearer {KEY})"
        for turns in (
            [say("Good.")],
            [fail(401, message=bad)],
            [fail(400, message=bad)],
            [fail(500, message=bad), fail(503, message=bad), fail(429, message=bad)],
            [reset(), cut(), say("Good.")],
            [Turn(raw=bad.encode(), content_type="text/html")],
        ):
            fake.script(*turns)
            run = await system.invoke("asker", {"text": "?"})
            said += [run.model_dump_json(), (await client.get("providers", "mine")).model_dump_json()]
        await eventually(lambda: later_is_told(system), within_s=60)
        assert set(bearers(fake)) == {f"Bearer {KEY}"}
    received = system.receiver
    said += [repr(span) for span in received.spans()] + [repr(log) for log in received.logs()]
    said += [repr(metric) for metric in received.metrics().items()]
    said += [path.read_text(encoding="utf-8", errors="replace") for path in log_files(system)]
    said += [message async for message in streamed(bare)]
    said += [row async for row in stored(system)]
    assert len(said) > 100
    assert any("is not good" in text for text in said), "the refusals were told"
    assert not [text[:300] for text in said if any(spelled in text for spelled in spellings(KEY))]


async def later_is_told(system: System) -> bool:
    """Whether the telemetry of a run has come, and with it what was told before; if it was lost, of another one."""
    run = await system.invoke("asker", {"text": "?"})

    def told() -> bool:
        spans = system.receiver.spans()
        return any(span.service == "paracle-provider_gateway" and run.run.run_id in repr(span) for span in spans)

    return await eventually(told, within_s=15)


def spellings(key: str) -> Iterator[str]:
    """As text, and as PostgreSQL shows bytes."""
    yield key
    yield key.encode().hex()


async def streamed(nats: Nats) -> AsyncIterator[str]:
    """Every message that any stream holds, with its headers."""
    streams = nats.jetstream()
    for info in await streams.streams_info():
        name = info.config.name
        assert name is not None
        for number in range(max(info.state.first_seq, 1), info.state.last_seq + 1):
            try:
                message = await streams.get_msg(name, number)
            except NotFoundError:
                continue  # worked off meanwhile
            yield f"{message.headers} {(message.data or b'').decode(errors='replace')}"


async def stored(system: System) -> AsyncIterator[str]:
    """Every row of every table of every service."""
    for service in SERVICES:
        if service.database is None:
            continue
        database = await asyncpg.connect(system.stack.postgres.dsn_of(service.database))
        for (table,) in await database.fetch(
            "select quote_ident(table_schema) || '.' || quote_ident(table_name) from information_schema.tables"
            " where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')"
        ):
            for (row,) in await database.fetch(f"select t::text from {table} t"):  # the catalog's names
                yield row
        await database.close()


async def test_the_example_runs_as_it_stands(system: System) -> None:
    text = (ROOT / "examples" / "models" / "models.yaml").read_text(encoding="utf-8")
    await asyncio.to_thread(system.apply, text)
    run = await system.invoke("sorter", {"text": "My invoice is wrong, I paid twice."})
    assert (run.run.status, run.output) == (RunStatus.COMPLETED, {"topic": "billing"})
    async with system.client() as client:
        await client.delete_manifests(text)
