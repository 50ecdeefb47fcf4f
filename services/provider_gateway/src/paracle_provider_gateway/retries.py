"""How long a failed request waits before it is sent again: jittered, and as the provider asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter: the n-th pause is drawn from 0 to `base_s` · 2ⁿ⁻¹, at most `cap_s`.

    `attempts` bounds the requests that one call sends, over all its routes; but each route is asked once.
    """

    attempts: int = 4
    base_s: float = 0.5
    cap_s: float = 20.0

    def pause(self, nth: int, asked_s: float | None, draw: float) -> float:
        """Seconds to wait after the `nth` failure (from 1).

        `draw` is from [0, 1). What the provider asks for (`asked_s`, its Retry-After) is waited for at least, with the
        jitter on top, so that callers who were turned away together do not come back together.
        """
        return draw * min(self.cap_s, self.base_s * 2.0 ** (nth - 1)) + (asked_s or 0.0)
