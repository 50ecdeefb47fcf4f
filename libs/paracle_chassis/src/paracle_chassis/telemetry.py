"""Traces, metrics and logs over OTLP, when an endpoint is set; nothing at all otherwise.

Names are a contract (README, "Telemetry"), and few: methods, streams and error codes, never ids. The OpenTelemetry SDK
is loaded only if it is used. Services record through `span`, `Counter`, `Gauge` and `Histogram`, which cost next to
nothing while telemetry is off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

from paracle_domain.envelope import TRACEPARENT, Context, Envelope

if TYPE_CHECKING:
    from paracle_chassis.delivery import Delivery
    from paracle_chassis.otel import Otel
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
_error_code: ContextVar[list[str] | None] = ContextVar("paracle_error_code", default=None)


class Counter:
    """A monotonic count; made at import, recorded once telemetry is on."""

    def __init__(self, name: str, description: str, unit: str = "1") -> None:
        self.name, self.description, self.unit = name, description, unit

    def add(self, value: float = 1, attributes: Attributes | None = None) -> None:
        if _otel is not None:
            _otel.count(self, value, attributes)


class Histogram:
    """A distribution, by default of seconds; made at import, recorded once telemetry is on."""

    def __init__(self, name: str, description: str, unit: str = "s") -> None:
        self.name, self.description, self.unit = name, description, unit

    def record(self, value: float, attributes: Attributes | None = None) -> None:
        if _otel is not None:
            _otel.histogram(self).record(value, attributes)


class Gauge:
    """How something stands: the last value counts. Made at import, recorded once telemetry is on."""

    def __init__(self, name: str, description: str, unit: str = "1") -> None:
        self.name, self.description, self.unit = name, description, unit

    def set(self, value: float, attributes: Attributes | None = None) -> None:
        if _otel is not None:
            _otel.gauge(self).set(value, attributes)


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
    if endpoint is None:
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
    if (holder := _error_code.get()) is not None:
        holder.append(code)


@contextmanager
def _measured(
    histogram: Histogram, name: str, kind: Kind, parent: str | None, attributes: Attributes
) -> Iterator[None]:
    assert _otel is not None
    failed: list[str] = []
    token = _error_code.set(failed)
    started = _otel.now()
    try:
        with _otel.span(name, kind, parent, attributes):
            yield
            if failed:
                _otel.fail(failed[0])
    except Exception as error:  # noted for the span, and raised again
        failed.append(str(getattr(error, "code", type(error).__name__)))
        raise
    finally:
        _error_code.reset(token)
        outcome = {"error.type": failed[0]} if failed else {}
        if _otel is not None:
            histogram.record(_otel.now() - started, {**attributes, **outcome})


def server_span(service: str, method: str, envelope: Envelope) -> AbstractContextManager[None]:
    """Around a request that is answered."""
    if _otel is None:
        return nullcontext()
    attributes = {"rpc.system": "nats", "rpc.service": service, "rpc.method": method}
    return _measured(_server_duration, f"{service}/{method}", "server", envelope.context.traceparent, attributes)


@contextmanager
def _client_span(service: str, method: str, headers: dict[str, str]) -> Iterator[None]:
    attributes = {"rpc.system": "nats", "rpc.service": service, "rpc.method": method}
    parent = None if _otel is None or _otel.traceparent() else headers.get(TRACEPARENT)
    with _measured(_client_duration, f"{service}/{method}", "client", parent, attributes):
        inject(headers)
        yield


def client_span(service: str, method: str, headers: dict[str, str]) -> AbstractContextManager[None]:
    """Around a request that is asked; `headers` hand the span on."""
    return nullcontext() if _otel is None else _client_span(service, method, headers)


@contextmanager
def _mailbox_span(route: MailboxRoute, deliveries: Sequence[Delivery]) -> Iterator[None]:
    attributes = {
        "messaging.system": "nats",
        "messaging.destination.name": route.stream,
        "messaging.consumer.group.name": route.durable,
    }
    parents = [delivery.envelope.context.traceparent for delivery in deliveries[:_MOST_LINKS]]
    parent = parents[0] if len(deliveries) == 1 else None
    assert _otel is not None
    links = [text for text in parents if text is not None] if parent is None else []
    with (
        _otel.links(links),
        _measured(_batch_duration, f"process {route.stream}", "consumer", parent, attributes),
    ):
        yield
    _messages.add(len(deliveries), attributes)


def mailbox_span(route: MailboxRoute, deliveries: Sequence[Delivery]) -> AbstractContextManager[None]:
    """Around a batch: the child of its message if it is one, linked to its messages if they are several."""
    return nullcontext() if _otel is None else _mailbox_span(route, deliveries)


def retried(route: MailboxRoute) -> None:
    _retries.add(1, {"messaging.destination.name": route.stream, "messaging.consumer.group.name": route.durable})


def buried(consumer: str, code: str) -> None:
    _dead_letters.add(1, {"messaging.consumer.group.name": consumer, "error.type": code})
