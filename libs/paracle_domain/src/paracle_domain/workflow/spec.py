"""Workflow manifests: a DAG of steps, as people write it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from paracle_domain.messages import Given, JsonObject
from paracle_domain.wording import count

StepId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]
EventName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
SignalName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Principal = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/+|=~-]{0,199}$")]
Role = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/+|=~-]{0,99}$")]
Seconds = Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False)]
Pause = Annotated[float, Field(ge=0, le=366 * 86_400, allow_inf_nan=False)]
ErrorCode = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,64}$")]

type TargetKind = Literal["agent", "tool", "workflow"]
type StepKind = Literal["agent", "tool", "workflow", "map", "loop", "switch", "approval", "wait", "emit"]

KINDS: Final[tuple[StepKind, ...]] = (
    "agent",
    "tool",
    "workflow",
    "map",
    "loop",
    "switch",
    "approval",
    "wait",
    "emit",
)
TARGETS: Final[tuple[TargetKind, ...]] = ("agent", "tool", "workflow")


class Spec(BaseModel):
    """A part of a manifest: immutable, and strict about fields it does not know, since those are typing errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Backoff(StrEnum):
    CONSTANT = "constant"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class RetrySpec(Spec):
    """When and how often a failed attempt is tried again.

    The wait before attempt n+1 is `initial_s`, `n·initial_s` or `initial_s·2^(n-1)` by `backoff`, at most `max_s`,
    and then varied by up to ± `jitter` of itself. Without `on`, errors that call themselves retryable are retried.
    """

    max_attempts: int = Field(default=1, ge=1, le=100, description="attempts in all, the first one included")
    backoff: Backoff = Backoff.EXPONENTIAL
    initial_s: Seconds = 1.0
    max_s: Seconds = 60.0
    jitter: float = Field(default=0.1, ge=0, le=1)
    on: tuple[ErrorCode, ...] = Field(default=(), description="error codes to retry; empty: every retryable error")
    never_on: tuple[ErrorCode, ...] = Field(default=(), description="error codes never to retry")


class WorkSpec(Spec):
    """Something that does work and may be tried again: an agent, a tool or a child workflow, and what it gets."""

    agent: Name | None = None
    tool: Name | None = None
    workflow: Name | None = None
    input: Given = Field(default_factory=dict, description="what the target gets; strings may be expressions")
    retry: RetrySpec = RetrySpec()
    timeout_s: Seconds | None = Field(default=None, description="time for one attempt")
    pool: PoolName | None = Field(default=None, description="worker pool of its tasks; else its agent's or tool's")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        _exactly_one(self, TARGETS)
        _no_pool_of_workflow(self)
        return self

    @property
    def target_kind(self) -> TargetKind:
        return next(kind for kind in TARGETS if getattr(self, kind) is not None)

    @property
    def target(self) -> str:
        """Name of the agent, tool or workflow."""
        return self.agent or self.tool or self.workflow or ""


class MapSpec(WorkSpec):
    """Does its work once for each item of a list; the output is the list of the outputs, in the same order.

    Expressions see `item` and `index` besides what steps see. Retries and `timeout_s` are those of one item.
    """

    over: list[JsonValue] | str = Field(description="the list, or an expression that gives it")
    concurrency: int = Field(default=1_000, ge=1, le=10_000, description="most items at work at the same time")
    on_error: Literal["fail", "continue"] = Field(
        default="fail", description="`continue`: an item that fails for good gives null, and the run ends degraded"
    )

    @model_validator(mode="after")
    def _over_a_list(self) -> Self:
        if isinstance(self.over, str) and "{{" not in self.over:
            message = "over must be a list, or an expression that gives one, as in `{{ steps.find.output }}`"
            raise ValueError(message)
        return self


class LoopSpec(WorkSpec):
    """Does its work again and again until a condition holds, at most `max` times; the output is the last one.

    Expressions see `iteration` (from 0) and `last` (the output before, null at first) besides what steps see; `until`
    sees `output` and `iteration`.
    """

    max: int = Field(ge=1, le=10_000, description="most iterations")
    until: str = Field(description="an expression; true ends the loop")
    on_limit: Literal["fail", "complete"] = Field(
        default="fail", description="what becomes of the step if `until` still does not hold after `max` iterations"
    )


class CaseSpec(Spec):
    """One way out of a switch."""

    name: Name
    when: str = Field(description="an expression")
    then: tuple[StepId, ...] = Field(default=(), description="steps that run only if this case is chosen")


class SwitchSpec(Spec):
    """Chooses the first case whose `when` holds, else the default; the steps of all the others are skipped."""

    cases: tuple[CaseSpec, ...] = Field(min_length=1, max_length=100)
    default: tuple[StepId, ...] = Field(default=(), description="steps that run only if no case holds")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [case.name for case in self.cases]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            message = f"two cases are called {twice!r}"
            raise ValueError(message)
        return self


class Approvers(Spec):
    """Who may decide: these principals, and whoever has one of these roles. Without either, everybody."""

    principals: tuple[Principal, ...] = Field(default=(), max_length=100)
    roles: tuple[Role, ...] = Field(default=(), max_length=100)
    expires_s: Seconds | None = Field(default=None, description="time for the decision")


class ApprovalRules(Approvers):
    """Who decides, how many of them, and what becomes of it if they do not."""

    quorum: int = Field(default=1, ge=1, le=100, description="approvals that it takes; one rejection rejects")
    on_expiry: Literal["reject", "escalate"] = "reject"
    escalate_to: Approvers | None = Field(default=None, description="who is asked after the expiry")
    own: bool = Field(default=False, description="whether who started the run may approve it")

    @model_validator(mode="after")
    def _can_be_decided(self) -> Self:
        for asked in (self, self.escalate_to):
            if asked and asked.principals and not asked.roles and len(set(asked.principals)) < self.quorum:
                few = count(len(set(asked.principals)), "principal")
                message = f"a quorum of {self.quorum} cannot be reached by {few}"
                raise ValueError(message)
        if (self.on_expiry == "escalate") != (self.escalate_to is not None):
            message = "on_expiry: escalate and escalate_to belong together"
            raise ValueError(message)
        if self.on_expiry == "escalate" and self.expires_s is None:
            message = "on_expiry: escalate needs expires_s"
            raise ValueError(message)
        return self


class ApprovalSpec(ApprovalRules):
    """Asks people before the run goes on. Decisions are bound to the exact `ask` and `action` that were shown."""

    ask: str = Field(min_length=1, description="the question; may hold expressions")
    action: JsonValue = Field(default=None, description="what is to be approved; strings may be expressions")


class WaitSpec(Spec):
    """Waits for some time, until a time, or for a signal (whose payload is the output)."""

    for_s: Pause | str | None = Field(default=None, description="seconds, or an expression that gives them")
    until: str | None = Field(default=None, description="a time with its zone (RFC 3339), or an expression for one")
    signal: SignalName | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        _exactly_one(self, ("for_s", "until", "signal"))
        if isinstance(self.for_s, str) and "{{" not in self.for_s:
            message = f"for_s must be a number of seconds, or an expression that gives one (got {self.for_s!r})"
            raise ValueError(message)
        if self.until is not None and "{{" not in self.until and parse_time(self.until) is None:
            message = f"until must be a time with its zone, such as 2026-05-01T09:00:00Z (got {self.until!r})"
            raise ValueError(message)
        return self


class EmitSpec(Spec):
    """Publishes an event as `evt.emit.{run_id}.{event}`."""

    event: EventName
    data: JsonValue = Field(default=None, description="strings may be expressions")


class FallbackSpec(Spec):
    """Who steps in: a step that starts only if this one failed for good, and whose output then is also this one's."""

    fallback: StepId


class StepSpec(Spec):
    """A node of the graph: exactly one of the kinds' keys says what it does."""

    id: StepId
    agent: Name | None = None
    tool: Name | None = None
    workflow: Name | None = None
    map: MapSpec | None = None
    loop: LoopSpec | None = None
    switch: SwitchSpec | None = None
    approval: ApprovalSpec | None = None
    wait: WaitSpec | None = None
    emit: EmitSpec | None = None
    input: Given = Field(default_factory=dict, description="what the target gets; strings may be expressions")
    needs: tuple[StepId, ...] = Field(default=(), description="steps to wait for, besides those that expressions name")
    when: str | None = Field(default=None, description="an expression; false skips the step")
    retry: RetrySpec = RetrySpec()
    timeout_s: Seconds | None = Field(default=None, description="time for one attempt, or for all of a map or loop")
    on_error: Literal["fail", "continue"] | FallbackSpec = "fail"
    compensate: WorkSpec | None = Field(default=None, description="what undoes the step if the run fails later")
    pool: PoolName | None = Field(default=None, description="worker pool of its tasks; else its agent's or tool's")
    description: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        _exactly_one(self, KINDS, f"step {self.id!r}: ")
        if not self.target:
            idle = {"input": {}, "retry": RetrySpec(), "compensate": None, "pool": None}
            stray = next((field for field, default in idle.items() if getattr(self, field) != default), None)
            if stray is not None:
                message = f"step {self.id!r}: {stray} belongs to agent, tool or workflow, not to {self.kind}"
                raise ValueError(message)
        _no_pool_of_workflow(self)
        return self

    @property
    def kind(self) -> StepKind:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def target(self) -> str:
        """Name of the agent, tool or workflow; empty for the other kinds."""
        return self.agent or self.tool or self.workflow or ""

    @property
    def work(self) -> WorkSpec | None:
        """The work that the step itself does."""
        if not self.target:
            return None
        return WorkSpec(
            agent=self.agent,
            tool=self.tool,
            workflow=self.workflow,
            input=self.input,
            retry=self.retry,
            timeout_s=self.timeout_s,
            pool=self.pool,
        )

    @property
    def fallback(self) -> str | None:
        """The step that steps in for this one."""
        return self.on_error.fallback if isinstance(self.on_error, FallbackSpec) else None

    def works(self) -> Iterator[tuple[str, WorkSpec]]:
        """All work that may be done for the step, each with its path below the step (empty: its own)."""
        own = (("", self.work), (".map", self.map), (".loop", self.loop), (".compensate", self.compensate))
        yield from ((path, work) for path, work in own if work is not None)


class RetentionSpec(Spec):
    """How long ended runs are kept."""

    keep_s: Annotated[float, Field(ge=0, le=100 * 366 * 86_400, allow_inf_nan=False)]


class WorkflowSpec(Spec):
    """`spec` of a `kind: Workflow` manifest."""

    description: str = ""
    input: JsonObject = Field(default_factory=dict, description="JSON Schema of a run's input")
    steps: tuple[StepSpec, ...] = Field(min_length=1, max_length=10_000)
    output: JsonValue = Field(default=None, description="what the run gives; strings may be expressions")
    timeout_s: Seconds | None = Field(default=None, description="time for a whole run")
    concurrency: int | None = Field(
        default=None, ge=1, le=10_000, description="most steps, items and iterations of one run at work"
    )
    max_runs: int | None = Field(default=None, ge=1, le=1_000_000, description="most running runs of this workflow")
    retention: RetentionSpec | None = Field(default=None, description="how long ended runs are kept")

    def works(self) -> Iterator[tuple[str, WorkSpec]]:
        """All work that a run may do, each with its path below `spec`."""
        for index, step in enumerate(self.steps):
            yield from ((f"steps[{index}]{path}", work) for path, work in step.works())


def parse_time(text: str) -> datetime | None:
    """The time that `text` names, in UTC, if it does and says its zone. One that UTC has no year for names none."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _exactly_one(spec: Spec, fields: tuple[str, ...], what: str = "") -> None:
    given = [name for name in fields if getattr(spec, name) is not None]
    if len(given) != 1:
        named = f"{', '.join(fields[:-1])} and {fields[-1]}"
        message = f"{what}give exactly one of {named}" + (f" (got {' and '.join(given)})" if given else "")
        raise ValueError(message)


def _no_pool_of_workflow(spec: WorkSpec | StepSpec) -> None:
    if spec.pool is not None and spec.workflow is not None:
        message = "pool belongs to agent or tool, not to workflow: the steps of a child run name their own"
        raise ValueError(message)
