"""Provisioning: streams, consumers, bucket, databases."""

import asyncio
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nats
import pytest

from paracle_chassis import provision, provisioning, topology
from paracle_chassis.provision import Plan, service_dsn
from paracle_chassis.testing.infra import connected
from paracle_chassis.topology import ConsumerSpec, Durability
from paracle_domain import subjects
from paracle_domain.errors import Conflict, InvalidInput, NotFound, Unavailable

pytestmark = pytest.mark.connected


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service `sprockets` with one migration; importing it fails, since provisioning must not."""
    folder = tmp_path / "paracle_sprockets"
    (folder / "migrations").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "migrations" / "001_initial.sql").write_text("create table sprockets (name text primary key);")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


async def drop(dsn: str, service: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute(f'drop database if exists "paracle_{service}" with (force)')
        await connection.execute(f'drop role if exists "paracle_{service}"')


async def test_everything_is_made_once_and_found_right_afterwards(nats_url, session_postgres_dsn, package):
    await drop(session_postgres_dsn, "sprockets")
    plan = Plan(
        nats_url=nats_url, admin_dsn=session_postgres_dsn, services=["sprockets", "orchestrator"], password="pw'1"
    )
    made = {change.what: change.did for change in await provision.provision(replace(plan, services=["sprockets"]))}
    assert made["stream COMMANDS"] == "created"
    assert made["bucket paracle-claims"] == "created"
    assert made["database paracle_sprockets"] == "created"
    assert made["schema of sprockets"] == "applied 001_initial"
    again = await provision.provision(replace(plan, services=["sprockets"]))
    assert {change.did for change in again} == {"as it should be"}
    async with connected(service_dsn(session_postgres_dsn, "sprockets", "pw'1")) as connection:
        assert await connection.fetchval("select count(*) from sprockets") == 0
        assert await connection.fetchval("select current_user") == "paracle_sprockets"
    await drop(session_postgres_dsn, "sprockets")


async def test_consumers_of_the_named_services_are_made(nats_url, nats_client):
    await provision.provision(Plan(nats_url=nats_url, services=["orchestrator", "observability"]))
    jetstream = nats_client.jsm()
    info = await jetstream.consumer_info(subjects.RESULTS, "orchestrator")
    assert info.config.filter_subject == "paracle.v1.*.result.*"
    assert (await jetstream.stream_info(subjects.COMMANDS)).config.no_ack
    with pytest.raises(nats.js.errors.NotFoundError):
        await jetstream.consumer_info(subjects.TASKS, "agent_runtime")


async def test_pools_have_a_consumer_each(nats_url, nats_client):
    await provision.provision(Plan(nats_url=nats_url, services=["agent_runtime"], pools=["agents", "gpu"]))
    found = {each["name"]: each["config"] for each in await provisioning.consumers(nats_client, subjects.TASKS)}
    filters = {name: config["filter_subject"] for name, config in found.items()}
    assert filters == {
        "agent_runtime": "paracle.v1.*.task.agents",
        "agent_runtime-gpu": "paracle.v1.*.task.gpu",
    }
    with pytest.raises(InvalidInput, match="pool"):
        await provision.provision(Plan(nats_url=nats_url, pools=["a.b"]))


async def test_what_lies_in_a_stream_is_counted_by_subject(nats_url, nats_client):
    await provision.provision(Plan(nats_url=nats_url, services=[]))
    for subject in ("acme.task.gpu", "acme.task.gpu", "acme.task.agents", "other.task.gpu"):
        await nats_client.jetstream().publish(f"paracle.v1.{subject}", b"{}")
    found = await provisioning.sizes(nats_client, subjects.TASKS, "paracle.v1.acme.task.*")
    assert found == {"paracle.v1.acme.task.gpu": 2, "paracle.v1.acme.task.agents": 1}
    assert await provisioning.sizes(nats_client, subjects.TASKS, "paracle.v1.nobody.task.*") == {}
    assert await provisioning.consumers(nats_client, subjects.TASKS) == []


async def test_what_may_be_changed_in_place_is_and_the_rest_is_refused(nats_client):
    spec = topology.stream_of_subject(subjects.evt("acme", "run", "run_1", "run_started"))
    assert spec is not None
    await provisioning.ensure_stream(nats_client, replace(spec, max_age_s=300))
    changed = await provisioning.ensure_stream(nats_client, spec)
    assert changed.did == "updated max_age"
    with pytest.raises(
        Conflict, match=r"stream EVENTS cannot be changed in place \(retention is 'limits', wanted 'work"
    ):
        await provisioning.ensure_stream(nats_client, replace(spec, work_queue=True))


async def test_events_of_many_runs_are_one_subject_to_the_server(nats_client):
    """It has every subject of a stream in memory. Whoever is subscribed hears of the run."""
    spec = topology.stream_of_subject(subjects.evt("acme", "run", "run_1", "run_started"))
    assert spec is not None
    older = await provisioning.ensure_stream(nats_client, replace(spec, kept_as=None))
    assert older.did == "created"
    assert (await provisioning.ensure_stream(nats_client, spec)).did == "updated subject_transform"
    assert (await provisioning.ensure_stream(nats_client, spec)).did == "as it should be"
    heard = await nats_client.subscribe(subjects.evt("acme", "run", "run_7", "*"))
    for number in range(10):
        await nats_client.jetstream().publish(subjects.evt("acme", "run", f"run_{number}", "run_started"), b"{}")
    kept = await provisioning.sizes(nats_client, subjects.EVENTS, "paracle.v1.acme.evt.>")
    assert kept == {subjects.evt("acme", "run", subjects.UNNAMED, "run_started"): 10}
    assert (await heard.next_msg()).subject == subjects.evt("acme", "run", "run_7", "run_started")


@pytest.mark.parametrize("relaxed", [True, False])
async def test_an_older_stream_of_events_keeps_what_it_has_and_who_reads_it(relaxed, nats_client):
    durability, reader = Durability(1, relaxed), ConsumerSpec(subjects.EVENTS, "observability", "paracle.v1.*.evt.>")
    spec = topology.stream_of_subject(subjects.evt("acme", "run", "run_1", "run_started"))
    assert spec is not None
    older = replace(spec, kept_as=None, max_msgs=0, duplicate_window_s=120)
    await provisioning.ensure_stream(nats_client, older, durability)
    await provisioning.ensure_consumer(nats_client, reader)
    stream = nats_client.jetstream()
    await stream.publish(
        subjects.evt("acme", "run", "run_1", "run_started"), b"old", headers={"Nats-Msg-Id": "run_1.1"}
    )
    changed = await provisioning.ensure_stream(nats_client, spec, durability)
    assert changed.did == "updated duplicate_window, max_msgs, subject_transform"
    assert (await provisioning.ensure_consumer(nats_client, reader)).did == "as it should be"
    again = await stream.publish(
        subjects.evt("acme", "run", "run_1", "run_started"), b"old", headers={"Nats-Msg-Id": "run_1.1"}
    )
    assert again.duplicate
    await stream.publish(subjects.evt("acme", "run", "run_2", "run_started"), b"new")
    await stream.publish("paracle.v1.acme.evt.of.five.other.words", b"odd")
    reading = await stream.pull_subscribe_bind("observability", subjects.EVENTS)
    found = [message for _ in range(3) for message in await reading.fetch(1)]
    assert [(message.subject, message.data) for message in found] == [
        (subjects.evt("acme", "run", "run_1", "run_started"), b"old"),
        (subjects.evt("acme", "run", subjects.UNNAMED, "run_started"), b"new"),
        ("paracle.v1.acme.evt.of.five.other.words", b"odd"),
    ]


async def test_a_consumer_takes_new_limits(nats_client):
    stream = topology.stream_of_subject(subjects.task("acme", "agents"))
    assert stream is not None
    spec = ConsumerSpec(stream.name, "watcher", stream.subject)
    with pytest.raises(NotFound, match="stream not found"):
        await provisioning.ensure_consumer(nats_client, spec)
    await provisioning.ensure_stream(nats_client, stream)
    assert (await provisioning.ensure_consumer(nats_client, spec)).did == "created"
    assert (await provisioning.ensure_consumer(nats_client, spec)).did == "as it should be"
    slower = replace(spec, ack_wait_s=90)
    assert (await provisioning.ensure_consumer(nats_client, slower, update=False)).did == "as it should be"
    assert (await provisioning.ensure_consumer(nats_client, slower)).did == "updated ack_wait"


async def test_relaxed_streams_are_those_that_can_be_rebuilt(nats_url, nats_client):
    await provision.provision(Plan(nats_url=nats_url, services=[], relaxed=True))
    modes = {
        name: (await nats_client.jsm().stream_info(name)).config.persist_mode
        for name in (subjects.TASKS, subjects.RESULTS, subjects.COMMANDS, subjects.EVENTS)
    }
    assert [name for name, mode in modes.items() if mode is not None and "async" in str(mode).lower()] == [
        subjects.TASKS, subjects.RESULTS, subjects.EVENTS,
    ]  # fmt: skip


async def test_a_server_that_is_not_there_is_named_without_its_password():
    plan = Plan(nats_url="nats://ann:hunter2@127.0.0.1:9", patience_s=0.3, services=[])
    with pytest.raises(Unavailable, match=r"NATS does not answer at 127\.0\.0\.1:9") as caught:
        await provision.provision(plan)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(Unavailable, match=r"PostgreSQL does not answer at 127\.0\.0\.1:9") as caught:
        await provision._provision_postgres(plan, "postgresql://a:hunter2@127.0.0.1:9/x")
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_says_nothing_is_given_up_and_its_connection_closed():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        plan = Plan(nats_url=f"nats://127.0.0.1:{silent.getsockname()[1]}", patience_s=0.3, services=[])
        with pytest.raises(Unavailable, match="NATS does not answer"):
            await provision.provision(plan)
        silent.settimeout(30)
        with silent.accept()[0] as connection:
            connection.settimeout(30)
            while await asyncio.to_thread(connection.recv, 4096):
                pass


async def test_a_service_name_that_could_not_be_one_is_refused():
    with pytest.raises(InvalidInput, match="'x\"; drop'"):
        await provision.provision(Plan(services=['x"; drop']))


def test_the_command_says_what_it_did_and_fails_in_one_line(nats_url, package):
    command = [sys.executable, "-m", "paracle_chassis.provision", "--services", "registry", "--wait", "5"]
    done = subprocess.run(command, env={"PARACLE_NATS_URL": nats_url}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stream TASKS: created" in done.stdout
    env = {"PARACLE_NATS_URL": "nats://127.0.0.1:9"}
    failed = subprocess.run([*command[:-1], "0.2"], env=env, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("provision: NATS does not answer at 127.0.0.1:9")
    assert failed.stderr.count("\n") == 1


def test_the_dsn_of_a_service_keeps_the_server_and_quotes_the_password():
    dsn = service_dsn("postgresql://root:p%40ss@db:5433/postgres?sslmode=disable", "registry")
    assert dsn == "postgresql://paracle_registry:p%40ss@db:5433/paracle_registry?sslmode=disable"
    assert (
        service_dsn("postgresql://root@db/x", "registry", "a/b")
        == "postgresql://paracle_registry:a%2Fb@db/paracle_registry"
    )
