"""What this replica knows of deployments: which it leaves in peace, for how long, and how quick they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakSet

from paracle_domain.errors import ParacleError, ProviderUnavailable, RateLimited
from paracle_domain.inference.response import BreakerState
from paracle_provider_gateway.breaker import Breaker, BreakerRules
from paracle_provider_gateway.faults import DeploymentFailed
from paracle_provider_gateway.latencies import Latencies
from paracle_provider_gateway.plans import Deployment, DeploymentKey
from paracle_provider_gateway.ports import Provider

_LOOK_AGAIN_S: Final = 1.0
"""After how long to ask anew whether the probe is back."""
_TROUBLES_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class Leave:
    """An attempt may be made; `probe`: the one that tells whether the deployment is well again."""

    probe: bool = False


@dataclass(frozen=True, slots=True)
class Resting:
    """No attempt may be made: the deployment is left in peace. `error` says why, and for about how long."""

    error: ParacleError


LEAVE: Final = Leave()
_PROBE: Final = Leave(probe=True)


@dataclass(slots=True)
class _Trouble:
    """A deployment that failed of late, or asked for a rest."""

    deployment: Deployment
    breaker: Breaker
    error: ParacleError
    asked_till: float = 0.0


class Health:
    """Breakers of deployments that failed of late, rests that their providers asked for, and latencies.

    `on_change` is told whenever a breaker opens, lets its probe go, or closes, with the latest error.
    """

    def __init__(
        self,
        rules: BreakerRules,
        on_change: Callable[[Deployment, BreakerState, ParacleError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.latencies = Latencies()
        self._rules = rules
        self._on_change = on_change
        self._clock = clock
        self._troubles: dict[DeploymentKey, _Trouble] = {}
        self._retired = WeakSet[Provider]()

    def retire(self, provider: Provider) -> None:
        """Another one took the place of `provider`: what calls still hear of it says nothing about that one."""
        self._retired.add(provider)
        for key in [key for key, trouble in self._troubles.items() if trouble.deployment.provider is provider]:
            trouble = self._troubles.pop(key)
            if trouble.breaker.trips:
                self._on_change(trouble.deployment, BreakerState.CLOSED, trouble.error)

    def ask_leave(self, deployment: Deployment) -> Leave | Resting:
        """Whether an attempt may be made now. Who gets leave tells how it ended, whatever it is."""
        trouble = self._known(deployment)
        if trouble is None:
            return LEAVE
        now = self._clock()
        if trouble.asked_till > now:
            return Resting(RateLimited(trouble.error.message, retry_after_s=trouble.asked_till - now))
        if not trouble.breaker.may_go(now):
            return Resting(_broken(trouble, now))
        if not trouble.breaker.trips:
            return LEAVE
        trouble.breaker = trouble.breaker.probe()
        self._on_change(deployment, BreakerState.HALF_OPEN, trouble.error)
        return _PROBE

    def answered(self, deployment: Deployment, leave: Leave) -> None:
        """The attempt succeeded."""
        trouble = self._known(deployment)
        if trouble is None:
            return
        trouble.breaker = trouble.breaker.succeeded(probe=leave.probe)
        if leave.probe:
            self._on_change(deployment, BreakerState.CLOSED, trouble.error)
        if self._is_over(trouble, self._clock()):
            del self._troubles[deployment.key]

    def failed(self, deployment: Deployment, leave: Leave, error: BaseException) -> None:
        """The attempt failed, or was stopped; what says nothing about the deployment counts for nothing."""
        if deployment.provider in self._retired:
            return
        match error:
            case RateLimited() if error.retry_after_s:
                trouble = self._trouble(deployment, error)
                trouble.asked_till = max(trouble.asked_till, self._clock() + error.retry_after_s)
                self.unused(deployment, leave)
            case ProviderUnavailable() | DeploymentFailed():
                self._count(self._trouble(deployment, error), leave)
            case _:
                self.unused(deployment, leave)

    def unused(self, deployment: Deployment, leave: Leave) -> None:
        """The attempt was not made after all, or tells nothing."""
        trouble = self._known(deployment)
        if leave.probe and trouble is not None:
            trouble.breaker = trouble.breaker.gave_up(probe=True)

    def state(self, deployment: Deployment) -> tuple[BreakerState, float, ParacleError | None]:
        """How the deployment's breaker stands, for how many seconds it is left in peace, and why."""
        trouble, now = self._troubles.get(deployment.key), self._clock()
        if trouble is None or self._is_over(trouble, now):
            return BreakerState.CLOSED, 0.0, None
        rests_till = max(trouble.asked_till, trouble.breaker.rests_till)
        return trouble.breaker.state(now), max(0.0, rests_till - now), trouble.error

    def _known(self, deployment: Deployment) -> _Trouble | None:
        """What is known of its troubles; of a provider that is retired there is nothing to be known any more."""
        if not self._troubles or deployment.provider in self._retired:
            return None
        return self._troubles.get(deployment.key)

    def _count(self, trouble: _Trouble, leave: Leave) -> None:
        before, now = trouble.breaker.trips, self._clock()
        trouble.breaker = trouble.breaker.failed(now, probe=leave.probe)
        if trouble.breaker.trips > before:
            self._on_change(trouble.deployment, BreakerState.OPEN, trouble.error)

    def _trouble(self, deployment: Deployment, error: ParacleError) -> _Trouble:
        trouble = self._troubles.get(deployment.key)
        if trouble is None:
            self._forget()
            trouble = self._troubles[deployment.key] = _Trouble(deployment, Breaker(self._rules), error)
        trouble.error = _told(deployment, error)
        return trouble

    def _forget(self) -> None:
        """Keep the number of troubles in bounds: models are named by callers."""
        if len(self._troubles) < _TROUBLES_KEPT:
            return
        now = self._clock()
        self._troubles = {key: found for key, found in self._troubles.items() if not self._is_over(found, now)}

    def _is_over(self, trouble: _Trouble, now: float) -> bool:
        return trouble.asked_till <= now and trouble.breaker.is_idle(now)


def _told(deployment: Deployment, error: ParacleError) -> ParacleError:
    """The error as others may hear of it: all tenants ask the operator's deployments, and it may quote a prompt."""
    if deployment.tenant is not None:
        return error
    return type(error)(f"{deployment.name}: {error.code}", retry_after_s=error.retry_after_s)


def _broken(trouble: _Trouble, now: float) -> ParacleError:
    rest = trouble.breaker.rests_till - now
    kind = ProviderUnavailable if trouble.error.retryable else DeploymentFailed
    what = f"{trouble.deployment.name} failed too often of late and is not asked just now; the last failure: "
    return kind(what + trouble.error.message, retry_after_s=rest if rest > 0 else _LOOK_AGAIN_S)
