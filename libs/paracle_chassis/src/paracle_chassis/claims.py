"""Claim check: a large body waits in the object store while a small message with its name travels."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping
from typing import Final

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from paracle_chassis import provisioning, topology
from paracle_chassis.bus import CLAIM_THRESHOLD, PAYLOAD_LIMIT
from paracle_chassis.link import Link
from paracle_domain.envelope import CLAIM
from paracle_domain.errors import MalformedMessage, PayloadTooLarge, Unavailable

_NOT_THERE: Final = (
    "its payload {name} is no longer in the object store, where payloads are kept for {days} days; send it again"
)
_DAMAGED: Final = "its payload {name} is not what was put into the object store; send it again"


class Claims:
    """Puts large bodies away and fetches them again."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._store: ObjectStore | None = None

    async def check_in(self, body: bytes, headers: dict[str, str]) -> bytes:
        """The body to send instead of `body`; `headers` get the claim if it was put away."""
        if len(body) <= CLAIM_THRESHOLD:
            return body
        if len(body) > PAYLOAD_LIMIT:
            raise PayloadTooLarge(
                f"a payload of {len(body):,} bytes is over the limit of {PAYLOAD_LIMIT:,}; "
                "pass a reference to it instead"
            )
        name = uuid.uuid4().hex
        await self._put(name, body)
        headers[CLAIM] = name
        return b""

    async def check_out(self, body: bytes, headers: Mapping[str, str] | None) -> bytes:
        """The body that was meant.

        Raises
        ------
        MalformedMessage
            If its payload is gone, or not what was put away.
        Unavailable
            If the object store does not answer.
        """
        name = headers.get(CLAIM) if headers else None
        if name is None:
            return body
        try:
            return await self._get(name)
        except NotFoundError as error:
            raise MalformedMessage(_NOT_THERE.format(name=name, days=topology.CLAIMS_TTL_S // 86_400)) from error
        except (NatsError, TimeoutError) as error:
            raise Unavailable(f"cannot fetch payload {name}: {type(error).__name__}; trying again may help") from error

    async def _get(self, name: str) -> bytes:
        """The payload `name`, asked for piece by piece.

        The store's own `get` has the pieces pushed, and waits without an end for those that never come: because they
        are gone, or were sent over a connection that was just lost.
        """
        found = await (await self._bucket()).get_info(name)
        stream, subject = f"OBJ_{topology.CLAIMS_BUCKET}", f"$O.{topology.CLAIMS_BUCKET}.C.{found.nuid}"
        jetstream, place = self._link.jetstream, 0
        pieces: list[bytes] = []
        digest = hashlib.sha256()
        for _ in range(found.chunks or 0):
            piece = await jetstream.get_msg(stream, place + 1, subject, next=True)
            place = piece.seq or place
            pieces.append(piece.data or b"")
            digest.update(pieces[-1])
        if (found.digest or "").partition("=")[2] != base64.urlsafe_b64encode(digest.digest()).decode():
            raise MalformedMessage(_DAMAGED.format(name=name))
        return b"".join(pieces)

    async def _put(self, name: str, body: bytes) -> None:
        for last in (False, True):
            try:
                await (await self._bucket()).put(name, body)
            except (NatsError, TimeoutError) as error:
                self._store = None  # the bucket may have been deleted: the second try makes it anew
                if last:
                    raise Unavailable(f"cannot put a payload of {len(body):,} bytes away: {error}") from error
            else:
                return

    async def _bucket(self) -> ObjectStore:
        if self._store is None:
            jetstream = self._link.jetstream
            try:
                self._store = await jetstream.object_store(topology.CLAIMS_BUCKET)
            except NotFoundError:
                await provisioning.ensure_bucket(self._link.client, self._link.durability)
                self._store = await jetstream.object_store(topology.CLAIMS_BUCKET)
        return self._store
