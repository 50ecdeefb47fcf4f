"""How quick deployments were of late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from paracle_provider_gateway.plans import DeploymentKey

_NEWS: Final = 0.2
_HALF_LIFE_S: Final = 60.0
_KEPT: Final = 4096


@dataclass(slots=True)
class _Estimate:
    seconds: float
    at: float


class Latencies:
    """An exponentially weighted mean for each deployment, apart for first pieces of streams and for whole answers.

    Without news an estimate halves every minute, so that a deployment that was slow once is tried again some day.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[DeploymentKey, bool], _Estimate] = {}

    def observe(self, key: DeploymentKey, seconds: float, now: float, *, streamed: bool) -> None:
        """An attempt took `seconds` to its first piece, if it was streamed, or to its end."""
        found = self._known.get((key, streamed))
        if found is not None:
            found.seconds += _NEWS * (seconds - found.seconds)
            found.at = now
            return
        if len(self._known) >= _KEPT:  # callers name models, so they are no bounded set
            self._known.clear()
        self._known[key, streamed] = _Estimate(seconds, now)

    def estimate(self, key: DeploymentKey, now: float, *, streamed: bool) -> float | None:
        """What to expect; `None` if it was never asked."""
        found = self._known.get((key, streamed))
        return None if found is None else found.seconds * 0.5 ** ((now - found.at) / _HALF_LIFE_S)
