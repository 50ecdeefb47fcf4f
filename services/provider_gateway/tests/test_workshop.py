"""Providers of tenants: made as their manifests say, within what the operator allows, and given up when they change."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, override

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from provider_gateway_samples import CANARY
from workshop_desk import Shop, shop

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Turn, fail, say
from paracle_domain.errors import Forbidden, NotFound, ParacleError, ProviderFailed
from paracle_domain.provider.spec import Capabilities, DeploymentLimits
from paracle_provider_gateway.adapters.resolver import AT_ONCE, THREADS, CheckedResolver, Lookups
from paracle_provider_gateway.adapters.workshop import LONGEST_CALL_S
from paracle_provider_gateway.hosts import HostRules
from paracle_provider_gateway.keys import KeyRing
from paracle_provider_gateway.plans import Timeouts


@pytest.fixture
async def mine() -> AsyncIterator[Shop]:
    made = shop()
    yield made
    await made.workshop.close()


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


async def test_a_deployment_is_what_its_manifest_says(mine: Shop):
    mine.registry.provider(
        "p",
        base_url="http://127.0.0.1:9/v1",
        limits={"concurrency": 3},
        timeouts={"first_token_s": 7, "total_s": 60},
        models={
            "gpt-4o": {
                "capabilities": {"vision": False},
                "price": {"input": "1", "output": "2"},
                "limits": {"requests_per_minute": 5},
                "timeouts": {"total_s": 9},
            }
        },
    )
    plain, known = await mine.deployment("p/other"), await mine.deployment("p/gpt-4o")
    assert (plain.tenant, plain.name, plain.price_url) == ("acme", "p/other", "http://127.0.0.1:9/v1")
    assert (plain.limits, plain.timeouts) == (DeploymentLimits(concurrency=3), Timeouts(10, 7, 60, 60))
    assert (plain.capabilities, plain.price) == (Capabilities(), None)
    assert (known.limits, known.timeouts) == (DeploymentLimits(requests_per_minute=5), Timeouts(10, 7, 60, 9))
    assert (known.capabilities.vision, known.capabilities.tools) == (False, True)
    assert known.price is not None
    assert known.price.output == 2


async def test_a_key_reaches_its_provider_and_nobody_else(
    mine: Shop, fake: FakeOpenAI, caplog: pytest.LogCaptureFixture
):
    fake.script(say("Hello."), fail(401, message=f"bad key {CANARY}"))
    mine.registry.provider("p", base_url=fake.url, key={"env": "MINE"}, headers={"X-Team": "a"}, query={"v": "1"})
    assert (await mine.ask("p/a")).message.text == "Hello."
    seen = fake.journal[0]
    assert (seen.headers["Authorization"], seen.headers["X-Team"], seen.path) == (
        f"Bearer {CANARY}",
        "a",
        "/v1/chat/completions?v=1",
    )
    with pytest.raises(ProviderFailed, match="check the key MINE") as refused:
        await mine.ask("p/a")
    assert CANARY not in str(refused.value) + caplog.text


async def test_a_key_rotates_between_calls(tmp_path: Path, fake: FakeOpenAI):
    (tmp_path / "acme").mkdir()
    key = tmp_path / "acme" / "MINE"
    key.write_text("sk-1")
    mine = shop(KeyRing({}, tmp_path))
    mine.registry.provider("p", base_url=fake.url, key={"file": "MINE", "header": "api-key"})
    await mine.ask("p/a")
    fresh = key.with_suffix(".new")
    fresh.write_text("sk-22")
    fresh.rename(key)
    await mine.ask("p/a")
    assert [seen.headers["api-key"] for seen in fake.journal] == ["sk-1", "sk-22"]
    key.unlink()
    with pytest.raises(NotFound, match="no key MINE"):
        await mine.ask("p/a")
    await mine.workshop.close()


@pytest.mark.parametrize(
    "trouble", [fail(500), fail(401), fail(429, retry_after=600)], ids=["breaker", "key", "rest that was asked for"]
)
async def test_a_provider_that_was_mended_is_asked_at_once(mine: Shop, fake: FakeOpenAI, trouble: Turn):
    fake.otherwise = trouble
    mine.registry.provider("p", base_url=fake.url)
    for _ in range(5):
        with pytest.raises(ParacleError):
            await mine.ask("p/a")
    before = len(fake.journal)
    with pytest.raises(ParacleError, match=r"failed too often|HTTP 429"):
        await mine.ask("p/a", timeout_s=1)
    assert len(fake.journal) == before, "it is left in peace"
    fake.otherwise = say("Hello.")
    mine.registry.provider("p", base_url=fake.url, description="mended")
    assert (await mine.ask("p/a", timeout_s=60)).message.text == "Hello."


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ({"base_url": "http://10.0.0.1/v1"}, "PARACLE_PROVIDER_HOSTS"),
        ({"base_url": "https://evil.example.com/v1", "key": {"env": "MINE"}}, "PARACLE_PROVIDER_KEY_HOSTS"),
        ({"base_url": "https://evil.example.com/v1", "preset": "openai"}, "OPENAI_API_KEY may not be sent to evil"),
        ({"base_url": "https://evil.example.com/v1", "transport": "sdk"}, "transport: sdk"),
    ],
)
async def test_what_the_operator_did_not_allow_is_refused_with_the_way_out(mine: Shop, spec: dict[str, Any], hint: str):
    mine.registry.provider("p", **spec)
    with pytest.raises(Forbidden, match=hint):
        await mine.ask("p/a")
    mine.registry.model("m", "p/a", "sandbox/rules")
    assert (await mine.ask("m")).provider == "sandbox", "a route that is open is used"


async def test_a_manifest_that_cannot_be_read_is_no_other_ones_trouble(mine: Shop, fake: FakeOpenAI):
    mine.registry.provider("good", base_url=fake.url)
    mine.registry.provider("newer", base_url=fake.url, of_tomorrow=True)
    mine.registry.provider("unknown", preset="of-tomorrow")
    mine.registry.model("strange", "good/a", of_tomorrow=True)
    assert (await mine.ask("good/a")).provider == "good"
    for name in ("newer", "unknown"):
        with pytest.raises(NotFound, match=f"manifest of '{name}' says what this provider gateway does not know"):
            await mine.ask(f"{name}/a")
    with pytest.raises(NotFound, match="no model"):
        await mine.ask("strange")


class Rebound(AbstractResolver):
    """A name server that has thought better of it."""

    def __init__(self, address: str) -> None:
        self.address = address

    @override
    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host=self.address, port=port, family=family, proto=0, flags=0)]

    @override
    async def close(self) -> None:
        """It has nothing."""


async def test_a_name_that_leads_home_is_refused_when_it_is_looked_up():
    checked = CheckedResolver("p", HostRules(["llm.internal"]), Rebound("127.0.0.1"))
    with pytest.raises(Forbidden, match=r"provider 'p' may not be at api\.example\.com: 127\.0\.0\.1"):
        await checked.resolve("api.example.com", 443)
    assert (await checked.resolve("llm.internal", 80))[0]["host"] == "127.0.0.1"
    await checked.close()


async def test_slow_look_ups_hold_up_their_own_tenant_alone():
    begun: list[str] = []
    over = threading.Event()

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        if host == "slow.example":
            begun.append(host)
            over.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", port))]

    with ThreadPoolExecutor(THREADS) as threads:
        try:
            slow, other = Lookups(threads, look_up), Lookups(threads, look_up)
            given_up = [asyncio.create_task(slow.resolve("slow.example", 443)) for _ in range(3 * AT_ONCE)]
            await eventually(lambda: len(begun) == AT_ONCE)
            for each in given_up:
                each.cancel()
            await asyncio.gather(*given_up, return_exceptions=True)
            later = asyncio.create_task(slow.resolve("quick.example", 443))
            [found] = await asyncio.wait_for(other.resolve("quick.example", 443), 30)
            assert (found["hostname"], found["host"], found["port"]) == ("quick.example", "192.0.2.1", 443)
            assert not later.done(), "what nobody waits for goes on, and counts"
        finally:
            over.set()
        assert (await later)[0]["host"] == "192.0.2.1"
    assert len(begun) == AT_ONCE


async def test_a_name_of_this_machine_is_no_way_around(mine: Shop, fake: FakeOpenAI):
    mine.registry.provider("p", base_url=fake.url.replace("127.0.0.1", "localhost"))
    with pytest.raises(Forbidden, match="may not be at localhost"):
        await mine.ask("p/a")
    assert fake.journal == []
    mine.registry.model("m", "p/a", "sandbox/rules")
    assert (await mine.ask("m")).provider == "sandbox", "its other routes are asked"


async def test_redirects_are_not_followed(mine: Shop, fake: FakeOpenAI):
    async with FakeOpenAI() as other:
        headers = (("Location", f"{other.url}/chat/completions"),)
        fake.script(Turn(status=307, headers=headers))
        mine.registry.provider("p", base_url=fake.url, key={"env": "MINE"})
        with pytest.raises(ProviderFailed, match="HTTP 307"):
            await mine.ask("p/a")
        assert other.journal == []


async def test_calls_in_the_air_end_as_they_began(mine: Shop, fake: FakeOpenAI):
    async with FakeOpenAI() as other:
        fake.script(say("old", delay_s=0.2))
        mine.registry.provider("p", base_url=fake.url)
        asking = asyncio.create_task(mine.ask("p/a"))
        await eventually(lambda: fake.journal)
        mine.registry.provider("p", base_url=other.url)
        assert len((await mine.ask("p/a")).message.parts) == 1
        assert len(other.journal) == 1
        assert (await asking).message.text == "old"


async def test_an_adapter_is_kept_as_long_as_its_manifest_and_then_given_up(mine: Shop):
    mine.registry.provider("p", base_url="http://127.0.0.1:9/v1")
    first = (await mine.deployment("p/a")).provider
    mine.registry.provider("other", base_url="http://127.0.0.1:9/v1")
    assert (await mine.deployment("p/a")).provider is first
    mine.registry.provider("p", base_url="http://127.0.0.1:8/v1")
    assert (await mine.deployment("p/a")).provider is not first
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    first.close = close  # type: ignore[method-assign]
    await mine.workshop.round()
    assert closed == []
    mine.clock[0] = LONGEST_CALL_S + 1
    await mine.workshop.round()
    assert closed == [True]


async def test_models_are_listed_over_the_operators(mine: Shop):
    mine.registry.provider("p", base_url="http://127.0.0.1:9/v1", default_model="b", models={"a": {}})
    mine.registry.model("fast", "p/a", "sandbox/rules")
    found = await mine.catalog.models("acme")
    assert [(model.name, model.routes) for model in found.models] == [
        ("fast", ("p/a", "sandbox/rules")),
        ("p/b", ()),
        ("p/a", ()),
        ("sandbox/rules", ()),
        ("sandbox/slow", ()),
    ]
    assert found.default == "sandbox/rules"
    mine.registry.model("default", "p/b")
    mine.following.doubt()
    found = await mine.catalog.models("acme")
    assert found.default == "p/b"
    assert [model.name for model in found.models if model.default] == ["p/b"]
    assert [model.name for model in (await mine.catalog.models("globex")).models] == ["sandbox/rules", "sandbox/slow"]


async def test_a_model_that_leads_nowhere_is_listed_with_the_reason(mine: Shop):
    mine.registry.model("default", "openai/gpt-5", "nobody/a")
    mine.registry.model("fast", "sandbox/rules")
    found = await mine.catalog.models("acme")
    lost, fast, *_ = found.models
    assert (lost.name, lost.provider, lost.routes) == ("default", "openai", ("openai/gpt-5", "nobody/a"))
    assert "set OPENAI_API_KEY" in (lost.trouble or "")
    assert (fast.name, fast.trouble, found.default) == ("fast", None, "openai/gpt-5")


async def test_default_is_the_tenants_before_the_operators(mine: Shop):
    assert (await mine.ask("default")).provider == "sandbox"
    mine.registry.provider("p", base_url="http://127.0.0.1:9/v1")
    mine.registry.model("default", "p/a")
    assert (await mine.deployment("default")).name == "p/a"
