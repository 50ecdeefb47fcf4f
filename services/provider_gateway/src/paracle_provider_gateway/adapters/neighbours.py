"""Replicas of the gateway among themselves, over core NATS: whether one has a call, and what came of it.

Each answers on a subject of its own. That nobody listens there, NATS says at once; but so it does while a replica is
only finding its way back to NATS, with the call in the air. So its signs of life in PostgreSQL must be missing, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Self

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from pydantic import TypeAdapter

from paracle_chassis.frames import flushed
from paracle_chassis.nats_bus import NatsBus
from paracle_domain import subjects
from paracle_domain.errors import Conflict, Unavailable, quote
from paracle_domain.inference.response import Completion
from paracle_provider_gateway.calls import CallKey, CallTable, made_before
from paracle_provider_gateway.ports import Answer, Held

_log = logging.getLogger(__name__)

_SERVICE: Final = "provider_gateway_replica"
_IN_AIR: Final = b"air"
_UNKNOWN: Final = b"unknown"
_OTHER: Final = b"other"
_HELD: Final = b"!"
"""Begins the mark of an answer that guards have not let out yet."""
_PATIENCE_S: Final = 2.0
_LOOK_S: Final = 0.25
_MISSED_S: Final = 0.5
PIECE: Final = 512 * 1024
"""An answer is told in pieces of so many bytes, of which one that is shorter is the last.

Before each stands a line, its answer's mark, since guards may let out another one between two pieces.
"""
_ANSWER: Final = TypeAdapter[Answer](Answer)


class NatsNeighbours:
    """A resource: answers others about the calls of this replica, and asks them about theirs.

    `is_gone` knows which replicas show no sign of life any more.
    """

    def __init__(self, bus: NatsBus, replica: str, calls: CallTable, is_gone: Callable[[str], Awaitable[bool]]) -> None:
        self._bus = bus
        self._replica = replica
        self._calls = calls
        self._is_gone = is_gone
        self._subscription: Subscription | None = None

    async def answer(self, replica: str, tenant: str, call_id: str, fingerprint: bytes) -> Answer | Held | None:
        """See `Neighbours.answer`."""
        subject, mark, body = subjects.rpc(tenant, _SERVICE, replica), b"", b""
        while True:
            question = f"{call_id} {fingerprint.hex()} {len(body)}".encode()
            try:
                said = await self._bus.link.client.request(subject, question, timeout=_PATIENCE_S)
            except NoRespondersError:
                if await self._is_gone(replica):
                    return None
                await asyncio.sleep(_MISSED_S)  # not longer than the call has time: its caller sees to that
                continue
            except (NatsError, OSError, TimeoutError) as error:
                what = (
                    f"call {call_id!r} is at another replica of the provider gateway, which does not answer; ask again"
                )
                raise Unavailable(what) from error
            if said.data == _UNKNOWN:
                return None
            if said.data == _OTHER:
                raise made_before(call_id)
            if said.data == _IN_AIR:
                await asyncio.sleep(_LOOK_S)
                continue
            told, _, piece = said.data.partition(b"\n")
            if body and told != mark:
                body = b""
                continue
            mark, body = told, body + piece
            if len(piece) < PIECE:
                return _read(mark, body)

    async def __aenter__(self) -> Self:
        subject = subjects.rpc(subjects.ANY, _SERVICE, self._replica)
        self._subscription = await self._bus.link.client.subscribe(subject, cb=self._tell)
        await flushed(self._bus.link.client)  # from here on it is not taken for one that is away
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._subscription is not None and self._bus.link.client.is_connected:
            await self._subscription.unsubscribe()

    async def _tell(self, message: Msg) -> None:
        if not subjects.takes_answers(message.reply):  # tenants may ask here as well, and know the replica's name
            _log.warning("refused a question on %s: no answer may go to %s", message.subject, quote(message.reply))
            return
        call_id, fingerprint, had = message.data.decode().split(" ")
        key = (subjects.tenant_of(message.subject), call_id)
        try:
            word = self._word(key, bytes.fromhex(fingerprint), int(had))
        except Conflict:
            word = _OTHER
        await message.respond(word)

    def _word(self, key: CallKey, fingerprint: bytes, had: int) -> bytes:
        """How the call stands; of its answer, what comes after the first `had` bytes."""
        if self._calls.has(key, fingerprint):
            return _IN_AIR
        if (landed := self._calls.landed(key, fingerprint)) is None:
            return _UNKNOWN
        mark = b"%b%r" % (b"" if landed.is_out else _HELD, landed.landed_at)
        piece: bytes = landed.answer.encode()[had : had + PIECE]
        return mark + b"\n" + piece


def _read(mark: bytes, body: bytes) -> Answer | Held:
    found = _ANSWER.validate_json(body)
    return Held(found) if mark.startswith(_HELD) and isinstance(found, Completion) else found
