"""Spans as OTLP has them on the wire.

Encoding a span field by field into protobuf's objects takes fifty microseconds. What we send is little and always the
same, so it is written down as it is sent; a test holds every byte against the official encoder.

Source: opentelemetry-proto 1.x, trace/v1/trace.proto and common/v1/common.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import Resource

if TYPE_CHECKING:
    from paracle_chassis.otel_spans import LeanSpan

SCOPE: Final = "paracle"
"""OpenTelemetry's word for who made spans and measurements."""
MOST_BYTES: Final = 4 * 1024 * 1024
"""Of a request; what servers take by default is 4 MiB (gRPC) to 20 MiB (HTTP)."""

_BYTE: Final = 0x80
_UINT64: Final = (1 << 64) - 1
_HAS_REMOTE, _IS_REMOTE = 0x100, 0x200
_double: Final = Struct("<d").pack
_times: Final = Struct("<BBBQBQ").pack  # kind, start, end
_event_time: Final = Struct("<BQ").pack
_flags: Final = Struct("<BBI").pack
_KIND, _STARTED, _ENDED, _FLAGS, _LINK_FLAGS, _EVENT_TIME = 0x30, 0x39, 0x41, 0x85, 0x35, 0x09


def requests(spans: Iterable[LeanSpan], head: bytes, most: int = MOST_BYTES) -> Iterator[bytes]:
    """Requests that export `spans`; `head` is `heading` of who made them.

    Spans that tell of errors carry stack traces. What has more than `most` bytes goes alone, and takes no others along
    when a collector refuses it.
    """
    parts: list[bytes] = []
    size = 0
    for span in spans:
        part = _field(0x12, _span(span))
        if parts and size + len(part) > most:
            yield _request(parts, head)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield _request(parts, head)


def _request(spans: Iterable[bytes], head: bytes) -> bytes:
    return _field(0x0A, head + _field(0x12, _SCOPE + b"".join(spans)))


def heading(resource: Resource) -> bytes:
    """What stands before all spans of `resource`."""
    return _field(0x0A, _pairs(0x0A, resource.attributes))


def _span(span: LeanSpan) -> bytes:
    name, (status, said) = _text(span.name), span.status
    parts = [
        b"\x0a\x10",
        bytes.fromhex(span.trace_id),
        b"\x12\x08",
        bytes.fromhex(span.span_id),
        b"\x22\x08" + bytes.fromhex(span.parent_id) if span.parent_id else b"",
        b"\x2a" + _varint(len(name)),
        name,
        _times(_KIND, span.kind.value + 1, _STARTED, span.started_at, _ENDED, span.ended_at),
        _pairs(0x4A, span.attributes),
    ]
    parts += [_field(0x5A, _event(*event)) for event in span.events]
    parts += [_field(0x6A, _link(*link)) for link in span.links]
    told = _field(0x12, _text(said)) if said else b""
    parts.append(_field(0x7A, told + (bytes((0x18, status.value)) if status.value else b"")))
    parts.append(_flags(_FLAGS, 0x01, _HAS_REMOTE | (_IS_REMOTE if span.parent_is_remote else 0)))
    return b"".join(parts)


def _event(time: int, name: str, attributes: Mapping[str, object]) -> bytes:
    return _event_time(_EVENT_TIME, time) + _field(0x12, _text(name)) + _pairs(0x1A, attributes)


def _link(trace_id: str, span_id: str) -> bytes:
    ids = b"\x0a\x10%b\x12\x08%b" % (bytes.fromhex(trace_id), bytes.fromhex(span_id))
    return ids + bytes((_LINK_FLAGS,)) + (_HAS_REMOTE | _IS_REMOTE).to_bytes(4, "little")


def _pairs(tag: int, attributes: Mapping[str, object]) -> bytes:
    parts = []
    for key, value in attributes.items():
        pair = _key(key) + _field(0x12, _value(value))
        parts.append(_field(tag, pair))
    return b"".join(parts)


@lru_cache(maxsize=512)
def _key(key: str) -> bytes:
    return _field(0x0A, _text(key))


def _value(value: object) -> bytes:
    match value:
        case str():
            return _field(0x0A, _text(value))
        case bool():
            return b"\x10\x01" if value else b"\x10\x00"
        case int():
            return b"\x18" + _varint(value & _UINT64)
        case float():
            return b"\x21" + _double(value)
        case Sequence():
            return _field(0x2A, b"".join([_field(0x0A, _value(one)) for one in value]))
        case _:
            return _field(0x0A, _text(str(value)))


def _text(text: str) -> bytes:
    """What an error quotes need not be text that can be encoded, and many others are in the same request."""
    return text.encode("utf-8", "replace")


def _field(tag: int, body: bytes) -> bytes:
    """A field that says how long it is."""
    size = len(body)
    if size < _BYTE:
        return bytes((tag, size)) + body
    return bytes((tag,)) + _varint(size) + body


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= _BYTE:
        found.append(number & 0x7F | _BYTE)
        number >>= 7
    found.append(number)
    return bytes(found)


_SCOPE: Final = _field(0x0A, _field(0x0A, SCOPE.encode()))
