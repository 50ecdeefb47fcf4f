"""Messages as they go over the wire."""

from __future__ import annotations

from typing import Final, NamedTuple

from paracle_chassis.bus import CLAIM_THRESHOLD, Outgoing
from paracle_chassis.claims import Claims
from paracle_domain.errors import PayloadTooLarge

_ROOM: Final = 4 * 1024  # for what is around the values of headers, and for those that traces and batches add
_MOST_HEADERS: Final = 64 * 1024 - _ROOM
"""A stream takes 64 KiB."""


class Wire(NamedTuple):
    """A message as it goes over the wire. `joins`: the subject of a bundle that it may go in (`bundles`)."""

    subject: str
    body: bytes
    headers: dict[str, str]
    joins: str | None = None


async def to_wire(message: Outgoing, claims: Claims, max_payload: int) -> Wire:
    """`message` as it goes over the wire, a large body put away.

    Raises
    ------
    PayloadTooLarge
        If NATS would not take it, however often it is sent.
    """
    headers = message.envelope.headers()
    body = message.message.encode()
    if len(body) > CLAIM_THRESHOLD:
        body = await claims.check_in(body, headers)
    size = sum([len(name) + len(value) for name, value in headers.items()])
    most = min(_MOST_HEADERS, max_payload - len(body) - _ROOM)
    if size > most:
        raise PayloadTooLarge(
            f"headers of {size:,} bytes on {message.subject} are over the limit of {most:,} beside "
            f"{len(body):,} bytes of body; say it in the body instead"
        )
    return Wire(message.subject, body, headers, message.joins)
