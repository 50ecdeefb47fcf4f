"""How the gateway follows the registry, tenant by tenant."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_registry import MemoryRegistry, MemorySetups

from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_domain.errors import DeadlineExceeded, Unavailable
from paracle_domain.registry import ProviderChange, ProviderChanges
from paracle_provider_gateway import following as module
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.adapters.setups import PostgresSetups
from paracle_provider_gateway.following import Following, Specs
from paracle_provider_gateway.plans import Deployment
from paracle_provider_gateway.setups import Setup


def operators(full: str) -> Deployment:
    return Deployment(SandboxProvider(), full)


@dataclass
class World:
    """A following over a registry in memory, and what it built and forgot."""

    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    kept: MemorySetups = field(default_factory=MemorySetups)
    built: list[tuple[str, list[str]]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.following = Following(self.registry, self._build, self.forgotten.append, self.kept)

    def _build(self, tenant: str, specs: Specs) -> Setup:
        self.built.append((tenant, sorted(name for _, name in specs)))
        return Setup(operators)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_tenant_is_asked_about_once(world: World):
    world.registry.provider("p", base_url="x")
    world.registry.provider("q", tenant="globex", base_url="x")
    first = await world.following.setup("acme")
    assert await world.following.setup("acme") is first
    assert (world.registry.asked, world.built) == (1, [("acme", ["p"])])
    await world.following.setup("globex")
    assert world.built[1:] == [("globex", ["q"])]


async def test_callers_at_the_same_time_ask_once(world: World):
    first, *others = await asyncio.gather(*(world.following.setup("acme") for _ in range(5)))
    assert all(other is first for other in others)
    assert world.registry.asked == 1


async def test_what_was_heard_of_is_asked_for_before_the_next_call(world: World):
    first = await world.following.setup("acme")
    world.registry.provider("p", base_url="x")
    assert await world.following.setup("acme") is first, "nobody said so yet"
    world.following.hear("acme")
    world.following.hear("nobody")
    assert await world.following.setup("acme") is not first
    assert world.built == [("acme", []), ("acme", ["p"])]
    world.following.hear("acme")
    world.registry.put("acme", "Provider", "p", None)
    await world.following.setup("acme")
    assert world.built[-1] == ("acme", [])
    assert world.registry.asked == 3


async def test_news_that_change_nothing_keep_the_setup(world: World):
    first = await world.following.setup("acme")
    world.following.doubt()
    assert await world.following.setup("acme") is first
    assert (world.registry.asked, len(world.built)) == (2, 1)


async def test_many_changes_come_in_pages(world: World):
    world.registry.page = 2
    for name in "abcde":
        world.registry.provider(name, base_url="x")
    await world.following.setup("acme")
    assert (world.registry.asked, world.built) == (3, [("acme", list("abcde"))])


async def test_while_the_registry_is_away_a_tenant_has_what_is_known(world: World, caplog: pytest.LogCaptureFixture):
    first = await world.following.setup("acme")
    world.registry.failure = DeadlineExceeded("no answer")
    world.following.hear("acme")
    assert await world.following.setup("acme") is first
    assert await world.following.setup("acme") is first
    assert world.registry.asked == 2, "one that is away is not asked at every call"
    assert "providers may be out of date" in caplog.text
    with pytest.raises(Unavailable, match="the registry does not answer"):
        await world.following.setup("globex")
    world.registry.failure = None
    world.registry.provider("p", base_url="x")
    world.following.hear("acme")
    assert await world.following.setup("acme") is not first


async def test_what_was_read_before_it_went_away_counts_later(world: World):
    await world.following.setup("acme")
    world.registry.page = 1
    for name in "ab":
        world.registry.provider(name, base_url="x")
    world.following.hear("acme")
    answers = world.registry.changes

    async def once(tenant: str, after: int):
        answer = await answers(tenant, after)
        world.registry.failure = Unavailable("gone")
        return answer

    world.registry.changes = once  # type: ignore[method-assign]
    await world.following.setup("acme")
    world.registry.changes, world.registry.failure = answers, None  # type: ignore[method-assign]
    await world.following.round()
    assert world.built == [("acme", []), ("acme", ["a", "b"])]


async def test_rounds_ask_about_those_in_use(world: World):
    await world.following.setup("acme")
    await world.following.round()
    assert world.registry.asked == 2
    await world.following.round()
    assert world.registry.asked == 2, "nobody used it"
    world.registry.provider("p", base_url="x")
    await world.following.setup("acme")
    assert world.built[-1] == ("acme", ["p"]), "what is asked about no more is asked about when it is used"
    world.registry.failure = Unavailable("gone")
    with pytest.raises(Unavailable):
        await world.following.round()


async def test_the_oldest_of_too_many_tenants_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_TENANTS_KEPT", 2)
    for tenant in ("a", "b", "c"):
        await world.following.setup(tenant)
    assert world.forgotten == ["a"]


async def test_one_that_is_in_use_is_not_forgotten_before_others(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_TENANTS_KEPT", 2)
    for tenant in ("a", "b"):
        await world.following.setup(tenant)
    await world.following.round()
    await world.following.setup("a")
    await world.following.round()
    await world.following.setup("c")
    assert world.forgotten == ["b"]


@pytest.mark.parametrize("known", [False, True])
async def test_callers_at_the_same_time_wait_once_for_a_registry_that_is_silent(world: World, known: bool):
    if known:
        await world.following.setup("acme")
        world.following.doubt()
    before = world.registry.asked

    async def silent(tenant: str, after: int) -> ProviderChanges:
        world.registry.asked += 1
        await asyncio.sleep(0)
        raise DeadlineExceeded("no answer within 5 s")

    world.registry.changes = silent  # type: ignore[method-assign]
    found = await asyncio.gather(*(world.following.setup("acme") for _ in range(5)), return_exceptions=True)
    assert world.registry.asked == before + 1
    assert all(isinstance(one, Setup if known else Unavailable) for one in found)


async def test_one_that_starts_while_the_registry_is_away_has_what_was_kept(world: World):
    world.registry.provider("p", base_url="x")
    world.registry.provider("q", base_url="x")
    await world.following.setup("acme")
    await world.following.setup("globex")
    world.registry.put("acme", "Provider", "q", None)
    world.following.hear("acme")
    await world.following.setup("acme")
    world.registry.failure = Unavailable("gone")
    heir = World(world.registry, world.kept)
    first = await heir.following.setup("acme")
    assert await heir.following.setup("acme") is first
    await heir.following.setup("globex")
    assert heir.built == [("acme", ["p"]), ("globex", [])]
    with pytest.raises(Unavailable, match="gone"):
        await heir.following.setup("initech")
    with pytest.raises(Unavailable, match="gone"):
        await heir.following.round()
    world.registry.failure = None
    world.registry.put("acme", "Provider", "p", None)
    heir.following.doubt()
    assert await heir.following.setup("acme") is not first
    assert heir.built[-1] == ("acme", []), "what the registry says counts, and nothing that was kept"
    assert world.kept.manifests["acme"] == ()


@pytest.mark.parametrize("failure", [ConnectionResetError("away"), ValueError("odd")])
async def test_what_cannot_be_kept_now_is_kept_in_a_later_round(
    world: World, failure: Exception, caplog: pytest.LogCaptureFixture
):
    world.registry.provider("p", base_url="x")
    world.kept.failures = [failure]
    await world.following.setup("acme")
    assert world.kept.manifests == {}
    assert "providers are not kept" in caplog.text
    assert ("odd" in caplog.text) == isinstance(failure, ValueError)
    await world.following.round()
    assert [change.name for change in world.kept.manifests["acme"]] == ["p"]
    world.kept.failures = [failure]
    heir = World(world.registry, world.kept)
    world.registry.failure = Unavailable("gone")
    with pytest.raises(Unavailable):
        await heir.following.setup("acme")
    assert "what was kept cannot be read" in caplog.text
    assert heir.built == []


@pytest.mark.connected
async def test_what_is_kept_is_kept_in_postgres(world: World, postgres_dsn: str):
    await migrated(postgres_dsn, "paracle_provider_gateway")
    world.registry.provider("p", base_url="https://models.example/v1", key={"env": "MINE"})
    changes = (await world.registry.changes("acme", 0)).changes
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_provider_gateway") as database:
        setups = PostgresSetups(database.pool, Queries.load("paracle_provider_gateway"))
        assert await setups.kept("acme") is None
        for version, manifests in enumerate(((), changes)):
            await setups.keep("acme", version, manifests)
            assert await setups.kept("acme") == manifests
        assert await setups.kept("globex") is None
        for tenant, order in enumerate(itertools.permutations(range(4))):
            await asyncio.gather(*(setups.keep(str(tenant), version, _named(version)) for version in order))
            await setups.keep(str(tenant), order[0], _named(order[0]))
            assert await setups.kept(str(tenant)) == _named(3)


def _named(version: int) -> tuple[ProviderChange, ...]:
    return (ProviderChange(kind="Provider", name=f"p{version}", revision=1, spec={}, version=version),)


class LateSetups(MemorySetups):
    """What is to be kept is on its way until it is `delivered`, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.underway: list[tuple[str, int, Sequence[ProviderChange]]] = []

    async def keep(self, tenant: str, version: int, manifests: Sequence[ProviderChange]) -> None:
        self.underway.append((tenant, version, manifests))

    async def delivered(self, order: Sequence[int]) -> None:
        for at in order:
            await super().keep(*self.underway[at])


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.booleans(), st.integers(0, 2)), max_size=12), st.data())
def test_in_whatever_order_replicas_keep_what_they_know_the_newest_stays(
    steps: list[tuple[str, bool, int]], data: st.DataObject
):
    """Each step applies or deletes a provider, and one of three replicas looks at once."""

    async def played() -> None:
        registry, kept = MemoryRegistry(), LateSetups()
        replicas = [World(registry, kept) for _ in range(3)]
        newest: list[str] = []
        for name, there, looking in steps:
            registry.put("acme", "Provider", name, {"base_url": "x"} if there else None)
            replicas[looking].following.doubt()
            await replicas[looking].following.setup("acme")
            newest = replicas[looking].built[-1][1]
        await kept.delivered(data.draw(st.permutations(range(len(kept.underway)))))
        assert sorted(change.name for change in kept.manifests.get("acme", ())) == newest

    asyncio.run(played())
