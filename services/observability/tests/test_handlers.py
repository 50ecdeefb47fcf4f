"""Over real NATS and PostgreSQL: what is published is kept, and answered for."""

import asyncpg
import nats
import pytest
from observability_samples import RUN, TASK, record, replied

from paracle_chassis import migrations, topology
from paracle_chassis.bus import outgoing
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.provisioning import ensure_stream
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_domain import subjects
from paracle_domain.audit import GetAudit, GetUsage
from paracle_domain.envelope import Context
from paracle_domain.run.commands import GetRunEvents, RunEvents
from paracle_domain.task.messages import GetTaskEvents, TaskEvents
from paracle_observability.app import create_app
from paracle_observability.settings import Settings

pytestmark = pytest.mark.connected
CALL = Context(tenant="default", principal="alice")


@pytest.fixture
async def bus(nats_url: str, settings: ServiceSettings):
    client = await nats.connect(nats_url)
    for stream in topology.STREAMS:
        if stream.name in {subjects.EVENTS, subjects.DEADLETTERS}:
            await ensure_stream(client, stream)
    await client.close()
    found = NatsBus("orchestrator", settings)
    await found.open()
    yield found
    await found.drain(1)
    await found.close()


@pytest.fixture
async def service(bus: NatsBus, nats_url: str, postgres_dsn: str):
    connection = await asyncpg.connect(postgres_dsn)
    await migrations.migrate(connection, migrations.load("paracle_observability"))
    await connection.close()
    settings = Settings(nats_url=nats_url, postgres_dsn=postgres_dsn, sweep_interval_s=0.1, sweep_quiet_s=0.1)
    async with create_app(settings).running() as found:
        yield found


def published(*records):
    for told in records:
        subject = subjects.evt("default", told.entity, told.id, told.type.replace(".", "_"))
        yield outgoing(subject, told, CALL, source="paracle/test", id=told.message_id("default"))


async def audit(bus: NatsBus, count: int):
    page = await bus.call(GetAudit(run_id=RUN), CALL)
    assert len(page.events) == count
    return page.events


async def test_published_events_are_kept_and_counted(bus: NatsBus, service):
    told = [record(1, "run.started"), replied(1), replied(2, cost=None), record(2, "run.completed")]
    await bus.publish(list(published(*told)))
    found = await eventually(lambda: audit(bus, 4))
    assert [(item.event, item.principal) for item in found] == [(one, "alice") for one in told]
    report = await bus.call(GetUsage(run_id=RUN), CALL)
    assert (report.total.model_calls, report.total.cost_usd, report.unpriced_calls) == (2, None, 1)


async def test_nonsense_goes_to_the_dead_letters_and_blocks_nobody(bus: NatsBus, service):
    await bus.client.publish(f"paracle.v1.default.evt.run.{RUN}.step_completed", b"nonsense")
    await bus.publish(list(published(record(1))))
    await eventually(lambda: audit(bus, 1))

    async def dead() -> bool:
        return (await bus.link.jetstream.stream_info(subjects.DEADLETTERS)).state.messages == 1

    await eventually(dead)


async def test_events_that_were_never_published_are_fetched_from_their_owners(
    bus: NatsBus, service, settings: ServiceSettings
):
    history = [record(1, "run.started"), record(2), record(3, "run.completed")]
    calls = [replied(1), replied(2), record(3, "task.completed", entity="task", id=TASK)]

    async def events(question: GetRunEvents, _call: Context) -> RunEvents:
        return RunEvents(events=tuple(history[question.after :]), terminal=True)

    async def task_events(question: GetTaskEvents, _call: Context) -> TaskEvents:
        return TaskEvents(events=tuple(calls[question.after :]), terminal=True)

    routes = Routes("orchestrator")
    routes.rpc(GetRunEvents, events)
    await bus.serve(routes)
    runtime = Routes("agent_runtime")
    runtime.rpc(GetTaskEvents, task_events)
    other = NatsBus("agent_runtime", settings)
    await other.open()
    await other.serve(runtime)
    await bus.publish(list(published(history[0], calls[1])))
    found = await eventually(lambda: audit(bus, 6))
    for entity in ("run", "task"):
        assert sorted(item.event.seq for item in found if item.event.entity == entity) == [1, 2, 3]
    assert (await bus.call(GetUsage(run_id=RUN), CALL)).total.model_calls == 2
    await other.drain(1)
    await other.close()
