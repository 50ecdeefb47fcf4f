"""The OpenTelemetry SDK, set up for one service; loaded only when an OTLP endpoint is set."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

if TYPE_CHECKING:
    from paracle_chassis.telemetry import Attributes, Counter, Gauge, Histogram, Kind

QUEUE_SIZE: Final = 32_768  # spans of a burst of some seconds; the default of 2,048 drops half of it
EXPORT_TIMEOUT_S: Final = 3
METRIC_INTERVAL_MS: Final = 10_000
_KINDS: Final[Mapping[str, SpanKind]] = {kind.name.lower(): kind for kind in SpanKind}
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")

type _Sums = dict[frozenset[tuple[str, str | int | float | bool]], float]  # by attributes


class Otel:
    """Traces, metrics and logs of one service, on their way to `endpoint`."""

    def __init__(self, service: str, endpoint: str) -> None:
        resource = Resource.create({"service.name": f"paracle-{service}", "service.namespace": "paracle"})
        base = endpoint.rstrip("/")
        self._traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces", timeout=EXPORT_TIMEOUT_S)
        self._traces.add_span_processor(BatchSpanProcessor(spans, max_queue_size=QUEUE_SIZE))
        metrics = OTLPMetricExporter(endpoint=f"{base}/v1/metrics", timeout=EXPORT_TIMEOUT_S)
        reader = PeriodicExportingMetricReader(metrics, export_interval_millis=METRIC_INTERVAL_MS)
        self._meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._logs = LoggerProvider(resource=resource, shutdown_on_exit=False)
        records = OTLPLogExporter(endpoint=f"{base}/v1/logs", timeout=EXPORT_TIMEOUT_S)
        self._logs.add_log_record_processor(BatchLogRecordProcessor(records, max_queue_size=QUEUE_SIZE))
        self._handler = LoggingHandler(logger_provider=self._logs)
        logging.getLogger().addHandler(self._handler)
        self._tracer = self._traces.get_tracer("paracle")
        self._meter = self._meters.get_meter("paracle")
        self._instruments: dict[str, Any] = {}
        self._sums: dict[str, _Sums] = {}
        self._links: ContextVar[Sequence[Link]] = ContextVar("paracle_links", default=())

    def now(self) -> float:
        return time.perf_counter()

    def span(
        self, name: str, kind: Kind, parent: str | None, attributes: Attributes | None
    ) -> AbstractContextManager[Span]:
        """A span, current within; the child of `parent` (a traceparent) or of the current one."""
        above = _read(parent) if parent else INVALID_SPAN_CONTEXT
        context = trace.set_span_in_context(NonRecordingSpan(above)) if above.is_valid else None
        return self._tracer.start_as_current_span(
            name, context=context, kind=_KINDS[kind], attributes=attributes, links=self._links.get()
        )

    @contextmanager
    def links(self, traceparents: Sequence[str]) -> Iterator[None]:
        """Within it, the next spans are linked to `traceparents`."""
        token = self._links.set([Link(context) for text in set(traceparents) if (context := _read(text)).is_valid])
        try:
            yield
        finally:
            self._links.reset(token)

    def fail(self, code: str) -> None:
        """The current span failed with the error `code`."""
        span = trace.get_current_span()
        span.set_status(Status(StatusCode.ERROR, code))
        span.set_attribute("error.type", code)

    def traceparent(self) -> str | None:
        """The current span as a W3C header."""
        current = trace.get_current_span().get_span_context()
        if not current.is_valid:
            return None
        return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"

    def count(self, spec: Counter, value: float, attributes: Attributes | None) -> None:
        """Add `value`. Sums are kept here and read when they are sent: the SDK takes eight times as long for each."""
        sums = self._sums.get(spec.name)
        if sums is None:
            sums = self._sums[spec.name] = {}
            self._meter.create_observable_counter(
                spec.name, [lambda _: _observed(sums)], unit=spec.unit, description=spec.description
            )
        key = frozenset(attributes.items()) if attributes else frozenset()
        sums[key] = sums.get(key, 0) + value

    def histogram(self, spec: Histogram) -> Any:
        if spec.name not in self._instruments:
            made = self._meter.create_histogram(spec.name, unit=spec.unit, description=spec.description)
            self._instruments[spec.name] = made
        return self._instruments[spec.name]

    def gauge(self, spec: Gauge) -> Any:
        if spec.name not in self._instruments:
            made = self._meter.create_gauge(spec.name, unit=spec.unit, description=spec.description)
            self._instruments[spec.name] = made
        return self._instruments[spec.name]

    def shutdown(self) -> None:
        """Send what is left; a collector that is away costs a few seconds, not more."""
        logging.getLogger().removeHandler(self._handler)
        self._traces.shutdown()
        self._meters.shutdown(timeout_millis=EXPORT_TIMEOUT_S * 1000)
        self._logs.shutdown()


def _observed(sums: _Sums) -> list[Observation]:
    """What was counted so far. It is asked for by another thread; copying a dictionary is one step."""
    return [Observation(value, dict(key)) for key, value in sums.copy().items()]


def _read(traceparent: str) -> SpanContext:
    """The span that a `traceparent` names. Every request reads one; OpenTelemetry's propagator is five times slower.

    Source: W3C Trace Context, 3.2.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return INVALID_SPAN_CONTEXT
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
