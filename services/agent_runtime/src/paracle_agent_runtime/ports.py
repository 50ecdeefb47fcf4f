"""What the use cases of the agent runtime need from outside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from paracle_agent_runtime.pools import WorkerReport
from paracle_domain.budget.messages import RaiseBudget
from paracle_domain.envelope import Context, Envelope
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion
from paracle_domain.plan import Plan
from paracle_domain.records import record
from paracle_domain.run.commands import ApprovalView, AskForCall
from paracle_domain.task.effects import EffectPage, EffectView, ListEffects, Resolution
from paracle_domain.task.events import Shortage
from paracle_domain.task.ledger import Entry
from paracle_domain.task.messages import Task
from paracle_domain.task.output import Progress
from paracle_domain.task.past import Past, Recap
from paracle_domain.task.pools import Drain
from paracle_domain.task.sessions import SessionSummary, SessionTurn
from paracle_domain.tool.calls import ToolCall

type Clock = Callable[[], datetime]

TURNS_TOLD: Final = 100
"""How many of those before a turn are looked at: with thousands that wait, each would be told of thousands."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: its bytes, and what its headers say of them."""

    body: bytes
    headers: Mapping[str, str]


class PlanSource(Protocol):
    """Where plans come from."""

    async def get(self, digest: str, context: Context) -> Plan:
        """The plan with `digest`. Raises `NotFound` if nobody pinned it."""
        ...


class Models(Protocol):
    """Who answers model calls."""

    async def complete(self, request: Complete, context: Context) -> Completion:
        """The answer; every failure is a `ParacleError`."""
        ...

    async def abort(self, call_id: str, context: Context) -> None:
        """Stop the call `call_id`, wherever it is."""
        ...


class Budgets(Protocol):
    """Who keeps the budgets."""

    async def raise_by(self, order: RaiseBudget, context: Context) -> None:
        """Raise one, once for each key.

        Raises
        ------
        NotFound
            If there is none (any more).
        Conflict
            If it is not what people were asked about any more.
        """
        ...

    async def has_room(self, short: Shortage, context: Context) -> bool:
        """Whether calls may go on the budget that was short again, or something else is to be asked."""
        ...


class Outlet(Protocol):
    """Where those who watch a task hear what it does."""

    async def say(self, task_id: str, progress: Progress, context: Context) -> None:
        """Tell whoever watches; it neither waits nor fails if that is nobody, or cannot be done now."""
        ...


class People(Protocol):
    """Who decides about calls of tools."""

    async def ask(self, request: AskForCall, context: Context) -> ApprovalView:
        """Ask, once; how it stands. Raises `NotFound` if there is no such run."""
        ...

    async def withdraw(self, approval_id: str, context: Context, task_id: str | None) -> None:
        """Nobody waits for it any more, or that task does not. Raises `NotFound` if it was never asked."""
        ...


class Workers(Protocol):
    """Processes that answer calls of tools."""

    async def ask(self, call: ToolCall, body: bytes) -> Answer:
        """Have one of them carry out `call` with the arguments `body`; wait for its answer as long as it lives.

        Raises
        ------
        ToolUnavailable
            If no worker has got it.
        PayloadTooLarge
            If `body` is more than a message can hold.
        OutcomeUnknownError
            If a worker that had it has died.
        """
        ...


class Attempts(Protocol):
    """Which tasks were earlier attempts of a step."""

    async def before(self, task: Task, tenant: str) -> Sequence[str]:
        """The ids of the journaled tasks of the same step of the same run with a lower attempt, in order."""
        ...


class Effects(Protocol):
    """The effects of all tasks, as lists show them. What tasks say of them follows from the tasks' journals."""

    async def enter(self, entries: Sequence[tuple[str, Entry]]) -> None:
        """Keep what tasks of these tenants say, unless a later attempt, or a later event of that attempt, is there.

        A doubt that somebody has resolved stays resolved until the tool is called again.
        """
        ...

    async def get(self, tenant: str, key: str) -> EffectView | None:
        """One of them."""
        ...

    async def page(self, query: ListEffects, tenant: str) -> EffectPage:
        """Those that `query` asks for, the newest first. Raises `InvalidInput` if its cursor is none."""
        ...

    async def resolve(self, tenant: str, key: str, resolution: Resolution) -> bool:
        """Keep what somebody found out; false if it is not in doubt, or still being probed."""
        ...

    async def resolutions(self, tenant: str, keys: Collection[str]) -> Mapping[str, Resolution]:
        """What was found out about the effects with these keys that are resolved."""
        ...

    async def doubtful(self, tenant: str, run_id: str, step: str) -> Sequence[EffectView]:
        """The effects of a step that are in doubt or were resolved."""
        ...


@dataclass(frozen=True, slots=True)
class Worker:
    """A process of the runtime, and how it said last that it stands."""

    id: str
    seen_at: datetime
    report: WorkerReport


class Leases(Protocol):
    """Which process works on which task. A process that does not `beat` for a while has lost its tasks."""

    @property
    def worker(self) -> str:
        """The id of this process."""
        ...

    async def beat(self, report: WorkerReport, at_work: Collection[str]) -> None:
        """Say that this process is alive, how it stands, and which tasks without a journal it has at work."""
        ...

    async def elsewhere(self, name: str) -> bool:
        """Whether a live process other than this one has said that it is at work on the task of that name."""
        ...

    async def claim(self, task_id: str) -> bool:
        """Take a journaled task over; false if a live process other than this one has it."""
        ...

    async def release(self, task_id: str) -> None:
        """Let others take a task over, of which this process, should it have it, does no more."""
        ...

    async def leave(self) -> None:
        """Give up all tasks."""
        ...


class PoolBook(Protocol):
    """Which pools are drained, and what the processes of the runtime say of those that they serve."""

    async def drains(self) -> Mapping[str, Drain]:
        """The orders to take nothing new that hold, by pool."""
        ...

    async def drain(self, pool: str, drain: Drain) -> int | None:
        """Give such an order; its number among those about the pool, `None` if one holds already."""
        ...

    async def resume(self, pool: str) -> int | None:
        """Take the order back; the number of that, `None` if there is none."""
        ...

    async def number(self, pool: str) -> int | None:
        """The number of the newest order about the pool, or of its taking back; `None` if there never was one."""
        ...

    async def aside(self, tenant: str | None) -> Mapping[str, int]:
        """How many turns of sessions are set aside, by pool: of one tenant, or of all."""
        ...

    async def workers(self) -> Sequence[Worker]:
        """The processes that gave a sign of life within the lease."""
        ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """Messages that nobody was given yet; `elsewhere`: another program than the runtime asks for them just now."""

    waiting: int
    elsewhere: bool = False


class TaskQueue(Protocol):
    """What lies in the stream of tasks, handed out or not."""

    async def sizes(self, tenant: str | None) -> Mapping[str, int]:
        """How many messages there are for each pool: of one tenant, or of all."""
        ...

    async def backlogs(self) -> Mapping[str, Backlog]:
        """How each pool that has a consumer stands with it, for all tenants together."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """What a turn leaves behind: its messages, how long the conversation is with them, and the summary it went by."""

    messages: Sequence[ChatMessage] = ()
    tokens: int | None = None
    recap: Recap | None = None


@record
class Letter:
    """The message that brought a task to a pool. `turn`: its number, if it was set aside when it had one."""

    pool: str
    task: Task
    envelope: Envelope
    turn: int | None = None

    @property
    def tenant(self) -> str:
        return self.envelope.context.tenant


@dataclass(frozen=True, slots=True)
class Stalled:
    """A turn that cannot enter `session` before run `after` has."""

    session: str
    after: str
    letter: Letter


class Starts(Protocol):
    """What was accepted to be done, and in which order."""

    async def before(self, tenant: str, run_id: str) -> Sequence[str]:
        """The runs of the same session that were accepted before this one and have not ended: the last `TURNS_TOLD`."""
        ...


class Runs(Protocol):
    """What tasks are done for."""

    async def waits_for(self, tenant: str, run_id: str, tasks: Sequence[Task]) -> frozenset[str]:
        """The ids of those of its `tasks` that the run still wants done."""
        ...


class SessionBook(Protocol):
    """Conversations, turn by turn. All replicas share it."""

    async def number(self, task_id: str) -> int | None:
        """The number of the turn that a task is; `None` if it has not entered its session."""
        ...

    async def enter(self, tenant: str, session: str, task: Task) -> int:
        """The number of the turn that `task` is: the next one when it asks first, later the same."""
        ...

    async def lacks(self, tenant: str, session: str, run_ids: Sequence[str]) -> str | None:
        """The last of these runs that has no turn in the session yet, and whose task has not ended without one.

        `run_ids` are those before a turn, in order, but of many only the last `TURNS_TOLD`. Of so many one must have
        entered, which those before it had done then; else the first one is the answer.
        """
        ...

    async def waits(self, tenant: str, session: str, turn: int) -> bool:
        """Whether an earlier turn has not ended."""
        ...

    async def set_aside(self, session: str, letter: Letter, waits_for: int | str) -> None:
        """Keep the turn that `letter` brought until it is released, unless its task was cancelled.

        `waits_for`: its number, if it waits for all lower ones, or the run that has to enter the session before it.
        """
        ...

    async def release(self, tenant: str, task_id: str, run_id: str) -> Sequence[Letter]:
        """A task has entered its session, or has ended: those set aside that need not wait any longer for that.

        It is not set aside itself any more. Asked again, those that have not entered or ended meanwhile are the answer.
        """
        ...

    async def stalled(self, limit: int) -> Sequence[Stalled]:
        """Some of those set aside behind a run of which nothing has come, of all tenants; none that was called."""
        ...

    async def called(self, task_id: str) -> None:
        """A stalled turn was handed out again; so is what is released. It is called until it is set aside again."""
        ...

    async def past(self, tenant: str, session: str, turn: int) -> Past:
        """What turn number `turn` begins with: always the same, once all before it have ended."""
        ...

    async def sum_up(self, tenant: str, task_id: str, recap: Recap) -> None:
        """Keep a summary that the turn of a running task has made; of any other task's, nothing changes."""
        ...

    async def end(self, tenant: str, task_id: str, ending: Ending) -> None:
        """The turn of the task, if it is one, is over; said again, nothing changes."""
        ...


class SessionShelf(Protocol):
    """Conversations as they are kept, for those who look at them."""

    async def list(self, tenant: str, cursor: str | None, limit: int) -> Sequence[SessionSummary]:
        """Newest first, those after `cursor`."""
        ...

    async def get(self, tenant: str, session: str) -> SessionSummary | None:
        """One of them, if it is there."""
        ...

    async def recap(self, tenant: str, session: str) -> Recap | None:
        """Its newest summary."""
        ...

    async def turns(self, tenant: str, session: str, after: int, limit: int) -> Sequence[SessionTurn]:
        """Its turns after number `after`, in order."""
        ...

    async def delete(self, tenant: str, session: str) -> bool:
        """Drop it with all its turns, unless one is open; whether it was dropped."""
        ...


class TaskShelf(Protocol):
    """Where ended tasks are dropped from."""

    async def drop(self, tenant: str, run_ids: Sequence[str]) -> int:
        """Drop the ended tasks of these runs of `tenant`, with all that is known of them; how many."""
        ...
