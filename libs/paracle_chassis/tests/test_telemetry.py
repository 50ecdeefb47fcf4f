"""Telemetry, as a collector sees it."""

import asyncio
import logging
import socket
import threading
from contextlib import ExitStack, suppress

import pytest

from paracle_chassis import consumer, telemetry
from paracle_chassis.routes import Routes
from paracle_chassis.testing.contracts.bus import CONTEXT, mailbox, note
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.otlp import OtlpReceiver
from paracle_chassis.testing.sample import Echo, Echoed
from paracle_domain.envelope import Envelope
from paracle_domain.errors import Conflict


@pytest.fixture
def receiver():
    with OtlpReceiver() as found:
        yield found


@pytest.fixture
def silent():
    """A collector that takes connections and never answers; what has come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        came: list[socket.socket] = []

        def take() -> None:
            with suppress(OSError):  # it is closed
                while True:
                    came.append(listening.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", came
        listening.shutdown(socket.SHUT_RDWR)
        for connection in came:
            connection.close()


@pytest.fixture
def record():
    """Starts recording for an endpoint and gives what ends it; it is ended after the test, if not within."""
    with ExitStack() as started:

        def start(endpoint: str):
            stop = telemetry.setup("testing", endpoint)
            started.callback(stop)
            return stop

        yield start


@pytest.mark.connected
async def test_a_call_and_what_it_publishes_are_one_trace(serve, receiver, record):
    stop = record(receiver.endpoint)
    handled = asyncio.Event()

    async def handle(_batch) -> None:
        logging.getLogger("test").warning("at work")
        handled.set()

    table: Routes = mailbox(handle)

    async def echo(request: Echo, _call) -> Echoed:
        if request.text == "no":
            raise Conflict("no")
        await server.publish([note(1)])
        return Echoed(text=request.text)

    table.rpc(Echo, echo)
    server = await serve(table)
    caller = await serve()
    await caller.call(Echo(text="yes"), CONTEXT)
    await handled.wait()
    with pytest.raises(Conflict):
        await caller.call(Echo(text="no"), CONTEXT)
    await server.drain(5)
    await asyncio.to_thread(stop)
    assert not telemetry.enabled()

    spans = {(span.name, span.kind, span.failed): span for span in receiver.spans()}
    client, answered = spans["testing/echo", 3, False], spans["testing/echo", 2, False]
    batch = spans["process TASKS", 5, False]
    assert answered.parent_id == client.span_id
    assert batch.parent_id == answered.span_id
    assert {client.trace_id} == {answered.trace_id} == {batch.trace_id}
    assert spans["testing/echo", 2, True].attributes["error.type"] == "conflict"
    assert spans["testing/echo", 3, True]
    assert {span.service for span in spans.values()} == {"paracle-testing"}
    log = next(found for found in receiver.logs() if found.body == "at work")
    assert log.trace_id == batch.trace_id
    metrics = receiver.metrics()
    assert {telemetry.RPC_SERVER_DURATION, telemetry.RPC_CLIENT_DURATION, telemetry.MAILBOX_DURATION} <= set(metrics)
    assert {"rpc.system", "rpc.service", "rpc.method", "error.type"} >= set(metrics[telemetry.RPC_SERVER_DURATION][0])


@pytest.mark.connected
async def test_a_batch_of_several_is_linked_to_each_of_its_messages(serve, receiver, record, monkeypatch):
    monkeypatch.setattr(consumer, "_GATHERED_WITHIN_S", 600)
    stop = record(receiver.endpoint)
    sizes: list[int] = []

    async def handle(batch) -> None:
        sizes.append(len(batch))

    bus = await serve()
    with telemetry.span("first"):
        await bus.publish([note(1)])
    with telemetry.span("second"):
        await bus.publish([note(2)])
    server = await serve(mailbox(handle, batch=2, linger_s=0.05))
    await eventually(lambda: sum(sizes) == 2)
    await server.drain(5)
    await asyncio.to_thread(stop)
    spans = {span.name: span for span in receiver.spans()}
    assert sizes == [2]
    assert set(spans["process TASKS"].links) == {spans["first"].span_id, spans["second"].span_id}


def test_how_long_a_request_took_has_its_own_span_for_an_example(receiver, record):
    stop = record(receiver.endpoint)
    with telemetry.span("around"), telemetry.client_span("testing", "echo", {}):
        pass
    with telemetry.server_span("testing", "echo", Envelope.wrap("echo", "test", CONTEXT)):
        pass
    stop()
    spans = {(span.name, span.kind): span.span_id for span in receiver.spans()}
    assert receiver.examples(telemetry.RPC_CLIENT_DURATION) == {spans["testing/echo", 3]}
    assert receiver.examples(telemetry.RPC_SERVER_DURATION) == {spans["testing/echo", 2]}


def test_a_counter_sums_up_by_attributes_whatever_their_order(receiver, record):
    stop = record(receiver.endpoint)
    counter = telemetry.Counter("test.things", "Things.")
    counter.add(2, {"kind": "a", "size": 1})
    counter.add(1)
    counter.add(3, {"size": 1, "kind": "a"})
    counter.add(5, {"kind": "b", "size": 1})
    stop()
    found = sorted((sum_, sorted(attributes.items())) for attributes, sum_ in receiver.sums("test.things"))
    assert found == [(1, []), (5, [("kind", "a"), ("size", 1)]), (5, [("kind", "b"), ("size", 1)])]


def test_without_an_endpoint_nothing_is_loaded_and_everything_may_be_called():
    telemetry.setup("testing", None)()
    with telemetry.span("x", attributes={"a": 1}):
        telemetry.Counter("c", "d").add()
        telemetry.Histogram("h", "d").record(1.0)
    assert telemetry.traceparent() is None


def test_nothing_is_recorded_where_opentelemetry_is_switched_off(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry.setup("testing", "http://127.0.0.1:9")()
    assert not telemetry.enabled()


def test_a_collector_that_is_away_does_not_hold_up_the_end(record):
    stop = record("http://127.0.0.1:9")
    with telemetry.span("lost"):
        pass
    stop()
    assert not telemetry.enabled()


def test_a_collector_that_never_answers_does_not_hold_up_the_end(silent, record):
    """Each request waits for it until its time is over: there is none for more than the first few."""
    endpoint, came = silent
    stop = record(endpoint)
    for number in range(20 * 512):  # what the SDK sends of logs at once
        logging.getLogger("test").warning("line %d", number)
    stop()
    assert 1 <= len(came) <= 8
    assert not telemetry.enabled()
