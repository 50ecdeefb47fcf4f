"""A journaled task at work: told something, it decides, appends, publishes, and carries out what was decided.

Nothing is carried out before the decision is in the journal, so a process that is killed anywhere leaves behind a
task that another can resume: finished calls are in the journal, the one that was under way is asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self, assert_never

from paracle_agent_runtime.checking import Checks
from paracle_agent_runtime.errands import Errands, LostTaskError
from paracle_agent_runtime.outbox import Parcel
from paracle_agent_runtime.records import facts_of, records_of
from paracle_agent_runtime.tombstones import bury
from paracle_agent_runtime.workshop import Workshop
from paracle_chassis.event_store import Append, Loaded, Page
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, InternalError
from paracle_domain.inference.request import Complete
from paracle_domain.machine import fold
from paracle_domain.task import inputs as told
from paracle_domain.task import prompt
from paracle_domain.task.delegation import child_task
from paracle_domain.task.directives import (
    AskAgent,
    AskForRaise,
    AskPeople,
    CallModel,
    CheckOutput,
    InvokeTool,
    ProbeEffect,
    ReportResult,
    TaskDirective,
)
from paracle_domain.task.events import EarlierEffect, TaskEvent, dump_event, load_event
from paracle_domain.task.ledger import Entry, entries
from paracle_domain.task.machine import decide
from paracle_domain.task.messages import Task, TaskResult
from paracle_domain.task.output import ToolProgress
from paracle_domain.task.state import Job, TaskState, evolve
from paracle_domain.task.story import result_of
from paracle_domain.tool.spec import Effect

CANCEL_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class _Broke:
    """A directive that raised what it should not have."""

    error: Exception


class TaskActor:
    """One task, one message at a time; `context` is that of the delivery which it came with."""

    def __init__(self, shop: Workshop, job: Job, context: Context, cause: str) -> None:
        self.state = TaskState(job)
        self.version = 0
        self._decided = self.state  # what is in the journal, or is being written there
        self._shop = shop
        self._job = job
        self._context = context
        self._cause = cause
        self._inbox: asyncio.Queue[tuple[told.TaskInput, str] | _Broke] = asyncio.Queue()
        self._children: set[asyncio.Task[None]] = set()
        self._delegates: dict[str, TaskActor] = {}
        self._checks = Checks(shop.schemas, job)
        self._errands = Errands(shop, job, context, self._checks)
        self._unentered: list[Entry] = []
        self._summed = False

    @classmethod
    def restore(cls, shop: Workshop, job: Job, context: Context, cause: str, history: Loaded) -> Self:
        """The actor as its journal left it. Its events are published again: deterministic ids make that harmless."""
        actor = cls(shop, job, context, cause)
        for page in history.pages:
            events = [load_event(body) for body in page.events]
            actor.state = fold(evolve, actor.state, events)
            actor._publish(page, events)
            actor._unentered += entries(actor.state, events, page.first_seq, page.at)
        actor._summed = actor.state.summed is not None and not actor.state.status.terminal
        actor.version = history.version
        return actor

    async def begin(self) -> bool:
        """Enter the task into the journal; false if it is there already."""
        problems = self._checks.input()
        try:
            await self._step(told.AcceptTask(self._shop.clock(), problems, await self._earlier()), self._cause)
        except LostTaskError:
            return False
        return True

    async def resume(self) -> None:
        """Take up what was under way when another process stopped."""
        await self._step(told.Resume(self._shop.clock()), self._cause)

    async def run(self) -> TaskResult:
        """Work until the task has ended.

        Raises
        ------
        LostTaskError
            If another process, or a cancel, moved it on meanwhile.
        """
        await self._enter()
        try:
            while not self.state.status.terminal:
                message, cause = await self._next()
                await self._step(message, cause)
        finally:
            await self._stop_children()
        await self.abort_calls()
        await self._wind_up("the task that asked for this has ended")
        return result_of(self.state)

    async def cancel(self, reason: str) -> TaskResult:
        """Enter the cancel into the journal (unless the task has ended), and into those of its delegates; how it ended.

        The task goes first: from then on it sets nothing going any more.
        """
        due = self.state.model_call_id if self.state.wants_model else None
        await self._step(told.CancelRequested(self._shop.clock(), reason), self._cause)
        if due is not None:  # whoever made the call may be dead, or may not hear of this
            await self._shop.models.abort(due, self._context)
        await self._wind_up(reason)
        return result_of(self.state)

    async def abort_calls(self) -> None:
        """Have the gateway close the model calls, at any depth, that nobody waits for any more."""
        for delegate in self._delegates.values():
            await delegate.abort_calls()
        await self._errands.abort()

    @property
    def interruptible(self) -> bool:
        """Whether stopping now leaves no effect in doubt: neither one that is called, nor one that is about to be."""
        calls = (*self.state.open_calls, *self._decided.open_calls)
        return not any(call.key and call.doubt is None for call in calls) and all(
            delegate.interruptible for delegate in self._delegates.values()
        )

    @property
    def for_people(self) -> bool:
        """Whether people are asked about a call of it, or a budget, at any depth."""
        held = self.state.held is not None or any(call.held for call in self.state.open_calls)
        return held or any(delegate.for_people for delegate in self._delegates.values())

    # ── one step ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _step(self, message: told.TaskInput, cause: str) -> None:
        state, events, directives = self._decide(message)
        if events:
            self._decided = state
            page = Page(self.version + 1, cause, message.at, tuple(dump_event(event) for event in events))
            await self._append(state, page)
            self._publish(page, events)
            self._unentered += entries(state, events, page.first_seq, page.at)
        self._summed = self._summed or state.summed is not self.state.summed
        self.state = state
        await self._enter()
        await self._errands.say_retries(events, state.tried)
        for directive in directives:
            self._carry_out(directive, message.at)

    async def _enter(self) -> None:
        """Have the ledger, and the session, say what the journal says, before anything follows from it."""
        if self._summed:
            self._summed = False
            await self._shop.sessions.sum_up(self.state, self._context.tenant)
        if self._unentered:
            unentered, self._unentered = self._unentered, []
            await self._shop.ledger.enter(self._context.tenant, unentered)

    def _decide(self, message: told.TaskInput) -> tuple[TaskState, list[TaskEvent], list[TaskDirective]]:
        """What follows from `message`; checking an answer is no I/O, so its outcome is part of the same step."""
        state, events, directives = self.state, list[TaskEvent](), list[TaskDirective]()
        pending: list[told.TaskInput] = [message]
        while pending:
            decision = decide(state, pending.pop())
            state = decision.state
            events += decision.events
            for directive in decision.directives:
                if isinstance(directive, CheckOutput):
                    pending.append(self._checked(directive, message.at))
                else:
                    directives.append(directive)
        return state, events, directives

    def _checked(self, directive: CheckOutput, at: datetime) -> told.OutputChecked:
        value, problems = self._checks.answer(directive.text)
        return told.OutputChecked(at, directive.turn, value, problems)

    async def _append(self, state: TaskState, page: Page) -> None:
        task = self._job.task
        ended = state.status.terminal
        written = await self._shop.journal.append(
            Append(
                id=task.task_id,
                tenant=self._context.tenant,
                expected=self.version,
                pages=(page,),
                status=state.status,
                finished_at=page.at if ended else None,
                facts=None if self.version else facts_of(task, self._shop.leases.worker),
            )
        )
        if not written:
            raise LostTaskError(task.task_id)
        self.version = page.last_seq

    def _publish(self, page: Page, events: Sequence[TaskEvent]) -> None:
        self._shop.outbox.put(Parcel(records_of(self._job.task, page, events, self._context)))

    async def _next(self) -> tuple[told.TaskInput, str]:
        due = self.state.due_at
        try:
            async with asyncio.timeout(self._seconds_to(due) if due else None):
                found = await self._inbox.get()
        except TimeoutError:
            return told.DeadlinePassed(self._shop.clock()), "deadline"
        if isinstance(found, _Broke):
            raise found.error
        return found

    def _seconds_to(self, moment: datetime) -> float:
        return max(0.0, (moment - self._shop.clock()).total_seconds())

    # ── directives ───────────────────────────────────────────────────────────────────────────────────────────────

    def _carry_out(self, directive: TaskDirective, decided: datetime) -> None:
        errands = self._errands
        match directive:
            case CallModel():
                self._start(errands.call_model(directive, self._request), directive.call_id)
            case InvokeTool():
                self._start(errands.invoke_tool(directive, decided), directive.call_id)
            case ProbeEffect():
                self._start(errands.probe_effect(directive), directive.call_id)
            case AskAgent():
                self._start(self._ask_agent(directive), directive.call_id)
            case AskPeople():
                self._start(errands.ask_people(directive), directive.call_id)
            case AskForRaise():
                self._start(errands.ask_for_raise(directive), directive.request.approval_id)
            case CheckOutput() | ReportResult():
                pass  # the first is done within the step, the second by whoever runs the actor
            case _:
                assert_never(directive)

    def _request(self) -> Complete:
        """What the model is asked now."""
        return prompt.model_request(self.state)

    def _start(self, work: Coroutine[Any, Any, told.TaskInput], call_id: str) -> None:
        child = asyncio.create_task(self._deliver(work, call_id), name=call_id)
        self._children.add(child)
        child.add_done_callback(self._children.discard)

    async def _deliver(self, work: Coroutine[Any, Any, told.TaskInput], call_id: str) -> None:
        try:
            self._inbox.put_nowait((await work, call_id))
        except Exception as error:  # noqa: BLE001  # raised again where the task runs
            self._inbox.put_nowait(_Broke(error))

    async def _stop_children(self) -> None:
        children = list(self._children)
        for child in children:
            child.cancel()
        await asyncio.gather(*children, return_exceptions=True)

    # ── delegates ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask_agent(self, directive: AskAgent) -> told.TaskInput:
        """Work on the task of a delegate, as far as it is not done. Stopped with this one, it goes on with it."""
        started, tool = self._shop.clock(), directive.tool
        await self._errands.say(ToolProgress(call_id=directive.call_id, tool=tool, stage="started"))
        delegate = TaskActor(self._shop, Job.of(directive.task, self._job.plan), self._context, directive.call_id)
        self._delegates[directive.call_id] = delegate
        if not await delegate.begin():
            delegate = await self._restored(directive.task, directive.call_id)
            self._delegates[directive.call_id] = delegate
            if not delegate.state.status.terminal:
                await delegate.resume()
        result = await delegate.run()
        del self._delegates[directive.call_id]
        at = self._shop.clock()
        took_s, error = (at - started).total_seconds(), None if result.error is None else result.error.code
        await self._errands.say(
            ToolProgress(call_id=directive.call_id, tool=tool, stage="ended", duration_s=took_s, error=error)
        )
        return told.DelegateEnded(at, directive.call_id, result, took_s)

    async def _restored(self, task: Task, cause: str) -> TaskActor:
        history = await self._shop.journal.load(task.task_id)
        if history is None or history.tenant != self._context.tenant:
            raise InternalError(f"task {task.task_id} can neither be begun nor found")
        return TaskActor.restore(self._shop, Job.of(task, self._job.plan), self._context, cause, history)

    async def _wind_up(self, reason: str) -> None:
        """What an ended task had set going ends with it, and nobody is to decide about its calls.

        Nobody else would ever take its delegates up again.
        """
        work: list[Coroutine[Any, Any, None]] = []
        if self.state.held is not None:
            approval_id, task_id = self.state.held.approval_id, self._job.task.task_id
            work.append(self._shop.decisions.withdraw(approval_id, self._context, task_id))
        for call in self.state.open_calls:
            if call.delegated is not None:
                work.append(self._end_delegate(child_task(self.state, call), reason))
            elif call.held is not None:
                work.append(self._shop.decisions.withdraw(call.held.approval_id, self._context))
        await asyncio.gather(*work)

    async def _end_delegate(self, task: Task, reason: str) -> None:
        for _ in range(CANCEL_TRIES):
            if await bury(self._shop.journal, self._shop.outbox, task, reason, self._shop.clock(), self._context):
                return
            try:
                await (await self._restored(task, self._cause)).cancel(reason)
            except LostTaskError:
                continue
            return
        raise Conflict(f"task {task.task_id} moves on faster than it can be cancelled")

    async def _earlier(self) -> tuple[EarlierEffect, ...]:
        """What the ledger says of this step so far."""
        if not any(self.state.effect(tool) is not Effect.NONE for tool in self._job.tools):
            return ()
        return await self._shop.ledger.before(self._job.task, self._context.tenant)
