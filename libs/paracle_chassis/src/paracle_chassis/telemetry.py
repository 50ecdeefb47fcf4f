"""Traces, metrics and logs over OTLP, when an endpoint is set; nothing at all otherwise.

Names are a contract (README, "Telemetry"), and few: methods, streams and error codes, never ids. The OpenTelemetry SDK
is loaded only if it is used. Services record through `span`, `Counter`, `Gauge` and `Histogram`, which cost next to
nothing while telemetry is off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from paracle_domain.envelope import TRACEPARENT, Context, Envelope

if TYPE_CHECKING:
    from paracle_chassis.delivery import Delivery
    from paracle_chassis.otel import Otel
    from paracle_chassis.otel_spans import LeanSpan
    from paracle_chassis.routes import MailboxRoute

type Attributes = Mapping[str, str | int | float | bool]
type Kind = Literal["internal", "server", "client", "producer", "consumer"]

RPC_SERVER_DURATION: Final = "paracle.rpc.server.duration"
RPC_CLIENT_DURATION: Final = "paracle.rpc.client.duration"
MAILBOX_DURATION: Final = "paracle.mailbox.batch.duration"
MAILBOX_MESSAGES: Final = "paracle.mailbox.messages"
MAILBOX_RETRIES: Final = "paracle.mailbox.retries"
DEAD_LETTERS: Final = "paracle.dead_letters"

_MOST_LINKS: Final = 32
_otel: Otel | None = None
_around: ContextVar[_Measured | None] = ContextVar("paracle_measured", default=None)


class Counter:
    """A monotonic count; made at import, recorded once telemetry is on."""

    def __init__(self, name: str, description: str, unit: str = "1") -> None:
        self.name, self.description, self.unit = name, description, unit

    def add(self, value: float = 1, attributes: Attributes | None = None) -> None:
        if _otel is not None:
            _otel.metrics.add(self, value, attributes)


class Histogram:
    """A distribution, by default of seconds; made at import, recorded once telemetry is on."""

    def __init__(self, name: str, description: str, unit: str = "s") -> None:
        self.name, self.description, self.unit = name, description, unit

    def record(self, value: float, attributes: Attributes | None = None) -> None:
        if _otel is not None:
            _otel.metrics.record(self, value, attributes)


class Gauge:
    """How something stands: the last value counts. Made at import, recorded once telemetry is on."""

    def __init__(self, name: str, description: str, unit: str = "1") -> None:
        self.name, self.description, self.unit = name, description, unit

    def set(self, value: float, attributes: Attributes | None = None) -> None:
        if _otel is not None:
            _otel.metrics.set(self, value, attributes)


_server_duration: Final = Histogram(RPC_SERVER_DURATION, "How long a request took to answer.")
_client_duration: Final = Histogram(RPC_CLIENT_DURATION, "How long a request took until its answer was there.")
_batch_duration: Final = Histogram(MAILBOX_DURATION, "How long a batch of a mailbox took.")
_messages: Final = Counter(MAILBOX_MESSAGES, "Messages that a mailbox handled.")
_retries: Final = Counter(MAILBOX_RETRIES, "Messages that failed and are delivered again.")
_dead_letters: Final = Counter(DEAD_LETTERS, "Messages that went to the dead letters.")


def enabled() -> bool:
    """Whether anything is recorded."""
    return _otel is not None


def setup(service: str, endpoint: str | None) -> Callable[[], None]:
    """Record and send from now on, if there is an `endpoint`; what is returned flushes and stops, in bounded time."""
    global _otel  # noqa: PLW0603  # one process is one service; OpenTelemetry's providers are process-wide as well
    if endpoint is None or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return lambda: None
    from paracle_chassis.otel import Otel  # noqa: PLC0415  # the SDK takes half a second to load

    _otel = Otel(service, endpoint)
    return _stop


def _stop() -> None:
    global _otel  # see `setup`
    if _otel is not None:
        stopping, _otel = _otel, None
        stopping.shutdown()


def span(
    name: str, *, kind: Kind = "internal", context: Context | None = None, attributes: Attributes | None = None
) -> AbstractContextManager[Any]:
    """A span named `name`, the child of the current one or of `context`'s; exceptions mark it as failed."""
    if _otel is None:
        return nullcontext()
    return _otel.span(name, kind, context.traceparent if context else None, attributes)


def traceparent() -> str | None:
    """The current span, as the W3C header that makes others its children."""
    return _otel.traceparent() if _otel is not None else None


def inject(headers: dict[str, str]) -> None:
    """Hand the current span on in `headers`; without one, what they say already stays."""
    if _otel is not None and (current := _otel.traceparent()) is not None:
        headers[TRACEPARENT] = current


def mark_failed(code: str) -> None:
    """The span and the measurement around this failed with the error `code`."""
    if (measured := _around.get()) is not None:
        measured.fail(code)


class _Measured:
    """A span, how long it took, and the code of the error that it ended with."""

    __slots__ = ("_attributes", "_error", "_histogram", "_outer", "_span", "_started")

    def __init__(self, histogram: Histogram, span: LeanSpan, attributes: Attributes) -> None:
        self._histogram = histogram
        self._span = span
        self._attributes = attributes
        self._error: str | None = None

    def fail(self, code: str) -> None:
        self._error = self._error or code

    def __enter__(self) -> None:
        self._outer = _around.set(self)
        self._span.__enter__()
        self._started = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._started
        _around.reset(self._outer)
        if isinstance(error, Exception):
            self.fail(str(getattr(error, "code", type(error).__name__)))
        if self._error is not None:
            self._span.fail(self._error)
        outcome = {} if self._error is None else {"error.type": self._error}
        self._histogram.record(seconds, {**self._attributes, **outcome})  # with this span for an example
        self._span.__exit__(kind, error, trace_back)


def server_span(service: str, method: str, envelope: Envelope) -> AbstractContextManager[None]:
    """Around a request that is answered."""
    if _otel is None:
        return nullcontext()
    attributes = {"rpc.system": "nats", "rpc.service": service, "rpc.method": method}
    made = _otel.span(f"{service}/{method}", "server", envelope.context.traceparent, attributes)
    return _Measured(_server_duration, made, attributes)


def client_span(service: str, method: str, headers: dict[str, str]) -> AbstractContextManager[None]:
    """Around a request that is asked; `headers` hand the span on."""
    if _otel is None:
        return nullcontext()
    attributes = {"rpc.system": "nats", "rpc.service": service, "rpc.method": method}
    parent = None if _otel.traceparent() else headers.get(TRACEPARENT)
    made = _otel.span(f"{service}/{method}", "client", parent, attributes)
    headers[TRACEPARENT] = made.traceparent
    return _Measured(_client_duration, made, attributes)


@contextmanager
def _mailbox_span(route: MailboxRoute, deliveries: Sequence[Delivery]) -> Iterator[None]:
    assert _otel is not None
    attributes = {
        "messaging.system": "nats",
        "messaging.destination.name": route.stream,
        "messaging.consumer.group.name": route.durable,
    }
    parents = [delivery.envelope.context.traceparent for delivery in deliveries[:_MOST_LINKS]]
    parent = parents[0] if len(deliveries) == 1 else None
    linked = [text for text in parents if text is not None] if parent is None else []
    span = _otel.span(f"process {route.stream}", "consumer", parent, attributes, linked)
    with _Measured(_batch_duration, span, attributes):
        yield
    _messages.add(len(deliveries), attributes)


def mailbox_span(route: MailboxRoute, deliveries: Sequence[Delivery]) -> AbstractContextManager[None]:
    """Around a batch: the child of its message if it is one, linked to its messages if they are several."""
    return nullcontext() if _otel is None else _mailbox_span(route, deliveries)


def retried(route: MailboxRoute) -> None:
    _retries.add(1, {"messaging.destination.name": route.stream, "messaging.consumer.group.name": route.durable})


def buried(consumer: str, code: str) -> None:
    _dead_letters.add(1, {"messaging.consumer.group.name": consumer, "error.type": code})
