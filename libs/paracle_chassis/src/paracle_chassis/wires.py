"""Messages as they go over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from paracle_chassis import frames
from paracle_chassis.bus import CLAIM_THRESHOLD, Outgoing
from paracle_chassis.claims import Claims
from paracle_domain.envelope import TRACEPARENT
from paracle_domain.errors import PayloadTooLarge

_ROOM: Final = 4 * 1024  # for what is around the values of headers, and for those that traces and batches add
_MOST_HEADERS: Final = 64 * 1024 - _ROOM
"""A stream takes 64 KiB."""


@dataclass(slots=True)
class Wire:
    """A message as it goes over the wire. `joins`: the subject of a bundle that it may go in (`bundles`).

    `head` is the block of its headers, of which the size is asked for before it is sent.
    """

    subject: str
    body: bytes
    headers: Mapping[str, str]
    joins: str | None = None
    head: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.head = frames.head_of(self.headers)


async def to_wire(message: Outgoing, claims: Claims, max_payload: int, traceparent: str | None = None) -> Wire:
    """`message` as it goes over the wire, a large body put away; `traceparent`: the span that sends it.

    Raises
    ------
    PayloadTooLarge
        If NATS would not take it, however often it is sent.
    """
    body = message.message.encode()
    if len(body) <= CLAIM_THRESHOLD:
        return wire_of(message, body, max_payload, traceparent)
    headers = message.envelope.headers()
    body = await claims.check_in(body, headers)
    return wire_of(message, body, max_payload, traceparent, headers)


def wire_of(
    message: Outgoing,
    body: bytes,
    max_payload: int,
    traceparent: str | None = None,
    headers: dict[str, str] | None = None,
) -> Wire:
    """`message` with a `body` that needs no claim check any more, as it goes over the wire; otherwise as `to_wire`.

    `headers`: those of its envelope, if they were made before.
    """
    if headers is None:
        headers = message.envelope.headers()
    if traceparent is not None:
        headers[TRACEPARENT] = traceparent
    wire = Wire(message.subject, body, headers, message.joins)
    size = len(wire.head)
    most = min(_MOST_HEADERS, max_payload - len(body) - _ROOM)
    if size > most:
        raise PayloadTooLarge(
            f"headers of {size:,} bytes on {message.subject} are over the limit of {most:,} beside "
            f"{len(body):,} bytes of body; say it in the body instead"
        )
    return wire
