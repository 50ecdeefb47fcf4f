"""What comes in over a connection, taken apart by its lengths, and handed over without detours.

nats-py holds every message against regular expressions, reads all its headers and sends it through a queue to a task of
its subscription, which is most of what receiving costs. Here a frame is found by the lengths that it states, and a
subscription that asked for it (`Inlet.divert`) is called with the message at once; its headers are read when somebody
looks at them. Whatever else the server says, and messages of all other subscriptions, go the client's own way.

Source: NATS client protocol, MSG and HMSG (NATS ADR-4).
"""

from __future__ import annotations

import logging
from asyncio import InvalidStateError
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self, cast, override

from nats.errors import ProtocolError
from nats.protocol.parser import PERMISSIONS_ERR, Parser

from paracle_domain.errors import quote

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.subscription import Subscription

_log = logging.getLogger(__name__)

_LINE: Final = b"\r\n"
_HMSG: Final = b"HMSG"
_MESSAGES: Final = {b"MSG": 5, _HMSG: 6}  # and how many words their line has if one of them is a reply subject
_ERR: Final = b"-ERR"
_PREAMBLE_SIZE: Final = len("NATS/1.0")


class Incoming:
    """A message as it came. `headers` are read from `head`, the block as it was sent, at the first look."""

    __slots__ = ("_headers", "data", "head", "reply", "subject")

    def __init__(
        self, subject: str, reply: str, data: bytes, head: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.head = head
        self._headers = headers

    @property
    def headers(self) -> Mapping[str, str]:
        if self._headers is None:
            self._headers = read_headers(self.head)
        return self._headers

    def has(self, name: str) -> bool:
        """Whether it has this header; one that is nowhere in the block is not looked for among them."""
        return (self._headers is not None or name.encode() in self.head) and name in self.headers

    def slim(self) -> None:
        """Let go of what was read of the headers; whoever looks again reads them anew. They are a kilobyte."""
        if self.head:
            self._headers = None


def read_headers(head: bytes) -> dict[str, str]:
    """The headers in a block; what the server says of a request comes as `Status` and `Description`."""
    first, *lines = head.decode("utf-8", "replace").split("\r\n")
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    if said := first[_PREAMBLE_SIZE:].strip():
        status, _, description = said.partition(" ")
        found["Status"] = status
        if description:
            found["Description"] = description
    return found


class Inlet(Parser):
    """The parser of one connection, instead of the client's own.

    `Inlet.on(client)` puts it in place; it stays there when the client connects anew.
    """

    def __init__(self, client: Client) -> None:
        self._sinks: dict[int, Callable[[Incoming], None]] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._wanted = 0
        self._resets = 0
        super().__init__(client)

    @classmethod
    def on(cls, client: Client) -> Self:
        """The inlet of `client`, which is connected and idle."""
        inlet = cls(client)
        client._ps = inlet  # noqa: SLF001  # the client has no other way in; tests hold it
        return inlet

    def divert(self, subscription: Subscription, sink: Callable[[Incoming], None]) -> None:
        """Call `sink` with the messages of `subscription` from now on, as they come."""
        self._sinks[subscription._id] = sink  # noqa: SLF001

    def forget(self, subscription: Subscription) -> None:
        """Let the messages of `subscription` go the client's way again."""
        self._sinks.pop(subscription._id, None)  # noqa: SLF001

    @override
    def reset(self) -> None:
        """Forget what has come in part: the rest of it will not."""
        super().reset()
        self._parts.clear()
        self._size = self._wanted = 0
        self._resets += 1

    @override
    async def parse(self, data: bytes = b"") -> None:
        """Take in `data`: hand over what is whole, and keep the rest until more comes.

        Raises
        ------
        ProtocolError
            If it is nothing that a server says, or that it ends the connection; the client connects anew then.
        """
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._wanted:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        self._wanted, resets = 0, self._resets
        at = await self._frames(data)
        if at < len(data) and self._resets == resets:
            self._parts.append(data[at:])
            self._size = len(data) - at

    async def _frames(self, data: bytes) -> int:
        """Hand over all whole frames in `data`; where the rest begins. If it begins a message, `wanted` is its size."""
        at = 0
        while (end := data.find(_LINE, at)) >= 0:
            begin = end + 2
            words = data[at:end].split(b" ")  # only by spaces: subjects hold whatever else a publisher put there
            if words[0] not in _MESSAGES:
                if words[0] == _ERR and PERMISSIONS_ERR.encode() not in data[at:end].lower():
                    _log.warning("NATS ends the connection: %s", _text(data[at:end]))
                    raise ProtocolError  # the client would close it for good
                with suppress(InvalidStateError):  # nats-py answers PINGs whose PONG nobody waits for any more
                    await super().parse(data[at:begin])
                at = begin
                continue
            try:
                stop = begin + int(words[-1])
                middle = begin + int(words[-2]) if words[0] == _HMSG else begin
                sid = int(words[2])
            except (ValueError, IndexError) as error:
                raise ProtocolError from error
            if stop + 2 > len(data):
                self._wanted = stop + 2 - at
                break
            reply = words[3] if len(words) == _MESSAGES[words[0]] else b""
            subject, reply_to, body, head = _text(words[1]), _text(reply), data[middle:stop], data[begin:middle]
            sink = self._sinks.get(sid)
            try:
                if sink is not None:
                    sink(Incoming(subject, reply_to, body, head))
                else:  # headers that are none are more than the client can bear
                    await self._pass_on(sid, subject, reply_to, body, head)
            except Exception:  # noqa: BLE001  # whatever is wrong with it: the messages behind it are somebody else's
                _log.exception("dropped a message on %s that cannot be read", quote(subject))
            at = stop + 2
        return at

    async def _pass_on(self, sid: int, subject: str, reply: str, body: bytes, head: bytes) -> None:
        """Let the client have a message."""
        client = cast("Client", self.nc)
        await client._process_msg(sid, subject.encode(), reply.encode(), body, head)  # noqa: SLF001


def _text(word: bytes) -> str:
    """A subject as text. Servers let any bytes through, and one bad message must not end the connection."""
    return word.decode("utf-8", "replace")
