"""What ledger and cache need not keep any longer goes, a batch at a time: `round` is that of a `Background`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from paracle_domain.errors import DeadlineExceeded, ParacleError, Unavailable

_log = logging.getLogger(__name__)

BATCH: Final = 1_000
COUNTS: Final = 100
EVERY_S: Final = 60.0
_AGAIN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class IdleCount:
    """A count of a run or of one of its tasks that was not used for long; without a run, it is of a task alone."""

    id: UUID
    tenant: str
    run_id: str | None


class Archive(Protocol):
    """The past of the ledger and of the cache."""

    async def drop_attempts(self, older_s: float, most: int) -> int:
        """Forget up to `most` attempts that ended so long ago; how many there were."""

    async def drop_answers(self, beyond: int, most: int) -> int:
        """Drop about `most` answers that have expired, or are `beyond` so many of a tenant; how many there were."""

    async def drop_counters(self) -> None:
        """Forget what was counted in days and months that are long over."""

    async def idle_counts(self, older_s: float, most: int) -> Sequence[IdleCount]:
        """Up to `most` counts of budgets for each run or task that were used last so long ago."""

    async def keep_counts(self, ids: Sequence[UUID]) -> None:
        """Take these for used just now."""

    async def drop_counts(self, ids: Sequence[UUID], older_s: float) -> None:
        """Forget these, but for those that were used since."""


class Runs(Protocol):
    """Knows the runs of tenants."""

    async def has_ended(self, tenant: str, run_id: str) -> bool:
        """Whether nothing is done for it any more; raises `Unavailable` or `DeadlineExceeded` if nobody can say."""


@dataclass(frozen=True, slots=True)
class Keep:
    """For how many seconds attempts are kept after their end (`None`: for ever), and counts after their last use.

    `answers`: about how many cached answers of a tenant are kept, the newest.
    """

    attempts_s: float | None
    counts_s: float
    answers: int


class Retention:
    """Keeps attempts, counts and answers as `keep` says, and counts of windows that are over for two months.

    A run that still goes on keeps its counts however long it has rested: forgotten, they would begin at nothing.
    """

    def __init__(self, archive: Archive, runs: Runs, keep: Keep) -> None:
        self._archive = archive
        self._runs = runs
        self._keep = keep

    async def round(self) -> float | None:
        """One batch; the seconds to the next, if there is one."""
        keep_s = self._keep.attempts_s
        if keep_s is not None and await self._archive.drop_attempts(keep_s, BATCH) == BATCH:
            return _AGAIN_S
        if await self._archive.drop_answers(self._keep.answers, BATCH) >= BATCH:
            return _AGAIN_S
        await self._archive.drop_counters()
        return _AGAIN_S if await self._drop_counts() == COUNTS else None

    async def _drop_counts(self) -> int:
        idle = await self._archive.idle_counts(self._keep.counts_s, COUNTS)
        of_run: dict[tuple[str, str | None], list[UUID]] = {}
        for one in idle:
            of_run.setdefault((one.tenant, one.run_id), []).append(one.id)
        for (tenant, run_id), ids in of_run.items():
            if run_id is None or await self._has_ended(tenant, run_id):
                await self._archive.drop_counts(ids, self._keep.counts_s)
            else:
                await self._archive.keep_counts(ids)
        return len(idle)

    async def _has_ended(self, tenant: str, run_id: str) -> bool:
        """A run that cannot be read keeps its counts: it is asked about again when as much time has passed again."""
        try:
            return await self._runs.has_ended(tenant, run_id)
        except (Unavailable, DeadlineExceeded):
            raise
        except ParacleError:
            _log.exception("whether run %s of %s has ended cannot be found out", run_id, tenant)
            return False
