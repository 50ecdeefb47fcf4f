"""Each call once: joins callers of a call that is in the air, keeps finished answers for a while, aborts.

What a model answered is paid for, so it is kept, too, if the call failed after that: `held` until guards let it out.
The table is one replica's. The ledger knows which replica has a call, and other replicas ask that one for its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from paracle_chassis.rpc_server import MOST_LONG
from paracle_domain.errors import Cancelled, Conflict, RateLimited, Unavailable
from paracle_domain.inference.embedding import Embeddings
from paracle_domain.inference.response import Completion
from paracle_provider_gateway.ports import Answer

_MOST_CHARACTERS: Final = 32 * 1024 * 1024

MOST_OF_TENANT: Final = MOST_LONG * 3 // 4
"""So many calls of one tenant are in the air at most, those that wait included: the others' are still taken in hand."""
_COME_BACK_S: Final = 1.0

type CallKey = tuple[str, str]
"""Tenant and call id."""

type Work = Callable[[], Coroutine[Any, Any, Answer]]


@dataclass(slots=True)
class _Flight:
    """A call in the air."""

    fingerprint: bytes
    task: asyncio.Task[Answer]
    abort_reason: str | None = None
    held: Completion | None = None


@dataclass(slots=True)
class Landed:
    """What came of one. Its task, and what that holds, has gone: thousands are kept.

    `is_out`: the answer is the call's; otherwise it is what a model said, and nobody has it yet. `landed_at` tells it
    from what came of the call before.
    """

    fingerprint: bytes
    answer: Answer
    landed_at: float
    is_out: bool = True

    @property
    def characters(self) -> int:
        """Of the vectors in it: a thousand times that of words."""
        return sum(map(len, self.answer.vectors)) if isinstance(self.answer, Embeddings) else 0


class CallTable:
    """Calls by tenant and id.

    Parameters
    ----------
    keep_s
        How long finished answers, and the memory of aborts, are kept.
    limit
        Most answers (and most aborts) that are kept; the oldest go first. So do they where there are too many vectors
        among them.
    most_of_tenant
        Most calls of one tenant that are in the air.
    """

    def __init__(
        self,
        *,
        keep_s: float = 300.0,
        limit: int = 2048,
        most_of_tenant: int = MOST_OF_TENANT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keep_s = keep_s
        self._limit = limit
        self._most_of_tenant = most_of_tenant
        self._of_tenant = Counter[str]()
        self._clock = clock
        self._in_air: dict[CallKey, _Flight] = {}
        self._most_in_air = 0
        self._landed: OrderedDict[CallKey, Landed] = OrderedDict()
        self._characters = 0
        self._aborted: OrderedDict[CallKey, tuple[float, str]] = OrderedDict()

    async def once(self, key: CallKey, fingerprint: bytes, work: Work) -> Answer:
        """The answer of the call `key`: the one that is kept, the one in the air, or else what `work` gives.

        A caller that goes away does not stop the call; `abort` does. Failures are not kept.

        Raises
        ------
        Conflict
            If `key` was used for a request with another `fingerprint`.
        Cancelled
            If the call was aborted, even before it arrived.
        RateLimited
            If its tenant has too many calls in the air.
        """
        self.forget()
        if key in self._aborted:
            raise Cancelled(self._aborted[key][1])
        if (known := self.kept(key, fingerprint)) is not None:
            return known
        flight = self._in_air.get(key) or self._take_off(key, fingerprint, work)
        return await self._land(_same(flight, fingerprint, key))

    def abort(self, key: CallKey, reason: str) -> bool:
        """Stop the call `key`, or refuse it if it arrives later. Whether it was in the air here."""
        self._aborted[key] = (self._clock(), reason)
        while len(self._aborted) > self._limit:
            self._aborted.popitem(last=False)
        flight = self._in_air.get(key)
        if flight is None:
            return False
        flight.abort_reason = reason
        return flight.task.cancel()

    def has(self, key: CallKey, fingerprint: bytes) -> bool:
        """Whether the call is in the air here; raises `Conflict` as `once` does."""
        flight = self._in_air.get(key)
        return flight is not None and _same(flight, fingerprint, key) is flight

    def kept(self, key: CallKey, fingerprint: bytes) -> Answer | None:
        """The answer of the call, if it is kept; raises `Conflict` as `once` does."""
        landed = self.landed(key, fingerprint)
        return landed.answer if landed is not None and landed.is_out else None

    def landed(self, key: CallKey, fingerprint: bytes) -> Landed | None:
        """What came of the call, out or not; raises `Conflict` as `once` does."""
        landed = self._landed.get(key)
        return None if landed is None else _same(landed, fingerprint, key)

    def hold(self, key: CallKey, answer: Completion) -> None:
        """Keep what a model answered to a call in the air, in case that the call fails before anybody has it."""
        self._in_air[key].held = answer

    def held(self, key: CallKey, fingerprint: bytes) -> Completion | None:
        """What a model answered to the call, if nobody has it yet; raises `Conflict` as `once` does."""
        flight = self._in_air.get(key)
        if flight is not None and flight.held is not None:
            return _same(flight, fingerprint, key).held
        landed = self.landed(key, fingerprint)
        if landed is None or landed.is_out:
            return None
        assert isinstance(landed.answer, Completion)
        return landed.answer

    @property
    def in_air(self) -> int:
        """How many calls are in the air."""
        return len(self._in_air)

    def most_in_air(self) -> int:
        """How many calls were in the air at once since this was asked last."""
        most, self._most_in_air = self._most_in_air, len(self._in_air)
        return most

    async def close(self) -> None:
        """Stop everything that is in the air."""
        tasks = [flight.task for flight in self._in_air.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_off(self, key: CallKey, fingerprint: bytes, work: Work) -> _Flight:
        tenant, _ = key
        if self._of_tenant[tenant] >= self._most_of_tenant:
            what = f"{self._most_of_tenant:,} model calls of tenant {tenant} are in the air or wait; ask again later"
            raise RateLimited(what, retry_after_s=_COME_BACK_S)
        self._of_tenant[tenant] += 1
        flight = _Flight(fingerprint, asyncio.create_task(work(), name=f"call {key[1]}"))
        self._in_air[key] = flight
        self._most_in_air = max(self._most_in_air, len(self._in_air))
        flight.task.add_done_callback(lambda task: self._landed_or_lost(key, flight, task))
        return flight

    def _landed_or_lost(self, key: CallKey, flight: _Flight, task: asyncio.Task[Answer]) -> None:
        del self._in_air[key]
        self._of_tenant[key[0]] -= 1
        if not self._of_tenant[key[0]]:
            del self._of_tenant[key[0]]
        failed = task.cancelled() or task.exception() is not None
        answer = flight.held if failed else task.result()
        if answer is None:
            return
        if key in self._landed:  # what was held, and is out now or held again
            self._drop(key)
        landed = Landed(flight.fingerprint, answer, self._clock(), is_out=not failed)
        self._landed[key] = landed
        self._characters += landed.characters
        while len(self._landed) > self._limit or self._characters > _MOST_CHARACTERS:
            self._drop(next(iter(self._landed)))

    async def _land(self, flight: _Flight) -> Answer:
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.abort_reason is not None:
                raise Cancelled(flight.abort_reason) from None
            if flight.task.cancelled():
                raise Unavailable("the provider gateway is shutting down; ask again") from None
            raise

    def forget(self) -> None:
        """Drop what was kept for long enough."""
        oldest = self._clock() - self._keep_s
        while self._landed and next(iter(self._landed.values())).landed_at < oldest:
            self._drop(next(iter(self._landed)))
        while self._aborted and next(iter(self._aborted.values()))[0] < oldest:
            self._aborted.popitem(last=False)

    def _drop(self, key: CallKey) -> None:
        self._characters -= self._landed.pop(key).characters


def _same[C: (_Flight, Landed)](call: C, fingerprint: bytes, key: CallKey) -> C:
    """`call`, if it is for a request of this `fingerprint`."""
    if call.fingerprint != fingerprint:
        raise made_before(key[1])
    return call


def made_before(call_id: str) -> Conflict:
    """The error of a call whose id is that of another request."""
    return Conflict(
        f"call {call_id!r} was made before with another request; give every call its own id", path="call_id"
    )
