"""How a task stands: the fold of its events over the job that it is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from pydantic import JsonValue

from paracle_domain.agent.spec import Limits
from paracle_domain.errors import BudgetExceeded, ContextExceeded, ErrorInfo, InvalidInput, NotFound, Unavailable
from paracle_domain.ids import derive_id
from paracle_domain.inference.chat import ChatMessage, ToolCallPart, ToolResultPart
from paracle_domain.inference.request import LONGEST_LABEL
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.messages import JsonObject
from paracle_domain.plan import Plan, PlannedAgent, PlannedTool
from paracle_domain.records import record
from paracle_domain.task import compaction, conversation, prompt
from paracle_domain.task import events as ev
from paracle_domain.task.delegation import Helper, limits_of
from paracle_domain.task.fingerprints import fingerprint
from paracle_domain.task.messages import Task, TaskStatus
from paracle_domain.task.past import NO_PAST, Past, Recap, Summed, summed_up
from paracle_domain.tool.spec import Effect

_UNHEARD: Final = frozenset({Unavailable.code, BudgetExceeded.code})
"""Errors after which the gateway may have an answer all the same: Paracle itself was away, or a guard that asks a model
of its own found a budget used up."""


@record
class Job:
    """What is to be done: the task, and the parts of its run's plan that it may use. It never changes."""

    task: Task
    target: PlannedAgent | PlannedTool
    tools: dict[str, PlannedTool]
    helpers: dict[str, Helper]
    plan: Plan
    past: Past = NO_PAST
    """What was said in earlier turns of its session."""
    probes: dict[str, PlannedTool] = field(default_factory=dict)
    """What is asked about calls in doubt, by the tool that is called: no model sees these for that."""

    @classmethod
    def of(cls, task: Task, plan: Plan) -> Job:
        """The job that `task` is under `plan`.

        Raises
        ------
        NotFound
            If the plan lacks the target, or a tool, probe or delegate that the target names.
        InvalidInput
            If an agent's calls cannot be accounted under the name of who started it.
        """
        if task.target_kind == "tool":
            tool = _planned(plan.tools, task.target, "tool", plan)
            return cls(task, tool, {task.target: tool}, {}, plan, probes=_probes(plan, {task.target: tool}))
        if task.principal is not None and len(task.principal) > LONGEST_LABEL:
            what = f"the name of who started this has {len(task.principal):,} characters; models are asked for at most"
            raise InvalidInput(f"{what} {LONGEST_LABEL}", path="principal")
        agent = _planned(plan.agents, task.target, "agent", plan)
        tools = {name: _planned(plan.tools, name, "tool", plan) for name in agent.spec.tools}
        helpers = {
            one.tool_name: Helper(one, _planned(plan.agents, one.agent, "agent", plan)) for one in agent.spec.delegates
        }
        return cls(task, agent, tools, helpers, plan, probes=_probes(plan, tools))

    @property
    def agent(self) -> PlannedAgent | None:
        return self.target if isinstance(self.target, PlannedAgent) else None

    @property
    def limits(self) -> Limits | None:
        """How far the agent may go, with all that it sets going."""
        return limits_of(self.target, self.task.allowance) if isinstance(self.target, PlannedAgent) else None


def _planned[T](parts: dict[str, T], name: str, kind: str, plan: Plan) -> T:
    if name not in parts:
        raise NotFound(f"plan {plan.digest} has no {kind} {name!r}; it has {', '.join(sorted(parts)) or 'none'}")
    return parts[name]


def _probes(plan: Plan, tools: dict[str, PlannedTool]) -> dict[str, PlannedTool]:
    probes = {name: tool.spec.probe for name, tool in tools.items()}
    return {name: _planned(plan.tools, probe.tool, "tool", plan) for name, probe in probes.items() if probe is not None}


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is being probed: a call that went out under `key`, in doubt `since` then, and `reason` says why.

    `error` is what it failed with, if it did.
    """

    key: str
    since: datetime
    reason: str
    error: ErrorInfo | None = None
    tried: int = 0
    retry_at: datetime | None = None


@record
class MadeCall:
    """A tool call of the task. `ref` is the model's name for it; `key` names its effect, if it has one.

    `delegated` is there if another agent answers it, `held` while people decide about it, `doubt` while it is probed
    whether it was carried out; `probed` is what the last probe said. `result` is what the model is told; without one it
    is under way.
    """

    id: str
    ref: str
    turn: int
    tool: str
    arguments: JsonObject
    fingerprint: str
    key: str | None = None
    sent: bool = False
    confirmed: bool = False
    delegated: ev.TaskDelegated | None = None
    held: ev.CallHeld | None = None
    doubt: Doubt | None = None
    probed: ev.EffectProbed | None = None
    result: ToolResultPart | None = None


@record
class TaskState:
    """A task at one moment. `messages` is the whole conversation but for the system message, which the job tells.

    `asked` is the place of its question among them. `summed` says how many of them the model is told as a summary;
    `counted`, after how many of them (those summed up included) the provider counted how many tokens; `overflowed`,
    that they are too many for it; `unsummed`, in which turn summing up failed for good.
    `answer` is a final answer that has yet to be checked; `tried` counts the failures of the present model call, and
    `unheard` those of them after which it may have been made all the same; `trouble` is the latest.
    `held` is there while people decide whether a budget is raised for the next model call; `lifted` is what was asked
    last of those that came to nothing, since the budget had changed or had room.
    `usage` is what this task used, `delegated` what its delegates did. `waited_s` are seconds of waiting for people, in
    which wall time stands still; `turn_waited_s` those of this turn, whose waits overlap.
    """

    job: Job
    status: TaskStatus = TaskStatus.QUEUED
    expires_at: datetime | None = None
    earlier: tuple[ev.EarlierEffect, ...] = ()
    messages: tuple[ChatMessage, ...] = ()
    asked: int = 0
    summed: Summed | None = None
    counted: tuple[int, int] | None = None
    overflowed: bool = False
    unsummed: int = -1
    turn: int = 0
    tried: int = 0
    unheard: int = 0
    trouble: ErrorInfo | None = None
    retry_at: datetime | None = None
    held: ev.BudgetHeld | None = None
    lifted: ev.BudgetHeld | None = None
    calls: tuple[MadeCall, ...] = ()
    answer: str | None = None
    rejections: int = 0
    usage: Usage = NOTHING
    delegated: Usage = NOTHING
    waited_s: float = 0.0
    turn_waited_s: float = 0.0
    output: JsonValue = None
    error: ErrorInfo | None = None

    @property
    def open_calls(self) -> tuple[MadeCall, ...]:
        return tuple(call for call in self.calls if call.result is None)

    @property
    def wants_model(self) -> bool:
        """Whether the next thing to do is to ask the model."""
        running = self.status is TaskStatus.RUNNING and self.job.agent is not None
        return running and self.answer is None and not self.open_calls and self.held is None

    @property
    def told(self) -> tuple[ChatMessage, ...]:
        """The conversation as the model is told it."""
        if self.summed is None:
            return self.messages
        upto = self.summed.upto
        question = self.messages[self.asked : self.asked + 1] if self.asked < upto else ()
        return (*summed_up(self.summed.text), *question, *self.messages[upto:])

    @property
    def recap(self) -> Recap | None:
        """The summary that was made in this turn of its session, as the session keeps it."""
        return None if self.summed is None else self.job.past.recap(self.summed, self.asked)

    @property
    def model_call_id(self) -> str:
        """The id of the model call that is due: the same wherever and whenever it is asked for.

        What nobody answered is asked again under the same id, by which the gateway knows a call that it has made.
        """
        task_id, upto, failed = self.job.task.task_id, compaction.due(self), self.tried - self.unheard
        if upto is not None:
            return derive_id("call", task_id, "summary", self.turn, upto, failed)
        summed = () if self.summed is None else (self.summed.upto,)
        return derive_id("call", task_id, "model", self.turn + 1, failed, *summed)

    @property
    def spent(self) -> Usage:
        """What the task used so far, with its tool calls and all that its delegates used."""
        own, made = self.usage, len(self.calls)
        if own.tool_calls != made:
            own = own.model_copy(update={"tool_calls": made})
        return own + self.delegated

    @property
    def turns(self) -> int:
        """Turns so far, those of its delegates counted."""
        return self.turn + self.delegated.model_calls

    @property
    def due_at(self) -> datetime | None:
        """When the task is over if nothing happens. Wall time stands still while people decide, or a delegate works."""
        if self.held is not None or any(call.delegated or call.held for call in self.open_calls):
            return self.job.task.deadline_at
        return self.expires_at

    @property
    def handed_over(self) -> bool:
        """Whether the answer is that of an agent which the task was handed to."""
        newest = self.calls[-1] if self.calls else None
        if newest is None or newest.delegated is None or newest.turn != self.turn:
            return False
        return newest.delegated.mode == "handoff" and newest.result is not None and not newest.result.is_error

    def call(self, call_id: str) -> MadeCall | None:
        """The open call `call_id`."""
        return next((call for call in self.open_calls if call.id == call_id), None)

    def in_doubt(self) -> tuple[MadeCall, ...]:
        """Open calls that may have been carried out and must not be repeated, those that are probed among them."""
        mine = (call for call in self.open_calls if self.effect(call.tool) is Effect.AT_MOST_ONCE)
        return tuple(call for call in mine if call.sent or call.doubt is not None)

    def effect(self, tool: str) -> Effect:
        planned = self.job.tools.get(tool)
        return planned.spec.effect if planned else Effect.NONE


def effect_key(state: TaskState, call: MadeCall) -> str:
    """The idempotency key of `call`: the same on every attempt of the step.

    The nth call with the same arguments is the nth effect; one that failed does not count, so that calling again
    after a failure is the same effect again.
    """
    task = state.job.task
    before = state.calls[: state.calls.index(call)]
    same = [c for c in before if c.fingerprint == call.fingerprint and (c.confirmed or c.result is None)]
    return derive_id("eff", task.run_id, task.effect_scope, call.tool, call.fingerprint, len(same))


def called_as(state: TaskState, call: MadeCall) -> str | None:
    """The key under which `call` may have been carried out: its own, or in a fork that of the run it is forked from."""
    if call.sent:
        return call.key
    return next((known.called for known in state.earlier if known.key == call.key and known.called), call.key)


def evolve(state: TaskState, event: ev.TaskEvent) -> TaskState:
    """The state after `event`."""
    match event:
        case ev.TaskAccepted():
            return _accepted(state, event)
        case ev.ModelReplied() | ev.ModelCallFailed() | ev.TaskCompacted() | ev.CompactionFailed():
            return _model_called(state, event)
        case ev.ToolReturned():
            return _returned(state, event)
        case ev.TaskDelegated():
            return _changed(state, event.call_id, delegated=event)
        case ev.CallHeld() | ev.CallReleased():
            return _held(state, event)
        case ev.BudgetHeld():
            return replace(state, held=event)
        case ev.BudgetReleased():
            lifted = state.held if event.lifted else state.lifted
            return _later(replace(state, held=None, lifted=lifted), event.waited_s)
        case (
            ev.EffectIntended()
            | ev.EffectSent()
            | ev.EffectConfirmed()
            | ev.EffectFailed()
            | ev.EffectInDoubt()
            | ev.EffectProbed()
        ):
            return _ledgered(state, event)
        case ev.OutputRejected():
            asked = ChatMessage.user(prompt.repair_request(event.problems))
            messages = (*state.messages, asked)
            return replace(state, answer=None, rejections=state.rejections + 1, messages=messages)
        case ev.TaskCompleted() | ev.TaskFailed() | ev.TaskCancelled() | ev.TaskTimedOut():
            return _ended(state, event)
        case _:
            assert_never(event)


type _ModelEvent = ev.ModelReplied | ev.ModelCallFailed | ev.TaskCompacted | ev.CompactionFailed
type _LedgerEvent = (
    ev.EffectIntended | ev.EffectSent | ev.EffectConfirmed | ev.EffectFailed | ev.EffectInDoubt | ev.EffectProbed
)
type _EndEvent = ev.TaskCompleted | ev.TaskFailed | ev.TaskCancelled | ev.TaskTimedOut


def _model_called(state: TaskState, event: _ModelEvent) -> TaskState:
    match event:
        case ev.ModelReplied():
            return _replied(state, event)
        case ev.ModelCallFailed():
            overflowed = event.error.code == ContextExceeded.code
            return replace(_failed(state, event.error), retry_at=event.retry_at, overflowed=overflowed)
        case ev.TaskCompacted() | ev.CompactionFailed():
            return _compacted(state, event)
        case _:
            assert_never(event)


def _ledgered(state: TaskState, event: _LedgerEvent) -> TaskState:
    match event:
        case ev.EffectIntended():
            return _changed(state, event.call_id, key=event.key)
        case ev.EffectSent():
            return _changed(state, event.call_id, sent=True)
        case ev.EffectConfirmed():
            return _changed(state, event.call_id, confirmed=True)
        case ev.EffectFailed():
            return state
        case ev.EffectInDoubt():
            return _changed(state, event.call_id, doubt=_doubt(event))
        case ev.EffectProbed():
            return _probed(state, event)
        case _:
            assert_never(event)


def _held(state: TaskState, event: ev.CallHeld | ev.CallReleased) -> TaskState:
    if isinstance(event, ev.CallHeld):
        return _changed(state, event.call_id, held=event)
    return _waited(_changed(state, event.call_id, held=None), event.waited_s)


def _doubt(event: ev.EffectInDoubt) -> Doubt | None:
    """What is to be found out by a probe; nothing if people have to."""
    if event.at is None:
        return None
    return Doubt(event.called or event.key, event.at, event.reason, event.error)


def _probed(state: TaskState, event: ev.EffectProbed) -> TaskState:
    call = state.call(event.call_id)
    doubt = call.doubt if call is not None and event.retry_at is not None else None
    again = doubt and replace(doubt, tried=event.tried, retry_at=event.retry_at)
    return _changed(state, event.call_id, doubt=again, probed=event)


def _ended(state: TaskState, event: _EndEvent) -> TaskState:
    match event:
        case ev.TaskCompleted():
            return replace(state, status=TaskStatus.COMPLETED, output=event.output)
        case ev.TaskFailed():
            return replace(state, status=TaskStatus.FAILED, error=event.error)
        case ev.TaskCancelled():
            return replace(state, status=TaskStatus.CANCELLED, error=ErrorInfo(code="cancelled", message=event.reason))
        case ev.TaskTimedOut():
            return replace(state, status=TaskStatus.TIMED_OUT, error=event.error)
        case _:
            assert_never(event)


def _accepted(state: TaskState, event: ev.TaskAccepted) -> TaskState:
    task = event.task
    running = replace(state, status=TaskStatus.RUNNING, expires_at=event.expires_at, earlier=event.earlier)
    if task.target_kind == "agent":
        past = state.job.past
        messages = (*past.messages, *conversation.messages(task.input))
        counted = None if past.tokens is None else (len(past.messages), past.tokens)
        return replace(running, messages=messages, asked=len(messages) - 1, counted=counted)
    arguments = task.input if isinstance(task.input, dict) else {}
    return replace(running, calls=(_made(task, 0, 0, ToolCallPart(id="", name=task.target, arguments=arguments)),))


def _compacted(state: TaskState, event: ev.TaskCompacted | ev.CompactionFailed) -> TaskState:
    used = state.usage if event.usage is None else state.usage + event.usage
    if isinstance(event, ev.TaskCompacted):
        return replace(
            state,
            summed=Summed(event.upto, event.summary, f"{event.provider}/{event.model}"),
            counted=(len(state.messages), event.tokens_after),
            overflowed=False,
            tried=0,
            unheard=0,
            retry_at=None,
            usage=used,
        )
    if event.retry_at is not None:
        return replace(_failed(state, event.error), retry_at=event.retry_at, usage=used)
    return replace(state, tried=0, unheard=0, retry_at=None, unsummed=state.turn, usage=used)


def _failed(state: TaskState, error: ErrorInfo) -> TaskState:
    """The model call that is due failed, as far as this task has heard."""
    unheard = state.unheard + (error.code in _UNHEARD)
    return replace(state, tried=state.tried + 1, unheard=unheard, trouble=error)


def _replied(state: TaskState, event: ev.ModelReplied) -> TaskState:
    wishes = event.message.tool_calls
    made = tuple(_made(state.job.task, event.turn, index, wish) for index, wish in enumerate(wishes))
    return replace(
        state,
        messages=(*state.messages, event.message),
        counted=(len(state.messages) + 1, event.usage.total_tokens) if event.usage.input_tokens else None,
        turn=event.turn,
        tried=0,
        unheard=0,
        retry_at=None,
        turn_waited_s=0.0,
        calls=state.calls + made,
        answer=None if wishes else event.message.text,
        usage=state.usage + event.usage,
    )


def _made(task: Task, turn: int, index: int, wish: ToolCallPart) -> MadeCall:
    call_id = derive_id("call", task.task_id, "tool", turn, index)
    return MadeCall(call_id, wish.id, turn, wish.name, wish.arguments, fingerprint(wish.name, wish.arguments))


def _returned(state: TaskState, event: ev.ToolReturned) -> TaskState:
    open_call = state.call(event.call_id)
    if open_call is None:
        return state
    done = _changed(state, event.call_id, result=prompt.tool_result(open_call.ref, event.output, event.error))
    if event.usage is not None:
        done = replace(done, delegated=done.delegated + event.usage)
    done = _waited(done, event.waited_s)
    if done.open_calls or done.job.agent is None:
        return done
    results = [call.result for call in done.calls if call.turn == done.turn and call.result is not None]
    done = replace(done, messages=(*done.messages, ChatMessage.tool(*results)))
    return replace(done, answer=_handed_answer(done, open_call, event)) if done.handed_over else done


def _handed_answer(state: TaskState, call: MadeCall, event: ev.ToolReturned) -> str | None:
    """What a delegate answered for good, as the text that is held against the agent's own output schema."""
    agent = state.job.agent
    if agent is None or agent.spec.output is None:
        return None
    said, free = event.output, state.job.helpers[call.tool].agent.spec.output is None
    return said if free and isinstance(said, str) else json.dumps(said, ensure_ascii=False)


def _waited(state: TaskState, seconds: float) -> TaskState:
    """Waits of one turn overlap, so the longest of them counts."""
    more = seconds - state.turn_waited_s
    return state if more <= 0 else replace(_later(state, more), turn_waited_s=seconds)


def _later(state: TaskState, more: float) -> TaskState:
    """Wall time stood still for so long."""
    later = state.expires_at and state.expires_at + timedelta(seconds=more)
    if later is not None and state.job.task.deadline_at is not None:
        later = min(later, state.job.task.deadline_at)
    return replace(state, expires_at=later, waited_s=state.waited_s + more)


def _changed(state: TaskState, call_id: str, **changes: object) -> TaskState:
    calls = tuple(replace(c, **changes) if c.id == call_id else c for c in state.calls)  # type: ignore[arg-type]  # field names are ours
    return replace(state, calls=calls)
