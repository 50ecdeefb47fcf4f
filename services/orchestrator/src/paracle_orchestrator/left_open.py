"""Approvals that the list leaves open though their runs have ended.

A row is written after the commit that it tells of. A crash in between leaves that to the mail that comes again; where
the mail is lost too, with its stream, a run under way still shows its approvals as often as it asks. One that has ended
says nothing any more, so its approvals are looked up in its history, which is the truth; those of tool calls are not in
it, and are void, as whoever asked is no more.
"""

from __future__ import annotations

import logging
from typing import Final

from paracle_chassis import outages
from paracle_domain.envelope import Context
from paracle_domain.run.commands import WithdrawCall
from paracle_domain.run.orders import show_approval
from paracle_orchestrator.call_approvals import CallApprovals
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.ports import Approvals, Shown
from paracle_orchestrator.ticks import PRINCIPAL

LOOK_EVERY_S: Final = 60.0
_AT_ONCE: Final = 100

log = logging.getLogger(__name__)


class LeftOpen:
    """Closes them. `round` is for a `Background`; replicas that do the same at once write the same."""

    def __init__(self, approvals: Approvals, calls: CallApprovals, host: RunHost) -> None:
        self._approvals = approvals
        self._calls = calls
        self._host = host

    async def round(self) -> None:
        """Show all that are left open as their runs have them."""
        after, more = "", True
        while more:
            found = await self._approvals.left_open(after, _AT_ONCE)
            for approval_id, run_id in found:
                await self._close(approval_id, run_id)
            more = len(found) == _AT_ONCE
            after = found[-1][0] if found else after

    async def _close(self, approval_id: str, run_id: str) -> None:
        try:
            entry = await self._host.read(run_id)
            if entry is None:
                return
            if (step := entry.state.aside.approvals.get(approval_id)) is None:
                call = Context(entry.tenant, PRINCIPAL, correlation_id=run_id)
                await self._calls.withdraw(WithdrawCall(approval_id=approval_id), call)
            else:
                shown = show_approval(entry.state, step)
                await self._approvals.show([Shown(entry.tenant, shown.approval, shown.version)])
        except Exception as error:  # a history that cannot be read holds up no other
            if outages.is_outage(error):
                raise
            log.exception("cannot close approval %s of run %s", approval_id, run_id)
        else:
            log.warning("closed approval %s, which was left open by run %s", approval_id, run_id)
