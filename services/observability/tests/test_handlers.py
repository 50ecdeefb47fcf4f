"""Over real NATS and PostgreSQL: what is published is kept, and answered for."""

import json
from dataclasses import replace

import pytest
from nats.aio.client import Client
from observability_samples import RUN, TASK, record, replied

from paracle_chassis import topology
from paracle_chassis.bus import outgoing
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.provisioning import ensure_stream
from paracle_chassis.routes import Routes
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import OpenBus, migrated
from paracle_chassis.testing.sample import Note
from paracle_domain import subjects
from paracle_domain.audit import GetAudit, GetUsage
from paracle_domain.dead_letters import DeadLetterFilter, DropDeadLetter, ListDeadLetters, RedriveDeadLetter
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict
from paracle_domain.run.commands import GetRunEvents, RunEvents
from paracle_domain.run.directives import PublishEvent
from paracle_domain.task.messages import GetTaskEvents, TaskEvents
from paracle_observability.app import create_app
from paracle_observability.settings import Settings

pytestmark = pytest.mark.connected
CALL = Context(tenant="default", principal="alice")


@pytest.fixture
async def bus(nats_client: Client, open_bus: OpenBus) -> NatsBus:
    for stream in topology.STREAMS:
        if stream.name in {subjects.EVENTS, subjects.DEADLETTERS}:
            await ensure_stream(nats_client, stream)
    return await open_bus("orchestrator")


@pytest.fixture
async def service(bus: NatsBus, nats_url: str, postgres_dsn: str):
    await migrated(postgres_dsn, "paracle_observability")
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


async def test_events_that_were_never_published_are_fetched_from_their_owners(bus: NatsBus, service, open_bus: OpenBus):
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
    other = await open_bus("agent_runtime")
    await other.serve(runtime)
    await bus.publish(list(published(history[0], calls[1])))
    found = await eventually(lambda: audit(bus, 6))
    for entity in ("run", "task"):
        assert sorted(item.event.seq for item in found if item.event.entity == entity) == [1, 2, 3]
    assert (await bus.call(GetUsage(run_id=RUN), CALL)).total.model_calls == 2


async def test_what_a_run_said_follows_from_its_history(bus: NatsBus, service):
    started = {"run_id": RUN, "tenant": "default", "principal": "ann", "workflow": "w", "revision": 1, "plan": "p"}
    told = [record(n + 1, "step.emitted", step=f"s{n}", number=n, event="paid", data={"n": n}) for n in (1, 2, 3)]
    history = [record(1, "run.started", **started), *told, record(5, "run.completed")]

    async def events(question: GetRunEvents, _call: Context) -> RunEvents:
        found = tuple(history[question.after :][:2])
        return RunEvents(events=found, terminal=not found)

    routes = Routes("orchestrator")
    routes.rpc(GetRunEvents, events)
    await bus.serve(routes)
    last = record(3, "paid", entity="emit", workflow="w", step="s3", data={"n": 3})
    (lone,) = published(last)
    own_id = replace(lone, envelope=replace(lone.envelope, id=PublishEvent(last).message_id))
    await bus.publish([*published(*history), own_id])
    found = [item.event for item in await eventually(lambda: audit(bus, 8)) if item.event.entity == "emit"]
    assert sorted((one.seq, one.data["step"], one.data["data"]["n"]) for one in found) == [
        (1, "s1", 1),
        (2, "s2", 2),
        (3, "s3", 3),
    ]
    assert [one for one in found if one.seq == 3] == [last]


async def test_a_dead_letter_outlives_its_stream_and_its_object_and_is_redriven(
    bus: NatsBus, service, open_bus: OpenBus
):
    """A large body, so that it travels by claim check; what it is redriven from is observability's own."""
    refusing = True
    seen: list[tuple[str, str]] = []

    async def handle(batch) -> None:
        if refusing:
            raise Conflict("not welcome")
        seen.extend((delivery.envelope.id, delivery.decode(Note).text) for delivery in batch)

    worker = await open_bus("testing")
    table = Routes("testing")
    table.mailbox(stream=subjects.TASKS, durable="testing", filter="paracle.v1.*.task.agents", handler=handle)
    await worker.serve(table)
    text = "x" * 500_000
    context = Context("default", "bob", correlation_id=RUN)
    poison = outgoing(subjects.task("default", "agents"), Note(text=text), context, source="test", id="note-1")
    await bus.publish([poison])

    async def letters():
        return (await bus.call(ListDeadLetters(which=DeadLetterFilter(run_id=RUN)), CALL)).letters

    (letter,) = await eventually(letters)
    assert (letter.code, letter.message_id, letter.size > len(text)) == ("conflict", "note-1", True)
    jetstream = bus.client.jsm()
    assert (await jetstream.stream_info(subjects.DEADLETTERS)).state.messages == 1
    await jetstream.purge_stream("OBJ_paracle-claims")
    refusing = False
    done = await bus.call(RedriveDeadLetter(id=letter.id), CALL)
    assert done.settled == (letter.id,)
    await eventually(lambda: seen == [("note-1", text)])
    assert await letters() == ()
    assert (await jetstream.stream_info(subjects.DEADLETTERS)).state.messages == 0

    async def audited():
        return [one for one in (await bus.call(GetAudit(run_id=RUN), CALL)).events if one.event.id == letter.id]

    (event,) = await eventually(audited)
    assert (event.event.type, event.principal) == ("dead_letter.redriven", "alice")


async def test_a_letter_of_a_stream_that_was_made_anew_takes_no_other_with_it(bus: NatsBus, service):
    async def bury(key: str):
        subject = subjects.dlq("default", "testing")
        await bus.client.publish(subject, key.encode(), headers={"Nats-Msg-Id": key})

    async def letters():
        return (await bus.call(ListDeadLetters(), CALL)).letters

    jetstream = bus.client.jsm()
    await bury("one")
    (old,) = await eventually(letters)
    await jetstream.purge_stream(subjects.DEADLETTERS)
    await jetstream.delete_stream(subjects.DEADLETTERS)

    async def taken_in():
        await bury("two")
        return len(await letters()) == 2

    await eventually(taken_in, within_s=20)
    await bus.call(DropDeadLetter(id=old.id, reason="old"), CALL)
    assert (await jetstream.stream_info(subjects.DEADLETTERS)).state.messages == 1


@pytest.mark.parametrize("method", ["redrive_dead_letters", "drop_dead_letters"])
async def test_what_is_misspelt_does_not_reach_more_dead_letters(bus: NatsBus, service, method: str):
    await bus.client.publish(f"paracle.v1.default.evt.run.{RUN}.step_completed", b"nonsense")

    async def listed() -> bool:
        return len((await bus.call(ListDeadLetters(), CALL)).letters) == 1

    await eventually(listed)
    body = b'{"which": {"services": "nobody"}, "reason": "of another service"}'
    answer = await bus.client.request(subjects.rpc("default", "observability", method), body)
    problem = json.loads(answer.data)
    assert problem["code"] == "invalid_input"
    assert await listed()
