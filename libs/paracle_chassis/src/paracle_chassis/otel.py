"""OpenTelemetry, set up for one service; loaded only when an OTLP endpoint is set.

Spans and measurements are made here (`otel_spans`, `otel_metrics`), since every message has some; logs, and all that
goes over the network, are the SDK's and its exporters', with their settings (`OTEL_…`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from paracle_chassis.otel_encoding import SCOPE, heading, requests
from paracle_chassis.otel_metrics import Metrics, deltas_of
from paracle_chassis.otel_sending import Batches, Sender, in_turns, within
from paracle_chassis.otel_spans import LeanSpan, Spans, current, link_to

if TYPE_CHECKING:
    from paracle_chassis.telemetry import Attributes, Kind

QUEUE_SIZE: Final = 32_768  # spans of a burst of some seconds
EXPORT_TIMEOUT_S: Final = 3
METRIC_INTERVAL_S: Final = 10


class Otel:
    """Traces, metrics and logs of one service, on their way to `endpoint`."""

    def __init__(self, service: str, endpoint: str) -> None:
        self._resource = Resource.create({"service.name": f"paracle-{service}", "service.namespace": "paracle"})
        base = endpoint.rstrip("/")
        self._heading = heading(self._resource)
        self._span_exporter = _SpanExporter(endpoint=f"{base}/v1/traces", timeout=EXPORT_TIMEOUT_S)
        self._ended = Batches("telemetry-spans", QUEUE_SIZE, self._send_spans)
        self._spans = Spans(TracerProvider(shutdown_on_exit=False).sampler, self._ended.put)
        self._metric_exporter = OTLPMetricExporter(endpoint=f"{base}/v1/metrics", timeout=EXPORT_TIMEOUT_S)
        # What OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE says; the exporter has no other way to tell.
        wanted = self._metric_exporter._preferred_temporality  # noqa: SLF001
        self.metrics = Metrics(deltas_of(wanted, counter=Counter, histogram=Histogram))
        self._measured = Sender("telemetry-metrics", METRIC_INTERVAL_S, self._send_metrics)
        self._logs = LoggerProvider(resource=self._resource, shutdown_on_exit=False)
        self._log_exporter = OTLPLogExporter(endpoint=f"{base}/v1/logs", timeout=EXPORT_TIMEOUT_S)
        self._logs.add_log_record_processor(BatchLogRecordProcessor(self._log_exporter, max_queue_size=QUEUE_SIZE))
        self._handler = LoggingHandler(logger_provider=self._logs)
        logging.getLogger().addHandler(self._handler)

    def span(
        self,
        name: str,
        kind: Kind,
        parent: str | None,
        attributes: Attributes | None,
        linked: Sequence[str] = (),
    ) -> LeanSpan:
        """A span, current while it is entered; the child of `parent` (a traceparent) or of the current one."""
        links = [link for text in dict.fromkeys(linked) if (link := link_to(text)) is not None]
        return self._spans.make(name, kind, parent, attributes, links)

    def traceparent(self) -> str | None:
        """The current span as a W3C header."""
        span = current()
        return None if span is None else span.traceparent

    def shutdown(self) -> None:
        """Send what is left; a collector that is away costs a few seconds, not more."""
        logging.getLogger().removeHandler(self._handler)
        del self._handler  # or Python flushes it at its exit, in a thread that cannot begin any more
        if not within(EXPORT_TIMEOUT_S, self._ended.stop, self._measured.stop, self._logs.shutdown):
            # What is left is not sent any more, in whatever thread.
            self._log_exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK leaves it untyped
        self._span_exporter.shutdown()  # type: ignore[no-untyped-call]  # see above
        self._metric_exporter.shutdown()

    def _send_spans(self, batch: list[LeanSpan]) -> None:
        for request in requests(in_turns(batch), self._heading):
            self._span_exporter.send(request)

    def _send_metrics(self) -> None:
        if found := self.metrics.collect():
            scope = ScopeMetrics(InstrumentationScope(SCOPE), found, "")
            self._metric_exporter.export(MetricsData([ResourceMetrics(self._resource, [scope], "")]))


class _SpanExporter(OTLPSpanExporter):
    """The official one for spans that are encoded already."""

    def send(self, request: bytes) -> None:
        """Send one request; a failure is logged."""
        self._client.export(request)
