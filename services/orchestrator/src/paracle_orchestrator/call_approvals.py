"""Approvals of tool calls. They are not part of a run's history: the list of approvals is where they live.

The agent runtime asks, and asks again until it is decided, so nothing has to reach it: an event only spares it the
wait. Who asks, decides or looks also lets time have its due (`at_time`). Of two who change an approval at once, one is
first, and the other decides anew from what that led to.
"""

from __future__ import annotations

from typing import Final

from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.delivery import Delivery
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import Conflict, ParacleError
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Done
from paracle_domain.run import deciding
from paracle_domain.run.commands import (
    ApprovalStatus,
    ApprovalView,
    AskForCall,
    DecideApproval,
    RunAccepted,
    WithdrawCall,
)
from paracle_domain.run.inbox import Decide
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.mail import Entry
from paracle_orchestrator.outgoing import SOURCE
from paracle_orchestrator.ports import Approvals, Clock, Shown
from paracle_orchestrator.refusals import no_approval, no_run

_TRIES: Final = 20


class CallApprovals:
    """What is asked before tools are called, and what people decide about it."""

    def __init__(self, host: RunHost, approvals: Approvals, bus: Bus, clock: Clock) -> None:
        self._host = host
        self._approvals = approvals
        self._bus = bus
        self._clock = clock

    async def ask(self, request: AskForCall, call: Context) -> ApprovalView:
        """Ask; if that was asked before, how it stands.

        Raises
        ------
        NotFound
            If the tenant has no such run.
        """
        known = await self._approvals.get(call.tenant, request.approval_id)
        if known is None:
            entry = await self._run(request.run_id, call)
            view = deciding.asked(request, entry.facts["workflow"], entry.state.started_event.principal)
            await self._change(view, "asked", call)
        return await self.standing(request.approval_id, call)

    async def standing(self, approval_id: str, call: Context) -> ApprovalView:
        """How the approval stands now."""
        for _ in range(_TRIES):
            view = await self._approvals.get(call.tenant, approval_id)
            if view is None:
                raise no_approval(approval_id)
            after = deciding.at_time(view, self._clock()) if view.task_id is not None else view
            if after is view:
                return view
            await self._change(after, "escalated" if after.status is ApprovalStatus.OPEN else after.status, call)
        raise Conflict(f"approval {approval_id} changes faster than it can be read; try again")

    async def withdraw(self, request: WithdrawCall, call: Context) -> Done:
        """Nobody waits for it any more; or whoever asked it does not."""
        for _ in range(_TRIES):
            view = await self.standing(request.approval_id, call)
            if request.task_id not in {None, view.task_id}:
                return Done()
            after = deciding.withdrawn(view, self._clock())
            if after is view or await self._change(after, "void", call):
                return Done()
        raise Conflict(f"approval {request.approval_id} changes faster than it can be withdrawn; try again")

    async def decide(self, delivery: Delivery, command: DecideApproval) -> RunAccepted | ParacleError:
        """What is to be answered to a decision. A decision that came before is told of again."""
        context = delivery.envelope.context
        message = Decide(
            context.principal, context.roles, command.approval_id, command.digest, command.decision, command.reason
        )
        for _ in range(_TRIES):
            view = await self.standing(command.approval_id, context)
            entry = await self._run(view.run_id, context)
            if entry.state.terminal and view.status is ApprovalStatus.OPEN:
                await self._change(deciding.withdrawn(view, self._clock()), "void", context)
                continue
            after = deciding.decided(view, message, self._clock())
            if isinstance(after, ParacleError):
                return after
            if after is view:
                await self._tell(view, "decided", context)
            elif not await self._change(after, "decided", context):
                continue
            return RunAccepted(run_id=view.run_id, status=entry.state.status, created=False)
        raise Conflict(f"approval {command.approval_id} changes faster than it can be decided; try again")

    async def _run(self, run_id: str, call: Context) -> Entry:
        entry = await self._host.read(run_id)
        if entry is None or entry.tenant != call.tenant:
            raise no_run(run_id)
        return entry

    async def _change(self, view: ApprovalView, event: str, call: Context) -> bool:
        """Keep `view` and tell of it; false if somebody else has changed the approval meanwhile."""
        await self._approvals.show([Shown(call.tenant, view, deciding.version_of(view))])
        if await self._approvals.get(call.tenant, view.approval_id) != view:
            return False
        await self._tell(view, event, call)
        return True

    async def _tell(self, view: ApprovalView, event: str, call: Context) -> None:
        record = EventRecord(
            entity="approval",
            id=view.approval_id,
            seq=deciding.version_of(view),
            type=f"approval.{event}",
            at=view.decisions[-1].at if event == "decided" else self._clock(),
            cause=call.causation_id,
            correlation_id=view.run_id,
            data=view.model_dump(mode="json", exclude_none=True),
        )
        subject = subjects.evt(call.tenant, record.entity, record.id, record.type.replace(".", "_"))
        envelope = Envelope.wrap(record.type_name, SOURCE, call, id=record.message_id(call.tenant))
        await self._bus.publish([Outgoing(subject, record, envelope)])
