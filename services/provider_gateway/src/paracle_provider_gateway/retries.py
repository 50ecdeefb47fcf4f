"""When a failed request is sent again: only if the error may pass, after a jittered wait."""

from __future__ import annotations

from dataclasses import dataclass

from paracle_domain.errors import ParacleError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter: the n-th wait is drawn from 0 to `base_s` · 2ⁿ⁻¹, at most `cap_s`."""

    attempts: int = 4
    base_s: float = 0.5
    cap_s: float = 20.0

    def wait_after(self, attempt: int, error: ParacleError, draw: float) -> float | None:
        """Seconds to wait after the failed `attempt` (from 1), or `None` to give up.

        `draw` is from [0, 1). What the provider asks for (`Retry-After`) is waited for at least, with the jitter on
        top, so that callers who were turned away together do not come back together.
        """
        if not error.retryable or attempt >= self.attempts:
            return None
        jitter = draw * min(self.cap_s, self.base_s * 2.0 ** (attempt - 1))
        return jitter + (error.retry_after_s or 0.0)
