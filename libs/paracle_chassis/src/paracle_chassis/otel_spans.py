"""Spans, with as little around them as a message can bear.

They are OpenTelemetry's (`trace.Span`, current in its context: logs and libraries find them there), made and encoded
without its SDK: that takes thirty microseconds a span, and a model call has four. Ids stay in the hexadecimal text in
which they travel.

Every span is recorded. One that is not sampled is thrown away at its end, unless it failed: errors are always kept.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from random import getrandbits
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, override

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON, Decision, ParentBased, Sampler
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

if TYPE_CHECKING:
    from opentelemetry.util.types import AnyValue

    from paracle_chassis.telemetry import Attributes, Kind

_KINDS: Final[Mapping[str, SpanKind]] = {kind.name.lower(): kind for kind in SpanKind}
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]([0-9a-f])(?:-.*)?")
_NOBODY: Final = ("0" * 32, "0" * 16)

type Link = tuple[str, str]
"""Trace and span."""
type Event = tuple[int, str, dict[str, Any]]
"""When, what, and its attributes."""


class LeanSpan(Span):
    """A span; current while it is entered, and sent on when it is left."""

    __slots__ = (
        "_ended",
        "_token",
        "attributes",
        "ended_at",
        "events",
        "kind",
        "links",
        "name",
        "parent_id",
        "parent_is_remote",
        "sampled",
        "span_id",
        "started_at",
        "status",
        "trace_id",
    )

    def __init__(
        self, name: str, kind: SpanKind, above: Above, attributes: Attributes | None, ended: Callable[[LeanSpan], None]
    ) -> None:
        self.name = name
        self.kind = kind
        self.trace_id, self.parent_id, self.sampled, self.parent_is_remote = above
        self.span_id = f"{getrandbits(64) or 1:016x}"
        self.attributes: dict[str, Any] = dict(attributes) if attributes else {}
        self.links: Sequence[Link] = ()
        self.events: list[Event] = []
        self.status: tuple[StatusCode, str | None] = (StatusCode.UNSET, None)
        self.started_at = time_ns()
        self.ended_at = 0
        self._ended = ended
        self._token: Token[contexts.Context] | None = None

    @property
    def failed(self) -> bool:
        return self.status[0] is StatusCode.ERROR

    def fail(self, code: str) -> None:
        """It failed with the error `code`."""
        self.status = (StatusCode.ERROR, code)
        self.attributes["error.type"] = code

    @property
    def traceparent(self) -> str:
        """This span as the W3C header that makes others its children."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    @override
    def __enter__(self) -> Self:
        self._token = contexts.attach(trace.set_span_in_context(self))
        return self

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self._token is not None:
            contexts.detach(self._token)
            self._token = None
        if isinstance(error, Exception):  # others, as a cancellation, are no errors
            self.record_exception(error)
            self.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
        self.end()

    @override
    def end(self, end_time: int | None = None) -> None:
        if not self.ended_at:
            self.ended_at = end_time or time_ns()
            if self.sampled or self.failed:
                self._ended(self)

    @override
    def get_span_context(self) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED if self.sampled else TraceFlags.DEFAULT)
        return SpanContext(int(self.trace_id, 16), int(self.span_id, 16), is_remote=False, trace_flags=flags)

    @override
    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        if not self.ended_at:  # another thread encodes it from then on
            self.attributes.update(attributes)

    @override
    def set_attribute(self, key: str, value: AnyValue) -> None:
        if not self.ended_at:
            self.attributes[key] = value

    @override
    def add_event(
        self, name: str, attributes: Mapping[str, AnyValue] | None = None, timestamp: int | None = None
    ) -> None:
        self.events.append((timestamp or time_ns(), name, dict(attributes or {})))

    @override
    def update_name(self, name: str) -> None:
        self.name = name

    @override
    def is_recording(self) -> bool:
        return not self.ended_at

    @override
    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        code = status.status_code if isinstance(status, Status) else status
        said = status.description if isinstance(status, Status) else description
        self.status = (code, said if code is StatusCode.ERROR else None)

    @override
    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, AnyValue] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        kind = type(exception)
        told: dict[str, AnyValue] = {
            "exception.type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", told | dict(attributes or {}), timestamp)


type Above = tuple[str, str, bool, bool]
"""Trace, parent (empty for none), whether it is sampled, and whether the parent is in another process."""


class Spans:
    """Makes spans, and hands those that are to be kept to `ended`, each at its end."""

    def __init__(self, sampler: Sampler, ended: Callable[[LeanSpan], None]) -> None:
        self._sampler = sampler
        self._follows = isinstance(sampler, ParentBased)
        self._takes_all_roots = sampler in {ALWAYS_ON, DEFAULT_ON}
        self._ended = ended

    def make(
        self, name: str, kind: Kind, parent: str | None, attributes: Attributes | None, links: Sequence[Link] = ()
    ) -> LeanSpan:
        """A span that is not entered yet: the child of `parent` (a traceparent), or else of the current one."""
        made = LeanSpan(name, _KINDS[kind], self._above(name, parent), attributes, self._ended)
        made.links = links
        return made

    def _above(self, name: str, parent: str | None) -> Above:
        if parent is not None and (found := _TRACEPARENT.fullmatch(parent)) is not None:
            trace_id, span_id, flags = found.groups()
            if trace_id != _NOBODY[0] and span_id != _NOBODY[1]:
                sampled = flags in "13579bdf"
                return (trace_id, span_id, self._sampled(name, trace_id, above=sampled), True)
        if (around := current()) is not None:
            sampled = self._sampled(name, around.trace_id, above=around.sampled)
            return (around.trace_id, around.span_id, sampled, False)
        trace_id = f"{getrandbits(128) or 1:032x}"
        return (trace_id, "", self._sampled(name, trace_id), False)

    def _sampled(self, name: str, trace_id: str, *, above: bool | None = None) -> bool:
        """What the sampler says; those that follow the parent (`parentbased_…`) are asked for roots only.

        Most take all roots, and need not be asked, which takes as long as all else that there is to do for a span.
        """
        if above is not None and self._follows:
            return above
        if self._takes_all_roots:
            return True
        found = self._sampler.should_sample(contexts.Context(), int(trace_id, 16), name)
        return found.decision is Decision.RECORD_AND_SAMPLE


def current() -> LeanSpan | None:
    """The span around this."""
    found = trace.get_current_span()
    return found if type(found) is LeanSpan else None


def link_to(traceparent: str) -> Link | None:
    """What a link needs of a traceparent; `None` if it is none."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return None if found is None else (found[1], found[2])
