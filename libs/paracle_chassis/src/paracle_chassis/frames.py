"""NATS's wire format for messages with headers, many at a time.

nats-py validates, strips and translates every header of every message on its own, which is most of what publishing
costs. Our headers are made by `Envelope.headers`, so one look at a message's whole header block is enough.

Source: NATS client protocol, HPUB (NATS ADR-4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from nats.aio.client import Client
from nats.errors import ConnectionClosedError, ConnectionReconnectingError, MaxPayloadError

_PREAMBLE: Final = "NATS/1.0\r\n"


def hpub(subject: str, reply: str, head: bytes, body: bytes) -> bytes:
    """One message as it goes over the wire; `head` is the block of its headers."""
    total = len(head) + len(body)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject.encode(), reply.encode(), len(head), total, head, body)


def head_of(headers: Mapping[str, str]) -> bytes:
    """The block of `headers`. Line breaks in their values become spaces."""
    block = _PREAMBLE + "".join([f"{name}: {value}\r\n" for name, value in headers.items()]) + "\r\n"
    lines = len(headers) + 2
    if block.count("\n") != lines or block.count("\r") != lines:
        block = _PREAMBLE + "".join([f"{name}: {_one_line(value)}\r\n" for name, value in headers.items()]) + "\r\n"
    return block.encode()


def _one_line(value: str) -> str:
    return " ".join(value.split())


def pub(subject: str, body: bytes) -> bytes:
    """One message without headers and reply subject, as acknowledgements are."""
    return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(body), body)


async def send(client: Client, frames: Iterable[bytes]) -> None:
    """Write `frames` in order, in as few system calls as the client's buffer allows.

    Raises
    ------
    ConnectionReconnectingError
        If the client is not connected; nothing was written then.
    MaxPayloadError
        If a frame is larger than the server takes; what stands before it was written.
    """
    if not client.is_connected:
        raise ConnectionReconnectingError
    limit = client.max_payload
    whole: list[bytes] = []
    try:
        for frame in frames:
            if len(frame) > limit:
                raise MaxPayloadError
            whole.append(frame)
    finally:
        await post(client, whole)


async def post(client: Client, frames: Iterable[bytes]) -> None:
    """Write `frames` in order: now, or as soon as the client is connected again.

    Raises
    ------
    ConnectionClosedError
        If it never will be.
    """
    if client.is_closed:
        raise ConnectionClosedError
    # The client's own way in below `publish`, which would build the frames again; tests hold it.
    await client._send_command(b"".join(frames))  # noqa: SLF001
    await client._flush_pending()  # noqa: SLF001


def drop_unsent(client: Client) -> None:
    """Let go of what waits for a connection that is lost.

    nats-py's `close` would write it to the old one, which raises `TypeError` (asyncio) or `RuntimeError` (uvloop).
    """
    client._pending.clear()  # noqa: SLF001  # as above
    client._pending_data_size = 0  # noqa: SLF001


async def flushed(client: Client, within_s: float = 10.0) -> None:
    """Wait until the server has all that was sent before.

    nats-py's own `flush` is not enough: it lets its PING overtake what waits to be written.

    Raises
    ------
    nats.errors.FlushTimeoutError
        If the server does not say so in time.
    """
    await client._flush_pending(force_flush=True)  # noqa: SLF001  # as above
    await client.flush(within_s)  # type: ignore[arg-type]  # nats-py says int and takes seconds
