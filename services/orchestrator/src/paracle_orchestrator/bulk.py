"""Orders to many runs: `cancel_runs` and `resume_runs`.

The order is walked through the list of runs, page by page, and each run gets what it would get from an order of its
own, caused by `{order}.{run}`. Once it is answered, every run that it found has been told, and that is committed.

It stays unacked until then, beside the mailbox. After a crash it comes again and is walked again: a run that was told
already is not told twice. It means the runs that were there when it was given, so those that begin later are left alone
however late it is carried out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from paracle_chassis.delivery import Delivery
from paracle_domain.envelope import Context
from paracle_domain.errors import InvalidInput
from paracle_domain.exactness import require_known
from paracle_domain.run.commands import (
    TERMINAL_RUN,
    CancelRun,
    CancelRuns,
    ResumeRuns,
    RunFilter,
    RunsAccepted,
    RunStatus,
)
from paracle_domain.run.inbox import Cancel, Resume, RunMessage
from paracle_orchestrator.beside import Beside
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.mail import Mail
from paracle_orchestrator.ports import RunIndex

PAGE: Final = 500
CANCELLABLE: Final = tuple(sorted(set(RunStatus) - TERMINAL_RUN - {RunStatus.CANCELLING}))
_CLOCKS_DIFFER: Final = timedelta(seconds=2)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Order:
    """An order that was understood: which runs, how those stand that it is for, and what each is told."""

    command: CancelRuns | ResumeRuns
    statuses: tuple[RunStatus, ...]
    message: Callable[[str], RunMessage]

    @property
    def wanted(self) -> RunFilter:
        asked = self.command.filter.statuses
        chosen = tuple(status for status in self.statuses if not asked or status in asked)
        return self.command.filter.model_copy(update={"statuses": chosen})


def _cancels(delivery: Delivery) -> _Order:
    command = delivery.decode(CancelRuns)
    principal = delivery.envelope.context.principal
    return _Order(
        command, CANCELLABLE, lambda run_id: Cancel(principal, CancelRun(run_id=run_id, reason=command.reason))
    )


def _resumes(delivery: Delivery) -> _Order:
    command = delivery.decode(ResumeRuns)
    principal = delivery.envelope.context.principal
    return _Order(command, (RunStatus.PAUSED,), lambda _: Resume(principal, command.reason))


_READERS: Final[Mapping[str, Callable[[Delivery], _Order]]] = {
    CancelRuns.verb: _cancels,
    ResumeRuns.verb: _resumes,
}


def is_bulk(delivery: Delivery) -> bool:
    """Whether `delivery` is an order to many runs."""
    return delivery.subject.rpartition(".")[2] in _READERS


class BulkOrders:
    """Carries out orders to many runs; `beside` is a resource of the service."""

    def __init__(self, index: RunIndex, host: RunHost) -> None:
        self.beside = Beside()
        self._index = index
        self._host = host

    def take(self, delivery: Delivery) -> None:
        """Carry out `delivery`, whose settlement is no longer the mailbox's."""
        _ = self.beside.take(delivery, lambda: self._obey(delivery))

    async def _obey(self, delivery: Delivery) -> RunsAccepted:
        order = _READERS[delivery.subject.rpartition(".")[2]](delivery)
        require_known(delivery.body, order.command)
        if order.command.filter == RunFilter():
            raise InvalidInput("say which runs; for all of them, give the statuses that they may have", path="filter")
        return RunsAccepted(count=await self._walk(delivery, order) if order.wanted.statuses else 0)

    async def _walk(self, delivery: Delivery, order: _Order) -> int:
        """Tell every run that `order` finds; how many those are."""
        context = delivery.envelope.context
        wanted = _given_by(order.wanted, datetime.fromtimestamp(delivery.stored_ns / 1e9, UTC) + _CLOCKS_DIFFER)
        count, cursor = 0, None
        while True:
            page = await self._index.page(context.tenant, wanted, PAGE, cursor)
            count += len(page.runs)
            if page.runs and not order.command.dry_run:
                mail = [_mail(delivery, run.run_id, order, context) for run in page.runs]
                count -= _left((await self._host.handle(mail)).broken)
            if page.next_cursor is None:
                return count
            cursor = page.next_cursor


def _left(broken: Mapping[str, Exception]) -> int:
    """How many runs cannot be told anything; the others are, and their number says that it was not all."""
    for run_id, error in broken.items():
        log.error("run %s cannot be told of an order to many runs", run_id, exc_info=error)
    return len(broken)


def _given_by(wanted: RunFilter, time: datetime) -> RunFilter:
    """Those of `wanted` that had begun by `time`."""
    before = wanted.created_before
    return wanted.model_copy(update={"created_before": time if before is None else min(before, time)})


def _mail(delivery: Delivery, run_id: str, order: _Order, context: Context) -> Mail:
    cause = f"{delivery.envelope.id}.{run_id}"
    return Mail(run_id, cause, order.message(run_id), context, redelivered=delivery.again)
