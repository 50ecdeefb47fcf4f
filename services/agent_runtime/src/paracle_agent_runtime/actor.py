"""A journaled task at work: told something, it decides, appends, publishes, and carries out what was decided.

Nothing is carried out before the decision is in the journal, so a process that is killed anywhere leaves behind a
task that another can resume: finished calls are in the journal, the one that was under way is asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, assert_never

from pydantic import JsonValue

from paracle_agent_runtime.journal import Journal
from paracle_agent_runtime.outbox import Outbox, Parcel
from paracle_agent_runtime.ports import Attempts, Clock, Models
from paracle_agent_runtime.schemas import Schemas, parse_answer
from paracle_agent_runtime.telemetry import SOURCE
from paracle_agent_runtime.tools.toolbox import Toolbox
from paracle_chassis.bus import Outgoing
from paracle_chassis.event_store import Append, Loaded, Page
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import Finding, ParacleError, SpecInvalid
from paracle_domain.inference.response import Completion
from paracle_domain.machine import EventRecord, fold
from paracle_domain.messages import JsonObject
from paracle_domain.task import inputs as told
from paracle_domain.task import prompt
from paracle_domain.task.directives import CallModel, CheckOutput, InvokeTool, ReportResult, TaskDirective
from paracle_domain.task.events import EarlierEffect, TaskEvent, dump_event, event_record, load_event
from paracle_domain.task.ledger import earlier_effects
from paracle_domain.task.machine import decide, result_of
from paracle_domain.task.messages import Task, TaskResult
from paracle_domain.task.state import Job, TaskState, evolve
from paracle_domain.tool.spec import Effect


class LostTaskError(Exception):
    """Someone else has moved the task on: whatever this process wanted to add is void."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all actors of a process work with."""

    journal: Journal
    outbox: Outbox
    attempts: Attempts
    models: Models
    toolbox: Toolbox
    schemas: Schemas
    clock: Clock
    worker: str


@dataclass(frozen=True, slots=True)
class _Broke:
    """A directive that raised what it should not have."""

    error: Exception


class TaskActor:
    """One task, one message at a time; `context` is that of the delivery which it came with."""

    def __init__(self, shop: Workshop, job: Job, context: Context, cause: str) -> None:
        self.state = TaskState(job)
        self.version = 0
        self._shop = shop
        self._job = job
        self._context = context
        self._cause = cause
        self._inbox: asyncio.Queue[tuple[told.TaskInput, str] | _Broke] = asyncio.Queue()
        self._children: set[asyncio.Task[None]] = set()
        self._in_air: set[str] = set()

    @classmethod
    def restore(cls, shop: Workshop, job: Job, context: Context, cause: str, history: Loaded) -> Self:
        """The actor as its journal left it. Its events are published again: deterministic ids make that harmless."""
        actor = cls(shop, job, context, cause)
        for page in history.pages:
            events = [load_event(body) for body in page.events]
            actor.state = fold(evolve, actor.state, events)
            actor._publish(page, events)
        actor.version = history.version
        return actor

    async def begin(self) -> bool:
        """Enter the task into the journal; false if it is there already."""
        problems = self._input_problems()
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
        try:
            while not self.state.status.terminal:
                message, cause = await self._next()
                await self._step(message, cause)
        finally:
            await self._stop_children()
        await self.abort_calls()
        return result_of(self.state)

    async def cancel(self, reason: str) -> TaskResult:
        """Enter the cancel into the journal (unless the task has ended); how the task ended."""
        await self._step(told.CancelRequested(self._shop.clock(), reason), self._cause)
        return result_of(self.state)

    async def abort_calls(self) -> None:
        """Have the gateway close the model calls that nobody waits for any more."""
        calls, self._in_air = self._in_air, set()
        for call_id in calls:
            await self._shop.models.abort(call_id, self._context)

    @property
    def interruptible(self) -> bool:
        """Whether stopping now leaves no effect in doubt."""
        return not any(call.key for call in self.state.open_calls)

    # ── one step ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _step(self, message: told.TaskInput, cause: str) -> None:
        state, events, directives = self._decide(message)
        if events:
            page = Page(self.version + 1, cause, message.at, tuple(dump_event(event) for event in events))
            await self._append(state, page)
            self._publish(page, events)
        self.state = state
        for directive in directives:
            self._carry_out(directive)

    def _decide(self, message: told.TaskInput) -> tuple[TaskState, list[TaskEvent], list[TaskDirective]]:
        """What follows from `message`; checking an answer is no I/O, so its outcome is part of the same step."""
        state, events, directives = self.state, list[TaskEvent](), list[TaskDirective]()
        pending: list[told.TaskInput] = [message]
        while pending:
            decision = decide(state, pending.pop())
            state = fold(evolve, state, decision.events)
            events += decision.events
            for directive in decision.directives:
                if isinstance(directive, CheckOutput):
                    pending.append(self._checked(directive, message.at))
                else:
                    directives.append(directive)
        return state, events, directives

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
                facts=None if self.version else facts_of(task, self._shop.worker),
            )
        )
        if not written:
            raise LostTaskError(task.task_id)
        self.version = page.last_seq

    def _publish(self, page: Page, events: Sequence[TaskEvent]) -> None:
        self._shop.outbox.put(Parcel(records_of(self._job.task, page, events, self._context)))

    async def _next(self) -> tuple[told.TaskInput, str]:
        expires = self.state.expires_at
        try:
            async with asyncio.timeout(self._seconds_to(expires) if expires else None):
                found = await self._inbox.get()
        except TimeoutError:
            return told.DeadlinePassed(self._shop.clock()), "deadline"
        if isinstance(found, _Broke):
            raise found.error
        return found

    def _seconds_to(self, moment: datetime) -> float:
        return max(0.0, (moment - self._shop.clock()).total_seconds())

    # ── directives ───────────────────────────────────────────────────────────────────────────────────────────────

    def _carry_out(self, directive: TaskDirective) -> None:
        match directive:
            case CallModel():
                self._start(self._call_model(directive), directive.call_id)
            case InvokeTool():
                self._start(self._invoke_tool(directive), directive.call_id)
            case CheckOutput() | ReportResult():
                pass  # the first is done within the step, the second by whoever runs the actor
            case _:
                assert_never(directive)

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

    async def _call_model(self, directive: CallModel) -> told.TaskInput:
        if directive.not_before is not None:
            await asyncio.sleep(self._seconds_to(directive.not_before))
        request = prompt.model_request(self.state)
        self._in_air.add(directive.call_id)
        try:
            completion = await self._shop.models.complete(request, self._context)
        except ParacleError as error:
            self._in_air.discard(directive.call_id)
            return told.ModelFailed(self._shop.clock(), directive.call_id, error.to_info())
        self._in_air.discard(directive.call_id)
        return told.ReplyCame(self._shop.clock(), directive.call_id, completion, self._refused(completion))

    async def _invoke_tool(self, directive: InvokeTool) -> told.TaskInput:
        tool = self._job.tools[directive.tool]
        end = await self._shop.toolbox.call(self._job.task.plan, tool, directive.arguments, key=directive.key)
        at = self._shop.clock()
        if end.error is None:
            return told.ToolSucceeded(at, directive.call_id, end.output, end.duration_s)
        return told.ToolFailed(at, directive.call_id, end.error, end.duration_s, end.outcome)

    async def _earlier(self) -> tuple[EarlierEffect, ...]:
        """The ledger that earlier attempts of the step left behind."""
        if self._job.task.attempt == 1 or not any(
            self.state.effect(tool) is not Effect.NONE for tool in self._job.tools
        ):
            return ()
        ids = await self._shop.attempts.before(self._job.task, self._context.tenant)
        histories = await asyncio.gather(*(self._shop.journal.load(task_id) for task_id in ids))
        return earlier_effects(
            [load_event(body) for page in history.pages for body in page.events] for history in histories if history
        )

    # ── schemas ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _problems(self, name: str, place: str, schema: JsonObject, value: JsonValue, root: str) -> tuple[Finding, ...]:
        """How `value` breaks `schema`; nothing fits a schema that is none."""
        try:
            return self._shop.schemas.problems((self._job.task.plan, name, place), schema, value, root=root)
        except SpecInvalid as error:
            return (Finding(path=root, message=error.message),)

    def _input_problems(self) -> tuple[Finding, ...]:
        task, target = self._job.task, self._job.target
        return self._problems(target.name, f"{task.target_kind} input", target.spec.input, task.input, "input")

    def _refused(self, completion: Completion) -> dict[int, str]:
        """What is wrong with the arguments of the reply's tool calls, by index."""
        found = {}
        for index, wish in enumerate(completion.message.tool_calls):
            tool = self._job.tools.get(wish.name)
            if tool is None or wish.invalid is not None:
                continue
            problems = self._problems(tool.name, "input", tool.spec.input, wish.arguments, "arguments")
            if problems:
                found[index] = "; ".join(f"{problem.path}: {problem.message}" for problem in problems)
        return found

    def _checked(self, directive: CheckOutput, at: datetime) -> told.OutputChecked:
        value, problems = parse_answer(directive.text)
        agent = self._job.agent
        if not problems and agent is not None and agent.spec.output is not None:
            problems = self._problems(agent.name, "agent output", agent.spec.output, value, "output")
        return told.OutputChecked(at, directive.turn, value, problems)


def facts_of(task: Task, worker: str | None) -> JsonObject:
    """What the row of a task says of it for ever, and who works on it first."""
    return {
        "run_id": task.run_id,
        "step": task.step,
        "attempt": task.attempt,
        "target_kind": task.target_kind,
        "target": task.target,
        "owner": worker,
    }


def records_of(task: Task, page: Page, events: Sequence[TaskEvent], context: Context) -> list[Outgoing]:
    """The events of `page` as they are published: in one message."""
    records = [
        event_record(task.task_id, task.run_id, event, seq=seq, at=page.at, cause=page.cause)
        for seq, event in enumerate(events, start=page.first_seq)
    ]
    return [record_message(EventRecord.together(records), context)]


def record_message(record: EventRecord, context: Context) -> Outgoing:
    """`record` with its subject and its deterministic id."""
    subject = subjects.evt(context.tenant, record.entity, record.id, record.type.replace(".", "_"))
    story = context.caused_by(record.cause or record.id, record.correlation_id)
    return Outgoing(
        subject, record, Envelope.wrap(record.type_name, SOURCE, story, id=record.message_id(context.tenant))
    )
