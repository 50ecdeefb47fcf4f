"""What the users that we ship may do on a real nats-server, and above all what they may not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.nats_users import OTHER, GuardedNats, Guest, guest
from paracle_domain import subjects

pytestmark = pytest.mark.connected
SERVICES = ("registry", "orchestrator", "agent_runtime", "provider_gateway", "observability", "api_gateway")
TENANTS = ("default", "default-worker", OTHER, f"{OTHER}-worker")
USERS = ("provision", *SERVICES, *TENANTS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNats]:
    with GuardedNats(tmp_path_factory.mktemp("nats")) as found:
        yield found


@pytest.fixture
async def tenant(server: GuardedNats) -> AsyncIterator[Guest]:
    async with guest(server, "default") as found:
        yield found


@pytest.fixture
async def worker(server: GuardedNats) -> AsyncIterator[Guest]:
    async with guest(server, "default-worker") as found:
        yield found


@pytest.fixture
async def runtime(server: GuardedNats) -> AsyncIterator[Guest]:
    async with guest(server, "agent_runtime") as found:
        yield found


@pytest.mark.parametrize("user", USERS)
async def test_everybody_reads_his_own_inbox_and_no_other(server: GuardedNats, user: str):
    async with guest(server, user) as one:
        assert await one.may_hear(f"_INBOX.{user}.>")
        others = [f"_INBOX.{other}.>" for other in USERS if other != user]
        for subject in (">", "*.>", "_INBOX.>", "_INBOX.*.>", "_INBOX.*.*.*", "_INBOX.somebody", *others):
            assert not await one.may_hear(subject), subject


@pytest.mark.parametrize("user", TENANTS)
async def test_of_tenants_nobody_writes_into_an_inbox_of_others(server: GuardedNats, user: str):
    async with guest(server, user) as one:
        asking = {"agent_runtime", "provider_gateway"} if user.endswith("-worker") else set()
        for other in {*USERS, "somebody"} - asking - {user}:
            assert not await one.may_say(f"_INBOX.{other}.n0nsense.1"), other


@pytest.mark.parametrize("user", TENANTS)
async def test_of_tenants_nobody_publishes_what_services_do_or_gives_orders_to_the_server(
    server: GuardedNats, user: str
):
    async with guest(server, user) as one:
        for of in ("default", OTHER):
            for subject in (
                subjects.result(of, "run_1"), subjects.results(of), subjects.task(of, "agents"),
                subjects.out(of, "task_1"), subjects.cmd(of, "agent_runtime", "cancel_task"),
                subjects.evt(of, "run", "run_1", "run_completed"), subjects.dlq(of, "registry"),
                subjects.rpc(of, "provider_gateway_replica", "rep_1"),
            ):  # fmt: skip
                assert not await one.may_say(subject), subject
        for subject in (
            "paracle.internal.answered.orchestrator", "$JS.API.STREAM.PURGE.RESULTS", "$JS.API.STREAM.LIST",
            "$JS.API.CONSUMER.MSG.NEXT.RESULTS.orchestrator", "$JS.ACK.RESULTS.orchestrator.1.1.1.1.1",
            "$O.paracle-claims.C.x", "$SYS.REQ.SERVER.PING",
        ):  # fmt: skip
            assert not await one.may_say(subject), subject


async def test_a_tenant_asks_and_hears_what_is_its_own(tenant: Guest):
    for subject in (
        subjects.cmd("default", "orchestrator", "start_run"), subjects.rpc("default", "registry", "get"),
        subjects.intake("default", "orders.paid"),
    ):  # fmt: skip
        assert await tenant.may_say(subject), subject
        assert not await tenant.may_say(subject.replace("default", OTHER)), subject
        assert not await tenant.may_hear(subject), "it is for services"
    for subject in ("evt.>", "evt.run.*.*", "out.*", "result.*"):
        assert await tenant.may_hear(f"paracle.v1.default.{subject}")
        for of in (OTHER, "*"):
            assert not await tenant.may_hear(f"paracle.v1.{of}.{subject}")


async def test_a_worker_hears_calls_of_its_tenant_and_nothing_else(worker: Guest):
    for service in ("tools", "guards"):
        assert await worker.may_hear(subjects.rpc("default", service, "x"), queue=service)
        assert not await worker.may_hear(subjects.rpc(OTHER, service, "x"), queue=service)
        assert not await worker.may_hear(subjects.rpc("*", service, "x"))
    for subject in (
        subjects.rpc("default", "registry", "get"),
        "paracle.v1.default.result.*",
        "paracle.v1.default.evt.>",
    ):
        assert not await worker.may_hear(subject)
    assert not await worker.may_say(subjects.cmd("default", "orchestrator", "start_run"))
    assert not await worker.may_say(subjects.rpc("default", "registry", "get"))


@pytest.mark.parametrize("user", SERVICES)
async def test_a_service_hears_no_questions_to_another(server: GuardedNats, user: str):
    async with guest(server, user) as one:
        assert await one.may_say("_INBOX.default.x.1"), "it answers everybody"
        for other in SERVICES:
            heard = await one.may_hear(subjects.rpc("*", other, "*"), queue=other)
            assert heard == (other == user and user != "api_gateway"), other
        assert not await one.may_hear("paracle.v1.*.result.*")


async def test_a_worker_answers_what_it_is_asked_also_over_another_connection(
    server: GuardedNats, worker: Guest, runtime: Guest
):
    heard: list[bytes] = []

    async def hear(message) -> None:
        heard.append(message.data)

    inbox = runtime.client.new_inbox()
    await runtime.client.subscribe("_INBOX.agent_runtime.>", cb=hear)
    await flushed(runtime.client)
    assert await worker.may_say(inbox), "signs of life"
    async with guest(server, "default-worker") as later:
        assert await later.may_say(inbox), "the answer, after NATS was away"
    await eventually(lambda: len(heard) == 2)


@pytest.mark.parametrize("subject", [subjects.cmd(OTHER, "orchestrator", "start_run"), "_INBOX.orchestrator.x.1"])
async def test_a_tenant_opens_no_subject_to_its_worker_by_naming_it_as_its_inbox(
    worker: Guest, tenant: Guest, subject: str
):
    asked: list[str] = []

    async def hear(message) -> None:
        asked.append(message.reply)

    await worker.client.subscribe(subjects.rpc("default", "tools", "add"), cb=hear)
    await flushed(worker.client)
    await tenant.client.publish(subjects.rpc("default", "tools", "add"), b"{}", reply=subject)
    await eventually(lambda: asked == [subject])
    assert not await worker.may_say(subject)


async def test_who_does_not_say_who_he_is_is_not_let_in(server: GuardedNats):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
    assert b"Authorization Violation" in await reader.readline()
    writer.close()
