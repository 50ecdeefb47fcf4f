"""Stops calls to a deployment that fails, and finds it again when it heals. Pure.

    closed      calls go; `failures` of them within `window_s`, at least as many as successes besides: open
    open        none goes for a while, twice as long each time in a row
    half open   one goes, the probe: its success closes the breaker, its failure opens it again

Source: Nygard, Release It!, 2nd edition, 2018 (Circuit Breaker).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from paracle_domain.inference.response import BreakerState


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When breakers open, and for how long."""

    failures: int = 5
    window_s: float = 30.0
    cooldown_s: float = 5.0
    longest_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """How a deployment that failed of late is treated.

    Attributes
    ----------
    recent
        The latest failures while closed, at most `rules.failures`: when, and how many successes there were before.
    successes
        While closed, since the first of all its failures.
    trips
        How often in a row it opened; 0 while closed.
    rests_till
        When the present rest is over.
    probing
        Whether a probe is under way.
    """

    rules: BreakerRules = field(default_factory=BreakerRules)
    recent: tuple[tuple[float, int], ...] = ()
    successes: int = 0
    trips: int = 0
    rests_till: float = 0.0
    probing: bool = False

    def state(self, now: float) -> BreakerState:
        if not self.trips:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.rests_till else BreakerState.HALF_OPEN

    def may_go(self, now: float) -> bool:
        """Whether a call may go now; in half open it is the probe, of which `probe` is to be told."""
        return not self.trips or (now >= self.rests_till and not self.probing)

    def probe(self) -> Breaker:
        """The probe is under way."""
        return replace(self, probing=True)

    def succeeded(self, *, probe: bool) -> Breaker:
        """A call succeeded. What began before the breaker opened says nothing about now."""
        if probe:
            return Breaker(self.rules)
        return self if self.trips else replace(self, successes=self.successes + 1)

    def failed(self, now: float, *, probe: bool) -> Breaker:
        """A call failed."""
        if probe:
            return self._opened(now)
        if self.trips:
            return self
        recent = (*self.recent, (now, self.successes))[-self.rules.failures :]
        return self._opened(now) if self._are_too_many(recent, now) else replace(self, recent=recent)

    def gave_up(self, *, probe: bool) -> Breaker:
        """A call ended without saying anything about the deployment."""
        return replace(self, probing=False) if probe else self

    def is_idle(self, now: float) -> bool:
        """Whether nothing is left to remember."""
        return not self.trips and (not self.recent or now - self.recent[-1][0] > self.rules.window_s)

    def _are_too_many(self, recent: tuple[tuple[float, int], ...], now: float) -> bool:
        first_at, before = recent[0]
        enough = len(recent) == self.rules.failures and now - first_at <= self.rules.window_s
        return enough and self.successes - before <= self.rules.failures

    def _opened(self, now: float) -> Breaker:
        rest = min(self.rules.longest_s, self.rules.cooldown_s * 2.0 ** min(self.trips, 20))
        return Breaker(self.rules, trips=self.trips + 1, rests_till=now + rest)
