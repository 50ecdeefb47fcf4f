"""Use cases of the orchestrator: obey commands, take in results, answer questions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from paracle_chassis import outages
from paracle_chassis.beginnings import list_begun
from paracle_chassis.delivery import Delivery
from paracle_chassis.event_store import EventStore
from paracle_domain.dead_letters import LetterGone
from paracle_domain.envelope import Context
from paracle_domain.errors import InternalError, NotFound, ParacleError, quote
from paracle_domain.histories import Beginnings, ListRunsBegun
from paracle_domain.plan import Plan
from paracle_domain.run.attempts import wants
from paracle_domain.run.commands import (
    ApprovalPage,
    ApprovalView,
    GetApproval,
    GetPlan,
    GetRun,
    GetRunEvents,
    GetStep,
    ListApprovals,
    ListRuns,
    RunEvents,
    RunFilter,
    RunPage,
    RunStatus,
    RunView,
    ShownStep,
)
from paracle_domain.run.diff import DiffRuns, RunsDiff, differences
from paracle_domain.task.sessions import ListTurnsBefore, TurnsBefore
from paracle_domain.task.wanted import ListWantedTasks, WantedTasks
from paracle_orchestrator.admitting import Admitter
from paracle_orchestrator.beside import Beside
from paracle_orchestrator.bulk import BulkOrders, is_bulk
from paracle_orchestrator.call_approvals import CallApprovals
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.mail import Entry, Handled, Mail
from paracle_orchestrator.orders import Order, Orders, Read, answer, begun_by, is_start, leave
from paracle_orchestrator.pages import records_of
from paracle_orchestrator.plans import Plans
from paracle_orchestrator.ports import Approvals, RunIndex
from paracle_orchestrator.refusals import no_run
from paracle_orchestrator.results import read_result
from paracle_orchestrator.stuck import StuckRuns
from paracle_orchestrator.views import pins_of, step_of, view_of

MOST_WAITING: Final = 500


class Orchestrator:
    """Everything that can be asked of runs. `waiting` is a resource: starts for which something is away."""

    def __init__(
        self,
        host: RunHost,
        plans: Plans,
        store: EventStore,
        index: RunIndex,
        approvals: Approvals,
        calls: CallApprovals,
        bulk: BulkOrders,
        stuck: StuckRuns,
        admitter: Admitter,
    ) -> None:
        self._host = host
        self._plans = plans
        self._orders = Orders(host, plans, approvals, calls, admitter.limits)
        self._store = store
        self._index = index
        self._approvals = approvals
        self._calls = calls
        self._bulk = bulk
        self._stuck = stuck
        self._admitter = admitter
        self.waiting = Beside()
        self._lines: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def obey(self, batch: Sequence[Delivery]) -> None:
        """Commands on `cmd.orchestrator.*`: each is answered once what it led to is committed.

        Starts need the registry. While it is away they wait beside, and what is ordered of their runs waits in line
        behind them; nothing else does. But what is more than `MOST_WAITING`, or was put away for its size, is left to
        the mailbox, which then takes nothing further.
        Orders to many runs take their time, and are carried out beside.
        """
        for delivery in filter(is_bulk, batch):
            self._bulk.take(delivery)
        batch = [delivery for delivery in batch if delivery.open]
        read = await self._orders.read(batch)
        for delivery, found in zip(batch, read, strict=True):
            if is_start(delivery) and _is_away(found):
                self._line_up(delivery, begun_by(delivery))
        for delivery, found in zip(batch, read, strict=True):
            if isinstance(found, Order) and (delivery.tenant, found.mail.run_id) in self._lines:
                self._line_up(delivery, found.mail.run_id)
        left = [one for one in zip(batch, read, strict=True) if not one[0].kept]
        await self._carry_out([delivery for delivery, _ in left], [found for _, found in left])

    def _line_up(self, delivery: Delivery, run_id: str) -> None:
        """Have `delivery` wait beside, behind what waits already for the same run, if there is room for it."""
        if delivery.claimed or len(self.waiting) >= MOST_WAITING:
            return
        run = delivery.tenant, run_id
        self._lines[run] = last = self.waiting.take(delivery, partial(self._obey_after, self._lines.get(run), delivery))
        last.add_done_callback(partial(self._close, run))

    def _close(self, run: tuple[str, str], last: asyncio.Task[None]) -> None:
        if self._lines.get(run) is last:
            del self._lines[run]

    async def _obey_after(self, before: asyncio.Task[None] | None, delivery: Delivery) -> None:
        """Obey a command by itself, once `before` is over."""
        if before is not None:
            await asyncio.wait((before,))
        await self._carry_out([delivery], await self._orders.read([delivery]))

    async def _carry_out(self, batch: Sequence[Delivery], read: Sequence[Read]) -> None:
        orders = [order for order in read if isinstance(order, Order)]
        handled = await self._host.handle([order.mail for order in orders])
        for order in orders:
            if order.mail.run_id not in handled.broken:
                await answer(order, handled)
        await leave(batch, read, handled.broken)

    async def take_in(self, batch: Sequence[Delivery]) -> None:
        """What comes for runs on `result.*`: results, ticks, what other runs say, and that dead letters are gone."""
        mail: list[Mail] = []
        gone: list[tuple[str, LetterGone]] = []
        for delivery in batch:
            try:
                item = await read_result(delivery, self._plans, self._admitter.limits)
            except ParacleError as error:
                if error.retryable:
                    raise
                await delivery.term(error)
                continue
            if isinstance(item, LetterGone):
                gone.append((delivery.tenant, item))
            else:
                mail.append(item)
        if gone:
            await self._stuck.release(gone)
        handled = await self._host.handle(mail)
        if handled.broken:
            await self._leave_broken(batch, handled)

    async def _leave_broken(self, batch: Sequence[Delivery], handled: Handled) -> None:
        """Settle what is done, and raise why the rest is not: its runs broke, and it is the mailbox's."""
        for delivery in batch:
            if delivery.open:
                item = await read_result(delivery, self._plans, self._admitter.limits)
                if isinstance(item, LetterGone) or item.run_id not in handled.broken:
                    await delivery.ack()
        raise next(iter(handled.broken.values()))

    async def get_run(self, request: GetRun, call: Context) -> RunView:
        """A run. One that cannot be read, because of a bug or a damaged history, says at least where to look."""
        try:
            view = view_of(await self._entry(request.run_id, call), request.parts, request.outputs)
        except Exception as error:  # an outage or a refusal is what it is
            stuck = None if _is_plain(error) else await self._stuck.of_run(call.tenant, request.run_id)
            if stuck is None:
                raise
            broken = (
                f"run {request.run_id} cannot be read; `paracle dlq show {stuck.dead_letter}` says where it stopped"
            )
            raise InternalError(broken) from error
        if view.run.status.terminal:
            return view
        stuck = await self._stuck.of_run(call.tenant, request.run_id)
        queue = await self._admitter.place(call.tenant, request.run_id) if view.run.status is RunStatus.QUEUED else None
        return view.model_copy(update={"run": view.run.model_copy(update={"stuck": stuck}), "queue": queue})

    async def get_step(self, request: GetStep, call: Context) -> ShownStep:
        step = step_of(await self._entry(request.run_id, call), request.step, request.parts)
        if step is None:
            raise NotFound(
                f"run {request.run_id} has no step {quote(request.step)}, or none that has begun; "
                "`paracle runs show` lists its steps",
                path="step",
            )
        return ShownStep(run_id=request.run_id, step=step)

    async def list_runs(self, request: ListRuns, call: Context) -> RunPage:
        wanted = RunFilter.model_validate(request.model_dump(exclude={"status", "limit", "cursor"}))
        if request.status is not None:
            wanted = wanted.model_copy(update={"statuses": (request.status, *request.statuses)})
        page = await self._index.page(call.tenant, wanted, request.limit, request.cursor)
        return await self._stuck.shown(call.tenant, page)

    async def get_run_events(self, request: GetRunEvents, call: Context) -> RunEvents:
        entry = await self._entry(request.run_id, call)
        pages = await self._store.read(entry.id, request.after, request.limit)
        events = records_of(entry.id, pages, after=request.after, limit=request.limit)
        last = events[-1].seq if events else request.after
        waits = not events and not entry.state.terminal
        return RunEvents(
            events=tuple(events),
            terminal=entry.state.terminal and last >= entry.state.seq,
            stuck=await self._stuck.of_run(call.tenant, entry.id) if waits else None,
        )

    async def list_runs_begun(self, request: ListRunsBegun, call: Context) -> Beginnings:
        return await list_begun(self._store, request, call)

    async def list_turns_before(self, request: ListTurnsBefore, call: Context) -> TurnsBefore:
        return TurnsBefore(run_ids=tuple(await self._index.turns_before(call.tenant, request.run_id, request.last)))

    async def list_wanted_tasks(self, request: ListWantedTasks, call: Context) -> WantedTasks:
        entry = await self._host.read(request.run_id)
        if entry is None or entry.tenant != call.tenant:
            return WantedTasks(task_ids=())
        wanted = (one.task_id for one in request.tasks if wants(entry.state, one.step, one.attempt, one.task_id))
        return WantedTasks(task_ids=tuple(wanted))

    async def get_plan(self, request: GetPlan, call: Context) -> Plan:
        return (await self._plans.get(call.tenant, request.digest)).plan

    async def get_approval(self, request: GetApproval, call: Context) -> ApprovalView:
        return await self._calls.standing(request.approval_id, call)

    async def list_approvals(self, request: ListApprovals, call: Context) -> ApprovalPage:
        return await self._approvals.page(request, call)

    async def diff_runs(self, request: DiffRuns, call: Context) -> RunsDiff:
        left = await self._entry(request.left, call, "left")
        right = await self._entry(request.right, call, "right")
        found = differences(left.machine.plan, right.machine.plan)
        same = left.machine.plan.digest == right.machine.plan.digest
        return RunsDiff(left=pins_of(left), right=pins_of(right), same=same, differences=found)

    async def _entry(self, run_id: str, call: Context, path: str = "run_id") -> Entry:
        entry = await self._host.read(run_id)
        if entry is None or entry.tenant != call.tenant:
            raise no_run(run_id, path)
        return entry


def _is_away(found: Read) -> bool:
    """Whether a command cannot be read just now."""
    return isinstance(found, BaseException) and outages.is_outage(found)


def _is_plain(error: Exception) -> bool:
    """Whether it is a refusal or an outage, rather than a run that broke."""
    return outages.is_outage(error) or (isinstance(error, ParacleError) and not isinstance(error, InternalError))
