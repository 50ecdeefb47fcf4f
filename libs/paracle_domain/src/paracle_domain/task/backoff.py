"""How long a task waits before it tries again."""

from __future__ import annotations

from typing import Final

from paracle_domain.task.fingerprints import fingerprint

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 15.0


def pause_s(name: str, tried: int) -> float:
    """Seconds until the try after `tried` others: exponential, varied by ± half.

    The variation follows from `name`, that of the try, so it is the same in a replay.
    """
    share = int(fingerprint(name, {})[:8], 16) / 0xFFFF_FFFF
    return min(_FIRST_WAIT_S * 2.0**tried, _LONGEST_WAIT_S) * (0.5 + share)
