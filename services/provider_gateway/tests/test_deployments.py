"""How deployments stand: limits that all replicas share, and the breakers of the one that answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from accounts_samples import PostgresBank, order, settled
from provider_gateway_samples import CONTEXT, ask
from workshop_desk import Shop, shop

from paracle_chassis.postgres import Database
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.infra import migrated
from paracle_chassis.testing.wire import fail
from paracle_domain.envelope import Context
from paracle_domain.errors import InvalidInput, NotFound, ProviderUnavailable
from paracle_domain.inference.deployments import DeploymentUse, DeploymentView, ListDeployments
from paracle_domain.inference.response import BreakerState
from paracle_domain.provider.spec import DeploymentLimits
from paracle_provider_gateway.adapters.loads import PostgresLoads
from paracle_provider_gateway.deployments import DeploymentDesk


@dataclass
class MemoryLoads:
    """`Loads` that are told."""

    told: dict[str, DeploymentUse] = field(default_factory=dict)

    async def loads(self, keys: Sequence[str]) -> Mapping[str, DeploymentUse]:
        return {key: self.told[key] for key in keys if key in self.told}


async def listed(
    found: Shop, loads: MemoryLoads | None = None, *, name: str | None = None, tenant: str = "acme"
) -> dict[str, DeploymentView]:
    desk = DeploymentDesk(found.catalog, loads or MemoryLoads(), found.gateway.health, "rep_1")
    answer = await desk.list_deployments(ListDeployments(name=name), Context(tenant))
    assert answer.replica == "rep_1"
    assert [one.name for one in answer.deployments] == sorted(one.name for one in answer.deployments)
    return {one.name: one for one in answer.deployments}


async def test_those_that_are_named_are_listed_for_who_named_them():
    found = shop()
    found.registry.provider("mine", base_url="http://127.0.0.1:1/v1", models={"a": {}, "b": {}})
    found.registry.model("steady", "mine/c", "mine/a", fallbacks=["sandbox/slow"])
    shown = await listed(found)
    assert set(shown) >= {"mine/a", "mine/b", "mine/c", "sandbox/rules", "sandbox/slow"}
    assert (shown["mine/a"].own, shown["sandbox/rules"].own, shown["sandbox/rules"].sandbox) == (True, False, True)
    assert set(await listed(found, tenant="globex")) <= {"sandbox/rules", "sandbox/slow"}


async def test_one_is_shown_by_name_whether_it_is_named_or_not():
    found = shop()
    found.registry.provider("mine", base_url="http://127.0.0.1:1/v1")
    assert list(await listed(found, name="mine/whatever")) == ["mine/whatever"]
    with pytest.raises(NotFound, match="provider 'yours' is unknown"):
        await listed(found, name="yours/a")
    with pytest.raises(InvalidInput, match="names no provider"):
        await listed(found, name="mine")


async def test_what_callers_name_is_shown_to_their_tenant():
    found = shop()
    found.registry.provider("mine", base_url="http://127.0.0.1:1/v1")
    found.registry.model("steady", "sandbox/rules")
    for model in ("sandbox/unlisted", "steady", "sandbox/rules"):
        await found.catalog.plan("acme", ask(model=model))
    shown = await listed(found)
    assert "sandbox/unlisted" in shown
    assert "steady" not in shown
    assert "sandbox/unlisted" not in await listed(found, tenant="globex")


async def test_one_that_may_not_be_asked_says_why():
    found = shop()
    found.registry.model("broken", "gone/a", "sandbox/rules")
    shown = await listed(found)
    assert shown["gone/a"].refused is not None
    assert "provider 'gone' is unknown" in shown["gone/a"].refused
    assert shown["sandbox/rules"].refused is None


async def test_limits_are_shown_with_what_is_in_use():
    found = shop()
    models = {"a": {}, "b": {"limits": {}}, "c": {"limits": {"tokens_per_minute": 9}}}
    found.registry.provider("mine", base_url="http://127.0.0.1:1/v1", limits={"concurrency": 4}, models=models)
    use = DeploymentUse(in_air=3, requests=20, tokens=500)
    shown = await listed(found, MemoryLoads({"acme mine/a": use, "globex mine/c": use, "acme mine/b": use}))
    assert (shown["mine/a"].limits, shown["mine/a"].use) == (DeploymentLimits(concurrency=4), use)
    assert (shown["mine/b"].limits, shown["mine/b"].use) == (DeploymentLimits(), None)
    assert shown["mine/c"].use == DeploymentUse(in_air=0, requests=0, tokens=0)


async def test_one_that_fails_is_shown_as_left_in_peace():
    async with FakeOpenAI() as fake:
        fake.otherwise = fail(503, message="out of order")
        found = shop()
        found.registry.provider("mine", base_url=fake.url, models={"a": {}})
        assert (await listed(found))["mine/a"].breaker is BreakerState.CLOSED
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                await found.gateway.completions.complete(ask(model="mine/a"), CONTEXT)
        shown = (await listed(found))["mine/a"]
        assert (shown.breaker, shown.rests_s > 0) == (BreakerState.OPEN, True)
        assert shown.trouble is not None
        assert "out of order" in shown.trouble
        await found.workshop.close()


@pytest.mark.connected
async def test_what_all_replicas_use_is_counted_together(postgres_dsn: str):
    await migrated(postgres_dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_provider_gateway") as database:
        bank = PostgresBank(database.pool)
        await bank.join("a", "b")
        limits = DeploymentLimits(concurrency=9, requests_per_minute=100, tokens_per_minute=1_000)
        made = [order(load="acme mine/a", limits=limits, tokens=10) for _ in range(3)]
        first, second = bank.ledger("a"), bank.ledger("b")
        await first.open(made[:2])
        await second.open(made[2:])
        await first.settle([settled(made[0], tokens=4)])
        loads = PostgresLoads(database.pool, bank.queries)
        assert await loads.loads([]) == {}
        assert await loads.loads(["acme mine/a", "acme mine/b"]) == {
            "acme mine/a": DeploymentUse(in_air=2, requests=3, tokens=24)
        }
        await database.pool.execute("update loads set minute = minute - 2")
        (later,) = (await loads.loads(["acme mine/a"])).values()
        assert later == DeploymentUse(in_air=2, requests=0, tokens=0), "what is under way stays, however old"
