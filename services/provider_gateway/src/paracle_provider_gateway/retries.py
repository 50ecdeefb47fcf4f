"""When a failed request is sent again: only if the error may pass, after a jittered wait, never past the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count

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


async def retried[T](
    work: Callable[[int], Awaitable[T]],
    policy: RetryPolicy,
    *,
    deadline: float,
    sleep: Callable[[float], Awaitable[None]],
    draw: Callable[[], float],
    on_retry: Callable[[ParacleError], None],
) -> T:
    """What `work(attempt)` returns, tried as often as `policy` allows.

    `deadline` is a time of the running event loop. A wait that would end after it is not begun: the error is raised at
    once, with its `retry_after_s`, so that the caller can do something better with the time. `on_retry` is told each
    error that is tried again.
    """
    for attempt in count(1):
        try:
            return await work(attempt)
        except ParacleError as error:
            wait = policy.wait_after(attempt, error, draw())
            if wait is None or asyncio.get_running_loop().time() + wait >= deadline:
                raise
            on_retry(error)
        await sleep(wait)
    raise AssertionError("count() does not end")
