"""Sums, distributions and last values, added up here and handed to OpenTelemetry's exporter when they are sent.

The SDK's own instruments give the same points, at six microseconds a measurement; a model call takes five of them. So
these keep a point for each set of attributes themselves, and become the SDK's data only once they are collected.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Literal

from opentelemetry.sdk.environment_variables import OTEL_METRICS_EXEMPLAR_FILTER
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    DataT,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from paracle_chassis.otel_spans import current

if TYPE_CHECKING:
    from paracle_chassis import telemetry
    from paracle_chassis.telemetry import Attributes

type _Key = frozenset[tuple[str, str | int | float | bool]]
type _Example = tuple[float, int, str, str]  # a value, when it was measured, and the span and trace of it

BOUNDS: Final = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2.5e3, 5e3, 7.5e3, 1e4)
"""Of the buckets, as the OpenTelemetry SDK has them by default."""
MOST_POINTS: Final = 2_000
"""Sets of attributes of one instrument; all further ones are counted together, as OpenTelemetry specifies."""
_OVERFLOW: Final = {"otel.metric.overflow": True}
_NOBODY: Final[_Key] = frozenset()


@dataclass(slots=True)
class _Number:
    """A sum, or the last value."""

    attributes: Attributes
    since: int
    value: float = 0


@dataclass(slots=True)
class _Distribution:
    """How many values fell into which bucket, and the last of each bucket that belongs to a trace."""

    attributes: Attributes
    since: int
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0
    least: float = float("inf")
    most: float = float("-inf")
    exemplars: dict[int, _Example] = field(default_factory=dict)


class _Points[P: _Number | _Distribution]:
    """The points of one instrument by their attributes. Other threads record too, and one collects."""

    def __init__(self, spec: telemetry.Counter | telemetry.Histogram | telemetry.Gauge, make: Callable[..., P]) -> None:
        self.spec = spec
        self.lock = Lock()
        self._make = make
        self._found: dict[_Key, P] = {}

    def of(self, attributes: Attributes | None) -> P:
        key = frozenset(attributes.items()) if attributes else _NOBODY
        return self._found.get(key) or self._new(key, attributes or {})

    def taken(self, *, anew: bool) -> list[P]:
        """All points; if `anew`, the next measurements begin new ones."""
        found = list(self._found.values())
        if anew:
            self._found.clear()
        return found

    def _new(self, key: _Key, attributes: Attributes) -> P:
        if len(self._found) >= MOST_POINTS - 1:
            key, attributes = frozenset(_OVERFLOW.items()), _OVERFLOW
        return self._found.setdefault(key, self._make(dict(attributes), time_ns()))


class Metrics:
    """What a service measures. `deltas` names the instruments of which each report tells only what is new."""

    def __init__(self, deltas: frozenset[Literal["counter", "histogram"]] = frozenset()) -> None:
        self._deltas = deltas
        self._sums: dict[str, _Points[_Number]] = {}
        self._distributions: dict[str, _Points[_Distribution]] = {}
        self._values: dict[str, _Points[_Number]] = {}
        self._exemplars = os.environ.get(OTEL_METRICS_EXEMPLAR_FILTER, "trace_based") != "always_off"
        self._reported = time_ns()

    def add(self, spec: telemetry.Counter, value: float, attributes: Attributes | None) -> None:
        points = self._sums.get(spec.name) or self._sums.setdefault(spec.name, _Points(spec, _Number))
        with points.lock:
            points.of(attributes).value += value

    def set(self, spec: telemetry.Gauge, value: float, attributes: Attributes | None) -> None:
        points = self._values.get(spec.name) or self._values.setdefault(spec.name, _Points(spec, _Number))
        with points.lock:
            points.of(attributes).value = value

    def record(self, spec: telemetry.Histogram, value: float, attributes: Attributes | None) -> None:
        points = self._distributions.get(spec.name)
        if points is None:
            points = self._distributions.setdefault(spec.name, _Points(spec, _Distribution))
        bucket = bisect_left(BOUNDS, value)
        span = current() if self._exemplars else None
        with points.lock:
            point = points.of(attributes)
            point.counts[bucket] += 1
            point.total += value
            point.least = min(point.least, value)
            point.most = max(point.most, value)
            if span is not None and span.sampled:
                point.exemplars[bucket] = (value, time_ns(), span.span_id, span.trace_id)

    def collect(self) -> list[Metric]:
        """All that was measured, as the SDK says it."""
        now, before = time_ns(), self._reported
        self._reported = now
        found = [self._sum(points, before, now) for points in list(self._sums.values())]
        found += [self._distribution(points, before, now) for points in list(self._distributions.values())]
        found += [_last(points, now) for points in list(self._values.values())]
        return [metric for metric in found if metric.data.data_points]

    def _sum(self, points: _Points[_Number], before: int, now: int) -> Metric:
        delta = "counter" in self._deltas
        with points.lock:
            found = [
                NumberDataPoint(point.attributes, before if delta else point.since, now, point.value)
                for point in points.taken(anew=delta)
            ]
        return _metric(points.spec, Sum(found, _temporality(delta=delta), is_monotonic=True))

    def _distribution(self, points: _Points[_Distribution], before: int, now: int) -> Metric:
        delta = "histogram" in self._deltas
        with points.lock:
            found = []
            for point in points.taken(anew=delta):
                examples, point.exemplars = [_example(*found) for found in point.exemplars.values()], {}
                found.append(
                    HistogramDataPoint(
                        attributes=point.attributes,
                        start_time_unix_nano=before if delta else point.since,
                        time_unix_nano=now,
                        count=sum(point.counts),
                        sum=point.total,
                        bucket_counts=tuple(point.counts),
                        explicit_bounds=BOUNDS,
                        min=point.least,
                        max=point.most,
                        exemplars=examples,
                    )
                )
        return _metric(points.spec, Histogram(found, _temporality(delta=delta)))


def deltas_of(temporality: Mapping[type, AggregationTemporality] | None, **kinds: type) -> frozenset[Any]:
    """Those of `kinds` of which an exporter wants each report to tell only what is new."""
    wanted = temporality or {}
    return frozenset(name for name, kind in kinds.items() if wanted.get(kind) is AggregationTemporality.DELTA)


def _example(value: float, time: int, span_id: str, trace_id: str) -> Exemplar:
    return Exemplar({}, value, time, int(span_id, 16), int(trace_id, 16))


def _last(points: _Points[_Number], now: int) -> Metric:
    with points.lock:
        found = [NumberDataPoint(point.attributes, 0, now, point.value) for point in points.taken(anew=False)]
    return _metric(points.spec, Gauge(found))


def _metric(spec: telemetry.Counter | telemetry.Histogram | telemetry.Gauge, data: DataT) -> Metric:
    return Metric(spec.name, spec.description, spec.unit, data)


def _temporality(*, delta: bool) -> AggregationTemporality:
    return AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
