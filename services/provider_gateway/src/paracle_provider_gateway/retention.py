"""What ledger and cache need not keep any longer goes, a batch at a time: `round` is that of a `Background`."""

from __future__ import annotations

from typing import Final, Protocol

BATCH: Final = 1_000
EVERY_S: Final = 60.0
_AGAIN_S: Final = 0.1


class Archive(Protocol):
    """The past of the ledger and of the cache."""

    async def drop_attempts(self, older_s: float, most: int) -> int:
        """Forget up to `most` attempts that ended so long ago; how many there were."""

    async def drop_answers(self, most: int) -> int:
        """Drop up to `most` kept answers that have expired; how many there were."""

    async def drop_counters(self) -> None:
        """Forget what was counted in days and months that are long over."""


class Retention:
    """Keeps attempts for `keep_s` seconds (`None`: for ever), and counts of windows that are over for two months."""

    def __init__(self, archive: Archive, keep_s: float | None) -> None:
        self._archive = archive
        self._keep_s = keep_s

    async def round(self) -> float | None:
        """One batch; the seconds to the next, if there is one."""
        if self._keep_s is not None and await self._archive.drop_attempts(self._keep_s, BATCH) == BATCH:
            return _AGAIN_S
        if await self._archive.drop_answers(BATCH) == BATCH:
            return _AGAIN_S
        await self._archive.drop_counters()
        return None
