"""Bundles: many small messages to one stream, as one message of it.

Every message costs the server a place in a stream, an acknowledgement and an entry among the ids that it has seen, and
its reader a frame. Messages that may travel together (`Outgoing.joins`) are put into one, and taken out again before a
handler sees them: each is a delivery of its own, with its own subject, headers and body. The bundle is acked once all
that was in it is.

    the header `paracle-bundle`, and as the body of each message:  SUBJECT HEAD_SIZE BODY_SIZE CR LF HEAD BODY

What fails does not take its neighbours along: when all others are done it is published again alone, and the bundle is
acked. Only if all of it is given back, it comes again as it was.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from paracle_chassis.inlet import Incoming
from paracle_chassis.wires import Wire
from paracle_domain.envelope import CLAIM, MSG_ID
from paracle_domain.errors import Unavailable

_log = logging.getLogger(__name__)

HEADER: Final = "paracle-bundle"
MOST_PARTS: Final = 100
MOST_BYTES: Final = 64 * 1024
"""Of a bundle; a reader holds some hundreds of them."""
_LARGEST_PART: Final = 16 * 1024
_MARK: Final = f"NATS/1.0\r\n{HEADER}:".encode()
_LINE: Final = b"\r\n"
_PART: Final = "#"
_KINDS: Final = frozenset({"task", "result"})
"""What services alone publish. Who may publish one command must not slip others past the broker in a bundle of them."""
_NAK: Final = b"-NAK"
ALONE: Final = b"-ALONE"
"""Said of a message that came in a bundle, and not to the server: it is to come again by itself."""


class Publishes(Protocol):
    """Stores messages in their streams."""

    async def publish(self, messages: Sequence[Wire]) -> None: ...


# ── putting together ─────────────────────────────────────────────────────────────────────────────────────────────────


def together(wires: Sequence[Wire]) -> list[Wire]:
    """`wires`, those that join others in bundles, in order among themselves; all others are before the last bundles."""
    found: list[Wire] = []
    bundles: dict[str, list[Wire]] = {}
    sizes: dict[str, int] = {}
    for wire in wires:
        size = len(wire.subject) + len(wire.head) + len(wire.body)
        if wire.joins is None or size > _LARGEST_PART:
            found.append(wire)
            continue
        bundle = bundles.setdefault(wire.joins, [])
        if len(bundle) == MOST_PARTS or sizes.get(wire.joins, 0) + size > MOST_BYTES:
            found.append(_bundle(bundle))
            bundle = bundles[wire.joins] = []
            sizes[wire.joins] = 0
        bundle.append(wire)
        sizes[wire.joins] = sizes.get(wire.joins, 0) + size
    return [*found, *map(_bundle, bundles.values())]


def _bundle(wires: Sequence[Wire]) -> Wire:
    """One message for `wires`. Its id stands for all of theirs: only the same ones are the same message."""
    if len(wires) == 1:
        return wires[0]
    digest = hashlib.blake2b(digest_size=16)
    parts = []
    for wire in wires:
        head = wire.head
        digest.update(wire.headers[MSG_ID].encode())
        parts.append(b"%b %d %d\r\n%b%b" % (wire.subject.encode(), len(head), len(wire.body), head, wire.body))
    subject = wires[0].joins
    assert subject is not None
    return Wire(subject, b"".join(parts), {HEADER: str(len(wires)), MSG_ID: f"bundle.{digest.hexdigest()}"})


# ── taking apart ─────────────────────────────────────────────────────────────────────────────────────────────────────


def whole_of(reply: str) -> str:
    """The ack subject of what the message with the ack subject `reply` came in: itself, or its bundle's."""
    return reply.partition(_PART)[0]


def is_part(reply: str) -> bool:
    """Whether the message with this ack subject came in a bundle."""
    return _PART in reply


def _read(message: Incoming) -> list[Incoming]:
    """What is in a bundle.

    Raises
    ------
    ValueError
        If it is none. Nothing in it may be of another tenant, or for another stream, than the broker let through.
    """
    body, at = message.data, 0
    home = message.subject.rpartition(".")[0].encode() + b"."
    found: list[Incoming] = []
    while at < len(body):
        end = body.index(_LINE, at)
        subject, head_size, body_size = body[at:end].split(b" ")
        middle = end + 2 + int(head_size)
        stop = middle + int(body_size)
        if not subject.startswith(home) or not end + 2 <= middle <= stop <= len(body):
            raise ValueError(subject)
        reply = f"{message.reply}{_PART}{len(found)}"
        found.append(Incoming(subject.decode("utf-8", "replace"), reply, body[middle:stop], body[end + 2 : middle]))
        at = stop
    if not found:
        raise ValueError("there is nothing in it")
    return found


@dataclass(slots=True)
class _Bundle:
    """One that was taken apart: how much of it is not settled yet, what failed, and the last word about that."""

    parts: Sequence[Incoming]
    left: int
    failed: list[Wire] = field(default_factory=list)
    word: bytes = b""
    apart: bool = False


class Bundles:
    """The bundles that a service has in hand."""

    def __init__(self, publisher: Publishes) -> None:
        self._publisher = publisher
        self._open: dict[str, _Bundle] = {}

    def unpack(self, message: Incoming) -> Sequence[Incoming]:
        """What is in `message`; itself, if it is no bundle, or came where none may."""
        if not message.head.startswith(_MARK) or not _KINDS.intersection(message.subject.split(".", 4)[3:4]):
            return (message,)
        try:
            parts = _read(message)
        except ValueError as error:
            _log.warning("a bundle on %s cannot be read: %s", message.subject, error)
            return (message,)
        self._open[message.reply] = _Bundle(parts, len(parts))
        return parts

    async def settle(self, replies: Iterable[str], word: bytes) -> list[tuple[str, bytes]]:
        """What is to be said, and to which ack subjects, now that `word` is said of `replies`.

        Of a bundle, once something is said of the last of its messages. What failed is published alone before that.
        """
        said: list[tuple[str, bytes]] = []
        for reply in replies:
            whole, _, part = reply.partition(_PART)
            if not part:
                said.append((reply, word))
                continue
            bundle = self._open[whole]
            bundle.left -= 1
            if word:
                _note(bundle, bundle.parts[int(part)], word)
            if not bundle.left:
                del self._open[whole]
                said.append((whole, await self._end_of(bundle)))
        return said

    async def _end_of(self, bundle: _Bundle) -> bytes:
        """The word about a bundle of which everything is settled."""
        if not bundle.failed:
            return b""
        if len(bundle.failed) == len(bundle.parts) and not bundle.apart:
            return bundle.word
        try:
            await self._publisher.publish(bundle.failed)
        except Unavailable as error:
            _log.warning("a bundle comes again, since what failed of it cannot be published alone: %s", error)
            return bundle.word
        return b""


def _note(bundle: _Bundle, part: Incoming, word: bytes) -> None:
    body = b"" if CLAIM in part.headers else part.data  # what was fetched since waits in the object store for the next
    bundle.failed.append(Wire(part.subject, body, dict(part.headers)))
    if word == ALONE:
        bundle.apart = True
        word = _NAK
    bundle.word = word
