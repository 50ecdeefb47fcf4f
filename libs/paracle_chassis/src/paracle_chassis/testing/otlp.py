"""An OTLP/HTTP receiver within the test process: what a service reports, ready to be asserted on.

with OtlpReceiver() as receiver:
    …  # a service with settings.otlp_endpoint = receiver.endpoint
    assert {span.name for span in receiver.spans()} == {…}
"""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self, override

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span, with ids in hex."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: dict[str, Any]
    links: tuple[str, ...]
    failed: bool


@dataclass(frozen=True, slots=True)
class ReceivedLog:
    """A log record."""

    service: str
    body: str
    severity: str
    attributes: dict[str, Any]
    trace_id: str


@dataclass(slots=True)
class _Kept:
    traces: list[ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    logs: list[ExportLogsServiceRequest] = field(default_factory=list)


class OtlpReceiver:
    """Listens on a free port of the loopback interface while it is entered."""

    def __init__(self) -> None:
        self._kept = _Kept()
        handler = type("Handler", (_Handler,), {"kept": self._kept})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self) -> list[ReceivedSpan]:
        """Every span received so far."""
        return [
            _span(_service(group.resource), span)
            for request in list(self._kept.traces)
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """The names of all metrics received so far, each with the attributes of its points."""
        found: dict[str, list[dict[str, Any]]] = {}
        for request in list(self._kept.metrics):
            for group in request.resource_metrics:
                for scope in group.scope_metrics:
                    for metric in scope.metrics:
                        data = getattr(metric, metric.WhichOneof("data"))
                        found.setdefault(metric.name, []).extend(
                            _values(point.attributes) for point in data.data_points
                        )
        return found

    def sums(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """The points of the counter `name` as it was sent last: attributes and sum."""
        last = [
            metric.sum
            for request in list(self._kept.metrics)
            for group in request.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
            if metric.name == name and metric.sum.is_monotonic
        ][-1]
        return [(_values(point.attributes), point.as_double or point.as_int) for point in last.data_points]

    def examples(self, name: str) -> set[str]:
        """The spans, in hex, that the histogram `name` had for examples so far."""
        return {
            example.span_id.hex()
            for request in list(self._kept.metrics)
            for group in request.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.histogram.data_points
            for example in point.exemplars
        }

    def metric_services(self) -> set[str]:
        """The services that sent metrics so far."""
        groups = (group for request in list(self._kept.metrics) for group in request.resource_metrics)
        return {_service(group.resource) for group in groups}

    def logs(self) -> list[ReceivedLog]:
        """Every log record received so far."""
        return [
            ReceivedLog(
                _service(group.resource),
                record.body.string_value,
                record.severity_text,
                _values(record.attributes),
                record.trace_id.hex(),
            )
            for request in list(self._kept.logs)
            for group in request.resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        ]


class _Handler(BaseHTTPRequestHandler):
    kept: ClassVar[_Kept]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        match self.path:
            case "/v1/traces":
                self.kept.traces.append(ExportTraceServiceRequest.FromString(body))
            case "/v1/metrics":
                self.kept.metrics.append(ExportMetricsServiceRequest.FromString(body))
            case "/v1/logs":
                self.kept.logs.append(ExportLogsServiceRequest.FromString(body))
            case _:
                self.send_error(404)
                return
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @override
    def log_message(self, *_args: object) -> None:
        """The test's output stays its own."""


def _span(service: str, span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        attributes=_values(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        failed=span.status.code == 2,
    )


def _service(resource: Any) -> str:
    return str(_values(resource.attributes).get("service.name", ""))


def _values(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}
