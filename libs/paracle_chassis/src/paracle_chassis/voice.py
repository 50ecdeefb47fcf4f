"""What is said on core NATS (questions, answers, pieces of output), gathered for a turn of the loop and sent together.

nats-py takes fifteen microseconds to put a message with headers on its way, and each wakes its writer. Here a frame is
built in one go (`frames`), and all that is said within one turn is one write. What is said keeps its order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from nats.errors import BadSubjectError, ConnectionClosedError, MaxPayloadError, OutboundBufferLimitError
from nats.errors import Error as NatsError

from paracle_chassis import frames

if TYPE_CHECKING:
    from nats.aio.client import Client

_log = logging.getLogger(__name__)

_NO_HEADERS: Final[Mapping[str, str]] = {}


class Voice:
    """The voice of one connection, which `client` gives; at most `limit` bytes wait while that is lost."""

    def __init__(self, client: Callable[[], Client], limit: int) -> None:
        self._client = client
        self._limit = limit
        self._frames: list[bytes] = []
        self._sending: asyncio.Task[None] | None = None

    async def say(
        self, subject: str, body: bytes, reply: str = "", headers: Mapping[str, str] = _NO_HEADERS, head: bytes = b""
    ) -> None:
        """Publish a message, soon; while more is said than NATS takes, wait for it. `head`: its headers, as a block.

        Raises
        ------
        nats.errors.Error
            If NATS will not have it: the connection is closed, or away for too long; the message is too large.
        """
        self.put(frame_of(subject, body, reply, headers, head))
        if self._sending is not None and not self._sending.done():
            await asyncio.wait((self._sending,))

    def put(self, frame: bytes) -> None:
        """The same for what was built by `frame_of`, for those that cannot wait."""
        client = self._client()
        if client.is_closed:
            raise ConnectionClosedError
        if len(frame) > client.max_payload:
            raise MaxPayloadError
        if not client.is_connected and client.pending_data_size + len(frame) > self._limit:
            raise OutboundBufferLimitError
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._send)
        self._frames.append(frame)

    async def flush(self) -> None:
        """Hand over to the client now what was said."""
        self._send()
        if self._sending is not None:
            await asyncio.wait((self._sending,))

    def _send(self) -> None:
        if self._frames:
            due, self._frames = self._frames, []
            self._sending = asyncio.Task(self._post(due), loop=asyncio.get_running_loop(), eager_start=True)

    async def _post(self, due: list[bytes]) -> None:
        try:
            await frames.post(self._client(), due)
        except (NatsError, OSError) as error:  # the connection was closed since: nobody can be told any more
            _log.debug("%d messages are not sent: %s", len(due), error)


def frame_of(
    subject: str, body: bytes, reply: str = "", headers: Mapping[str, str] = _NO_HEADERS, head: bytes = b""
) -> bytes:
    """A message as it goes over the wire.

    Raises
    ------
    nats.errors.BadSubjectError
        If a subject would be read as something else.
    """
    if subject.split() != [subject] or (reply and reply.split() != [reply]):
        raise BadSubjectError
    if not (head or headers or reply):
        return frames.pub(subject, body)
    return frames.hpub(subject, reply, head or frames.head_of(headers), body)
