"""Agents as they run: inheritance resolved, lists merged. What people write is in `agent.manifest`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, StringConstraints

from paracle_domain.guard.spec import Guard
from paracle_domain.inference.caching import CacheSeconds
from paracle_domain.inference.chat import PromptCache, Thinking
from paracle_domain.inference.request import Priority
from paracle_domain.messages import JsonObject
from paracle_domain.tool.spec import Money, ToolApproval
from paracle_domain.workflow.spec import Name, PoolName, Seconds, Spec

type ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
type Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
type OutputTokens = Annotated[int, Field(ge=1, le=1_000_000)]
type Turns = Annotated[int, Field(ge=1, le=1_000)]
type ToolCalls = Annotated[int, Field(ge=0, le=10_000)]
type Tokens = Annotated[int, Field(ge=1)]
type ContextTokens = Annotated[int, Field(ge=100, le=100_000_000)]
type KeepLast = Annotated[int, Field(ge=0, le=1_000)]
type OutputRepairs = Annotated[int, Field(ge=0, le=10)]


class Cache(Spec):
    """Whether an answer that the tenant got to the very same question will do: one that is not older than `ttl_s`."""

    ttl_s: CacheSeconds


class ModelChoice(Spec):
    """Which model, and how it is asked.

    `name` is `provider/model` (`openai/gpt-5-mini`, `sandbox/rules`) or `default`: the first provider that is set up.
    """

    name: ModelName = "default"
    temperature: Temperature | None = None
    max_output_tokens: OutputTokens | None = None
    priority: Priority = Field(default="normal", description="which of a tenant's calls go first where they wait")
    thinking: Thinking | None = Field(default=None, description="how much it thinks; as it does by itself if absent")
    prompt_cache: PromptCache = Field(
        default="auto", description="whether the provider is told what to keep of prompts that may come again"
    )
    cache: Cache | None = Field(default=None, description="whether a kept answer will do; never if absent")
    params: dict[str, JsonValue] = Field(default={}, description="handed to the provider as they are")


class Limits(Spec):
    """How far one task of the agent may go, with all that it delegates; reaching one fails it with `limit_exceeded`."""

    turns: Turns = 20
    tool_calls: ToolCalls = 50
    wall_time_s: Seconds = 600.0
    tokens: Tokens = 1_000_000
    cost_usd: Money | None = None
    output_repairs: OutputRepairs = Field(default=2, description="turns to mend an output that breaks the schema")


class Compaction(Spec):
    """When and how a conversation that grew long is summed up for the model: that of a session, or a task's own.

    Before a model call that would be longer than `above_tokens`, what was said first is summed up by a model call of
    its own. The newest turns (within one task: replies with what their tools gave) are kept word by word, and so is the
    question at hand: at most `keep_last` turns, fewer if they alone take more than half of `above_tokens`. Originals
    are kept. A model that refuses a call as too long for it has the same done, whatever `above_tokens` says.
    """

    when: Literal["auto", "never"] = "auto"
    above_tokens: ContextTokens = 100_000
    keep_last: KeepLast = 6
    model: ModelName | None = Field(default=None, description="who sums up; the agent's own model if absent")
    instructions: str = Field(default="", max_length=10_000, description="what summaries must say besides the usual")


type DelegateMode = Literal["call", "handoff"]

_PREFIXES: Final = {"call": "ask_", "handoff": "hand_to_"}


class Delegate(Spec):
    """Another agent that this one may turn to; its model sees it as a tool.

    `call`: the delegate's answer is the result of the call. `handoff`: it is the answer of the whole task.
    """

    agent: Name
    mode: DelegateMode = "call"
    description: str = Field(default="", max_length=2_000, description="when to turn to it; the agent's own if absent")

    @property
    def tool_name(self) -> str:
        """What the model calls: `ask_writer`, `hand_to_writer`."""
        return _PREFIXES[self.mode] + self.agent


class AgentSpec(Spec):
    """An agent with nothing left to resolve.

    `instructions` is a minijinja template over `input`. `output` is the JSON Schema of the final answer; without
    one the answer is text.
    """

    description: str = ""
    model: ModelChoice = ModelChoice()
    instructions: str = ""
    input: JsonObject = {}
    output: JsonObject | None = None
    tools: tuple[Name, ...] = ()
    delegates: tuple[Delegate, ...] = ()
    approvals: dict[Name, ToolApproval] = Field(default={}, description="stricter policies for tools, by name")
    limits: Limits = Limits()
    compaction: Compaction = Compaction()
    guards: tuple[Guard, ...] = Field(default=(), description="what is looked at in its model calls, in this order")
    pool: PoolName | None = Field(default=None, description="worker pool of its tasks")
    metadata: dict[str, JsonValue] = {}
