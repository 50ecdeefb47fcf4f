"""Which deployment a call asks next, after how long a wait, and when it gives up: pure, told of times and failures.

A failure that may pass sends the call to the next deployment at once; only when all have failed does it wait, as long
as the one wants that is free first. What the error says of the request itself ends the call, since all others would say
the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from paracle_domain.errors import ContentRefused, ContextExceeded, Forbidden, InvalidInput, NotFound, ParacleError
from paracle_provider_gateway.faults import DeploymentFailed
from paracle_provider_gateway.plans import Deployment
from paracle_provider_gateway.retries import RetryPolicy


class Verdict(Enum):
    """What a failure means for the rest of a call."""

    END = auto()
    """Everybody would say the same."""
    ELSEWHERE = auto()
    """This deployment does not answer this call; others may."""
    LONGER = auto()
    """A deployment that reads more may answer."""
    AGAIN = auto()
    """It may pass: others at once, this one later."""


def verdict(error: ParacleError) -> Verdict:
    """What `error` means for the rest of its call."""
    match error:
        case ContextExceeded():
            return Verdict.LONGER
        case ContentRefused():
            return Verdict.END
        case DeploymentFailed() | Forbidden() | NotFound() | InvalidInput():
            # it may not be connected to, there is no key or model, or its adapter cannot say such a thing in its API
            return Verdict.ELSEWHERE
        case _ if error.retryable:
            return Verdict.AGAIN
        case _:
            return Verdict.END


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the request to this deployment."""

    deployment: Deployment


@dataclass(frozen=True, slots=True)
class Wait:
    """Nobody can be asked before this time, because of the error."""

    until: float
    error: ParacleError


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody is left to ask."""

    error: ParacleError


type Step = Ask | Wait | GiveUp


@dataclass(slots=True)
class _Place:
    """How one deployment stands with this call."""

    deployment: Deployment
    failures: int = 0
    refusals: int = 0
    free_at: float = -math.inf


class Walk:
    """The way of one call over `order`: one deployment at least, none twice."""

    def __init__(self, order: Sequence[Deployment], retry: RetryPolicy) -> None:
        self._places = [_Place(deployment) for deployment in order]
        self._retry = retry
        self._left = max(retry.attempts, len(order))
        self._error: ParacleError | None = None

    def step(self, now: float) -> Step:
        """What to do now: of those who are free, ask the one that failed least, and of these the first."""
        if self._error is not None and (self._left <= 0 or not self._places):
            return GiveUp(self._error)
        if (free := self._free(now)) is not None:
            return Ask(free)
        assert self._error is not None, "all are free at first"
        return Wait(min(place.free_at for place in self._places), self._error)

    @property
    def left(self) -> int:
        """How many requests may still be sent."""
        return self._left

    def besides(self, deployment: Deployment, now: float) -> Deployment | None:
        """Who else can be asked now."""
        return self._free(now, but=deployment)

    def failed(self, deployment: Deployment, error: ParacleError, now: float, draw: float) -> None:
        """A request to `deployment` was sent and failed. `draw` is from [0, 1)."""
        self._left -= 1
        self._note(error)
        match verdict(error):
            case Verdict.END:
                self._places.clear()
                self._error = error
            case Verdict.ELSEWHERE:
                self._drop(deployment)
            case Verdict.LONGER:
                self._places = [place for place in self._places if _reads_more(place.deployment, deployment)]
            case Verdict.AGAIN:
                place = self._place(deployment)
                place.failures += 1
                place.free_at = now + self._retry.pause(place.failures, error.retry_after_s, draw)
            case unreachable:
                assert_never(unreachable)

    def full(self, deployment: Deployment, error: ParacleError, now: float, draw: float) -> None:
        """A limit that `deployment` shares with others is used up, so nothing was sent."""
        self._note(error)
        self._place(deployment).free_at = now + self._retry.pause(1, error.retry_after_s, draw)

    def resting(self, deployment: Deployment, error: ParacleError, now: float, draw: float) -> None:
        """`deployment` is left in peace for a while, so nothing was sent; nor is that waited for without end."""
        self.full(deployment, error, now, draw)
        place = self._place(deployment)
        place.refusals += 1
        if place.refusals >= self._retry.attempts or not error.retryable:
            self._drop(deployment)

    def _free(self, now: float, but: Deployment | None = None) -> Deployment | None:
        best: _Place | None = None
        for place in self._places:
            if place.free_at > now or place.deployment is but:
                continue
            if best is None or place.failures < best.failures:
                best = place
        return None if best is None else best.deployment

    def _place(self, deployment: Deployment) -> _Place:
        return next(place for place in self._places if place.deployment is deployment)

    def _drop(self, deployment: Deployment) -> None:
        self._places = [place for place in self._places if place.deployment is not deployment]

    def _note(self, error: ParacleError) -> None:
        """Keep the error that the caller can do most about: one that may pass, and of these the latest."""
        if self._error is None or error.retryable or not self._error.retryable:
            self._error = error


def _reads_more(one: Deployment, other: Deployment) -> bool:
    """Whether `one` is known to read more than `other`, in which something did not fit."""
    mine, others = one.capabilities.context_tokens, other.capabilities.context_tokens
    return one is not other and mine is not None and (others is None or mine > others)
