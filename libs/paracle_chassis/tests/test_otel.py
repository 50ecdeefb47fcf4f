"""What is made and encoded here is what OpenTelemetry's SDK would have made of the same."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_OFF, DEFAULT_ON, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

from paracle_chassis import otel_metrics
from paracle_chassis.otel_encoding import SCOPE, heading, requests
from paracle_chassis.otel_metrics import Metrics, deltas_of
from paracle_chassis.otel_sending import Batches, Sender, in_turns, within
from paracle_chassis.otel_spans import LeanSpan, Spans, link_to
from paracle_chassis.telemetry import Counter, Gauge, Histogram
from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import InvalidInput

RESOURCE = Resource.create({"service.name": "paracle-testing", "number": 7})
TRACE, SPAN = "ab" * 16, "cd" * 8
PARENT = f"00-{TRACE}-{SPAN}-01"
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_PLAIN = st.one_of(_TEXT, st.booleans(), _INT64, st.floats(allow_nan=False))
ATTRIBUTES = st.dictionaries(_TEXT, st.one_of(_PLAIN, st.lists(_TEXT, max_size=3)), max_size=12)


def official(span: LeanSpan) -> ReadableSpan:
    """The same span as the SDK's encoder takes it."""
    parent = None
    if span.parent_id:
        parent = SpanContext(int(span.trace_id, 16), int(span.parent_id, 16), is_remote=span.parent_is_remote)
    links = [Link(SpanContext(int(one, 16), int(other, 16), is_remote=True)) for one, other in span.links]
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=parent,
        resource=RESOURCE,
        attributes=span.attributes,
        events=[Event(name, attributes, time) for time, name, attributes in span.events],
        links=links,
        kind=span.kind,
        status=Status(*span.status),
        start_time=span.started_at,
        end_time=span.ended_at,
        instrumentation_scope=InstrumentationScope(SCOPE),
    )


@given(
    name=_TEXT,
    kind=st.sampled_from(["internal", "server", "client", "producer", "consumer"]),
    parent=st.sampled_from([None, PARENT]),
    attributes=ATTRIBUTES,
    linked=st.booleans(),
    failure=st.one_of(st.none(), _TEXT),
    told=st.lists(ATTRIBUTES, max_size=2),
)
def test_spans_are_encoded_as_the_official_encoder_does(name, kind, parent, attributes, linked, failure, told):
    ended: list[LeanSpan] = []
    links = [("12" * 16, "34" * 8)] if linked else []
    with Spans(ALWAYS_ON, ended.append).make(name, kind, parent, attributes, links) as span:
        for number, one in enumerate(told):
            span.add_event(f"event {number}", one)
        if failure is not None:
            span.fail(failure)
    [request] = requests(ended * 2, heading(RESOURCE))
    assert ExportTraceServiceRequest.FromString(request) == encode_spans([official(span)] * 2)


def names(request: bytes) -> list[str]:
    [group] = ExportTraceServiceRequest.FromString(request).resource_spans
    return [span.name for span in group.scope_spans[0].spans]


@given(sizes=st.lists(st.integers(1, 500), max_size=20), most=st.integers(1, 2_000))
def test_spans_go_in_requests_of_a_bounded_size(sizes, most):
    ended: list[LeanSpan] = []
    for size in sizes:
        with Spans(ALWAYS_ON, ended.append).make("x" * size, "internal", None, None):
            pass
    found = list(requests(ended, heading(RESOURCE), most))
    alone = len(next(requests(ended[:1], heading(RESOURCE), most))) if ended else 0
    assert [len(name) for request in found for name in names(request)] == sizes
    assert all(len(names(request)) == 1 or len(request) <= most + alone for request in found)


def test_what_is_no_text_takes_no_other_span_along():
    ended: list[LeanSpan] = []
    spans = Spans(ALWAYS_ON, ended.append)
    with pytest.raises(OSError, match="no such file"), spans.make("\ud800", "internal", None, {"\udc00": "\udcff"}):
        raise OSError("no such file: \udcff")
    with spans.make("fine", "internal", None, None):
        pass
    [request] = requests(ended, heading(RESOURCE))
    assert names(request) == ["?", "fine"]


def test_a_span_is_told_what_was_raised_within_it_except_for_a_cancellation():
    ended: list[LeanSpan] = []
    spans = Spans(ALWAYS_ON, ended.append)
    with pytest.raises(ValueError, match="no"), spans.make("failing", "internal", None, None):
        raise ValueError("no")
    with pytest.raises(KeyboardInterrupt), spans.make("stopped", "internal", None, None):
        raise KeyboardInterrupt
    failing, stopped = ended
    [(_, name, attributes)] = failing.events
    assert failing.status == (StatusCode.ERROR, "ValueError: no")
    assert (name, attributes["exception.type"], attributes["exception.message"]) == ("exception", "ValueError", "no")
    assert "test_otel.py" in attributes["exception.stacktrace"]
    assert (stopped.status, stopped.events) == ((StatusCode.UNSET, None), [])


def test_a_span_is_opentelemetrys_while_it_lasts():
    ended: list[LeanSpan] = []
    spans = Spans(ALWAYS_ON, ended.append)
    with spans.make("outer", "server", PARENT, {"a": 1}) as outer:
        assert trace.get_current_span() is outer
        assert outer.is_recording()
        assert outer.get_span_context().trace_id == int(TRACE, 16)
        outer.update_name("better")
        outer.set_attribute("b", 2)
        outer.set_attributes({"c": 3})
        with spans.make("inner", "client", None, None) as inner:
            inner.set_status(Status(StatusCode.OK))
    outer.end()
    outer.set_attribute("late", 1)
    outer.set_attributes({"later": 2})
    assert [(span.name, span.trace_id, span.parent_id, span.parent_is_remote) for span in ended] == [
        ("inner", TRACE, outer.span_id, False),
        ("better", TRACE, SPAN, True),
    ]
    assert outer.attributes == {"a": 1, "b": 2, "c": 3}
    assert not outer.is_recording()
    assert not trace.get_current_span().is_recording()


@pytest.mark.parametrize(
    "text", ["", "00-xyz", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-01\n"]
)
def test_what_is_no_traceparent_is_nobodys_child(text):
    made = Spans(ALWAYS_ON, lambda _: None).make("x", "internal", text, None)
    assert made.parent_id == ""
    assert made.trace_id != TRACE


def test_links_are_read_from_traceparents():
    assert link_to(PARENT) == (TRACE, SPAN)
    assert link_to("nonsense") is None


@pytest.mark.parametrize(
    ("sampler", "flags", "kept"),
    [
        (ALWAYS_ON, "00", True),
        (ALWAYS_OFF, "01", False),
        (DEFAULT_ON, None, True),
        (DEFAULT_ON, "00", False),
        (DEFAULT_ON, "03", True),
        (DEFAULT_OFF, None, False),
        (DEFAULT_OFF, "01", True),
        (TraceIdRatioBased(0.0), "01", False),
        (TraceIdRatioBased(1.0), "00", True),
    ],
)
def test_a_sampler_decides_and_errors_are_always_kept(sampler, flags, kept):
    ended: list[LeanSpan] = []
    spans = Spans(sampler, ended.append)
    parent = None if flags is None else f"00-{TRACE}-{SPAN}-{flags}"
    with spans.make("fine", "server", parent, None) as fine, spans.make("within", "internal", None, None):
        pass
    assert [span.name for span in ended] == (["within", "fine"] if kept else [])
    assert fine.traceparent.endswith("-01" if kept else "-00")
    assert fine.get_span_context().trace_flags == (TraceFlags.SAMPLED if kept else TraceFlags.DEFAULT)
    ended.clear()
    with spans.make("failed", "server", parent, None) as failed:
        failed.fail("conflict")
    assert ended == [failed]
    assert failed.attributes == {"error.type": "conflict"}


EIGHTHS = st.integers(0, 160_000).map(lambda number: number / 8)  # their sums are exact in any order
VALUES = st.lists(
    st.tuples(
        st.one_of(EIGHTHS, st.integers(0, 20_000), st.sampled_from([0, 5, 10.0, 1e4])),
        st.sampled_from([None, {"a": 1}, {"a": "1", "b": True}, {"b": True, "a": "1"}]),
    ),
    min_size=1,
    max_size=30,
)


@given(first=VALUES, second=VALUES, delta=st.booleans())
def test_measurements_add_up_to_what_the_sdk_reports(first, second, delta):
    wanted = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
    temporality: dict[type, AggregationTemporality] = {SdkCounter: wanted, SdkHistogram: wanted}
    reader = InMemoryMetricReader(preferred_temporality=temporality)
    with_sdk = MeterProvider([reader], resource=RESOURCE, shutdown_on_exit=False).get_meter(SCOPE)
    theirs = (
        with_sdk.create_counter("sum", "1", "A sum."),
        with_sdk.create_histogram("spread", "s", "A spread."),
        with_sdk.create_gauge("last", "1", "A last value."),
    )
    ours = Metrics(deltas_of(temporality, counter=SdkCounter, histogram=SdkHistogram))
    specs = Counter("sum", "A sum."), Histogram("spread", "A spread."), Gauge("last", "A last value.")
    span = Spans(ALWAYS_ON, lambda _: None).make("around", "internal", None, None)
    for values in (first, second):
        with span:
            for value, attributes in values:
                theirs[0].add(value, attributes)
                ours.add(specs[0], value, attributes)
                theirs[1].record(value, attributes)
                ours.record(specs[1], value, attributes)
        for value, attributes in values:
            theirs[2].set(value, attributes)
            ours.set(specs[2], value, attributes)
        found = reader.get_metrics_data()
        assert found is not None
        scope = ScopeMetrics(InstrumentationScope(SCOPE, "", ""), ours.collect(), "")
        made = MetricsData([ResourceMetrics(RESOURCE, [scope], "")])
        assert points(made) == points(found)


def points(data: MetricsData) -> object:
    """All that is sent, without the times, and in an order."""
    request = encode_metrics(data)
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        found = getattr(metric, metric.WhichOneof("data")).data_points
        for point in found:
            point.time_unix_nano = point.start_time_unix_nano = 0
            point.attributes.sort(key=lambda pair: pair.key)
            exemplars = point.exemplars if metric.name == "spread" else []
            for exemplar in exemplars:
                assert exemplar.span_id
                exemplar.time_unix_nano = 0
            if metric.name != "spread":  # the SDK has examples of a random choice of these as well
                point.ClearField("exemplars")
            else:
                point.exemplars.sort(key=lambda one: one.as_double or one.as_int)
        found.sort(key=lambda point: str(point.attributes))
    return request


def test_examples_come_of_sampled_spans_and_may_be_switched_off(monkeypatch):
    spread = Histogram("spread", "A spread.")

    def examples(sampler) -> int:
        metrics = Metrics()
        with Spans(sampler, lambda _: None).make("around", "internal", None, None):
            metrics.record(spread, 1, None)
        [metric] = metrics.collect()
        return len(metric.data.data_points[0].exemplars)

    assert examples(ALWAYS_ON) == 1
    assert examples(ALWAYS_OFF) == 0
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")
    assert examples(ALWAYS_ON) == 0


def test_too_many_sets_of_attributes_are_counted_together():
    metrics, things = Metrics(), Counter("things", "Things.")
    for number in range(otel_metrics.MOST_POINTS + 10):
        metrics.add(things, 1, {"number": number})
    [metric] = metrics.collect()
    found = {str(point.attributes): getattr(point, "value", None) for point in metric.data.data_points}
    assert len(found) == otel_metrics.MOST_POINTS
    assert found["{'otel.metric.overflow': True}"] == 11


def test_nothing_measured_is_nothing_to_report():
    assert Metrics().collect() == []


async def test_batches_are_sent_when_they_are_full_and_the_rest_at_the_end(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    sent: list[list[int]] = []
    batches: Batches[int] = Batches("testing", 100, sent.append)
    for number in range(3):
        batches.put(number)
    await eventually(lambda: sent == [[0, 1, 2]])
    batches.put(3)
    batches.stop()
    assert sent == [[0, 1, 2], [3]]


async def test_a_batch_is_never_larger_than_what_there_is_room_for(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    sent: list[list[int]] = []
    batches: Batches[int] = Batches("testing", 2, sent.append)
    batches.put(0)
    batches.put(1)
    await eventually(lambda: sent == [[0, 1]])
    batches.stop()


@pytest.mark.parametrize("name", ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_SCHEDULE_DELAY"])
@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_a_setting_that_would_keep_a_thread_busy_is_refused(name, text, monkeypatch):
    monkeypatch.setenv(name, text)
    with pytest.raises(InvalidInput, match=f"{name} is '{text}'"):
        Batches("testing", 100, lambda _: None)


def test_all_ends_are_waited_for_together():
    both = threading.Barrier(2, timeout=10)
    assert within(10, both.wait, both.wait)


def test_taking_turns_leaves_nothing_out():
    assert list(in_turns(range(200))) == list(range(200))
    assert list(in_turns([])) == []


async def test_what_comes_too_fast_pushes_out_the_oldest(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    sent: list[list[int]] = []
    batches: Batches[int] = Batches("testing", 2, sent.append)
    for number in range(5):
        batches.put(number)
    batches.stop()
    assert sent == [[3, 4]]
    assert "oldest 3 spans" in caplog.text


async def test_a_sender_outlives_what_it_calls(caplog):
    calls = threading.Semaphore(0)

    def work() -> None:
        calls.release()
        raise OSError("away")

    sender = Sender("testing", 600, work)
    sender.wake()
    await eventually(lambda: calls.acquire(blocking=False))
    sender.stop()
    assert calls.acquire(blocking=False)
    assert "cannot send telemetry" in caplog.text


async def test_a_sender_that_is_stopped_at_work_sends_the_rest():
    at_work, go_on = threading.Event(), threading.Event()
    sent: list[list[str]] = []
    waiting = ["first"]

    def work() -> None:
        due, waiting[:] = waiting[:], []
        at_work.set()
        assert go_on.wait(10)
        sent.append(due)

    sender = Sender("testing", 600, work)
    sender.wake()
    await eventually(at_work.is_set)
    waiting.append("measured meanwhile")
    assert not within(0, sender.stop)
    go_on.set()
    await eventually(lambda: sent == [["first"], ["measured meanwhile"]])
