"""What the registry said is believed until it may have changed, and asked for again then."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from nats.aio.client import Client

from paracle_chassis.bus import outgoing
from paracle_chassis.frames import flushed
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import OpenBus
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.plan import Plan
from paracle_domain.registry import SpecsChanged, changed_subject
from paracle_domain.run.commands import StartRun
from paracle_orchestrator.adapters.news import RegistryNews
from paracle_orchestrator.plans import Pinned, Plans

CALL = Context("acme")
START = StartRun(workflow="w")


class Ages:
    """`News` by script."""

    def __init__(self) -> None:
        self.age: int | None = 1


@pytest.fixture
def ages() -> Ages:
    return Ages()


@pytest.fixture
def plans(desk: Any, ages: Ages) -> Plans:
    return Plans(desk.shelf, desk.bus, ages)


async def test_the_registry_is_asked_again_when_something_may_have_changed(desk: Any, plans: Plans, ages: Ages) -> None:
    first = await plans.resolve(START, CALL)
    assert await plans.resolve(START, CALL) is first
    assert len(desk.bus.asked) == 1
    ages.age = 2
    assert await plans.resolve(START, CALL) is first
    assert await plans.resolve(START, CALL) is first
    assert len(desk.bus.asked) == 2


async def test_each_target_and_tenant_is_asked_for_by_itself(desk: Any, plans: Plans) -> None:
    for command in (START, StartRun(workflow="w", revision=1)):
        for call in (CALL, Context("other")):
            await plans.resolve(command, call)
    assert len(desk.bus.asked) == 4


async def test_without_news_the_registry_is_asked_every_time(desk: Any, plans: Plans, ages: Ages) -> None:
    ages.age = None
    for _ in range(3):
        await plans.resolve(START, CALL)
    assert len(desk.bus.asked) == 3


async def test_an_answer_is_not_believed_if_something_changed_on_its_way(
    desk: Any, plans: Plans, ages: Ages, tools: Any
) -> None:
    call = desk.bus.call

    async def slow(*given: Any, **more: Any) -> Any:
        answer = await call(*given, **more)
        ages.age = 2
        return answer

    desk.bus.call = slow
    old = await plans.resolve(START, CALL)
    desk.bus.call = call
    desk.knows("w", tools.plan_of({"id": "new"}))
    new = await plans.resolve(START, CALL)
    assert new.plan.digest != old.plan.digest


@pytest.mark.parametrize("news", [1, None])
async def test_a_plan_that_is_forgotten_is_asked_for_again(
    desk: Any, plans: Plans, ages: Ages, tools: Any, monkeypatch: pytest.MonkeyPatch, news: int | None
) -> None:
    """No run has pinned it for days, so it was dropped, and there were too many others to remember it here."""
    monkeypatch.setattr("paracle_orchestrator.plans._CACHED", 1)
    ages.age = news
    first = await plans.resolve(START, CALL)
    other = tools.plan_of({"id": "other"})
    await desk.shelf.put("acme", other)
    await plans.get("acme", other.digest)
    del desk.shelf.plans["acme", first.plan.digest]
    assert (await plans.resolve(START, CALL)).plan == first.plan


async def test_a_plan_that_could_not_be_stored_is_asked_for_again(desk: Any, plans: Plans) -> None:
    put = desk.shelf.put

    async def away(*_: Any) -> None:
        raise ConnectionError

    desk.shelf.put = away
    with pytest.raises(ConnectionError):
        await plans.resolve(START, CALL)
    desk.shelf.put = put
    await plans.resolve(START, CALL)
    assert len(desk.bus.asked) == 2


async def test_nobody_waits_for_a_machine_that_is_made_ready(
    desk: Any, plans: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10,000 steps it takes a second, so the loop must go on: here it is what lets the making end."""
    loop, going_on = asyncio.get_running_loop(), threading.Event()

    def slowly(plan: Plan) -> Pinned:
        loop.call_soon_threadsafe(going_on.set)
        assert going_on.wait(30)
        return made(plan)

    made = Pinned.of
    monkeypatch.setattr(Pinned, "of", slowly)
    assert (await plans.resolve(START, CALL)).plan == desk.bus.plans["w"]


@pytest.mark.connected
async def test_a_change_is_heard_before_the_start_that_follows_it(open_bus: OpenBus, nats_client: Client) -> None:
    bus, registry = await open_bus("orchestrator"), await open_bus("registry")
    seen: asyncio.Queue[object] = asyncio.Queue()
    async with RegistryNews(bus.link) as news:
        last: object = news.age
        assert last is not None
        await bus.link.hear("starts", lambda _: seen.put_nowait(news.age))
        await flushed(bus.client)
        for _ in range(100):
            told = outgoing(changed_subject("acme"), SpecsChanged(), CALL, source="paracle/test")
            await registry.broadcast(told)
            await flushed(registry.client)  # as whoever is answered by the registry knows
            await nats_client.publish("starts")
            age = await seen.get()
            assert age != last
            last = age
        await nats_client.publish(subjects.evt("acme", "workflow", "w", "revised"))
        await eventually(lambda: news.age != last)
    assert news.age is None


@pytest.mark.connected
async def test_in_a_cluster_nothing_is_remembered(open_bus: OpenBus, settings: ServiceSettings) -> None:
    bus = await open_bus("orchestrator", settings.model_copy(update={"nats_replicas": 3}))
    async with RegistryNews(bus.link) as news:
        assert news.age is None
