"""Workflow manifests: a DAG of steps, as people write it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from paracle_domain.messages import Given, JsonObject

StepId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Seconds = Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False)]
ErrorCode = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,64}$")]


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


class StepSpec(Spec):
    """A node of the graph: exactly one of `agent` and `tool` says what it does."""

    id: StepId
    agent: Name | None = None
    tool: Name | None = None
    input: Given = Field(default_factory=dict, description="what the target gets; strings may be expressions")
    needs: tuple[StepId, ...] = Field(default=(), description="steps to wait for, besides those that expressions name")
    when: str | None = Field(default=None, description="an expression; false skips the step")
    retry: RetrySpec = RetrySpec()
    timeout_s: Seconds | None = Field(default=None, description="time for one attempt")
    on_error: Literal["fail", "continue"] = "fail"
    description: str = ""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.agent is None) == (self.tool is None):
            message = f"step {self.id!r}: give exactly one of agent and tool"
            raise ValueError(message)
        return self

    @property
    def target_kind(self) -> Literal["agent", "tool"]:
        return "agent" if self.agent is not None else "tool"

    @property
    def target(self) -> str:
        """Name of the agent or tool."""
        return self.agent or self.tool or ""


class WorkflowSpec(Spec):
    """`spec` of a `kind: Workflow` manifest."""

    description: str = ""
    input: JsonObject = Field(default_factory=dict, description="JSON Schema of a run's input")
    steps: tuple[StepSpec, ...] = Field(min_length=1, max_length=10_000)
    output: JsonValue = Field(default=None, description="what the run gives; strings may be expressions")
    timeout_s: Seconds | None = Field(default=None, description="time for a whole run")
