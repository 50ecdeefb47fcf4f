"""Agents as people write them: every field optional, lists edited, and perhaps a parent to start from.

What a manifest leaves out comes from the parent, or is the default. A field that is `null` takes the parent's value
away again: it has its default. `inheritance.resolve` makes an `AgentSpec` of it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from paracle_domain.agent.spec import (
    AgentSpec,
    Cache,
    Compaction,
    ContextTokens,
    Delegate,
    KeepLast,
    Limits,
    ModelChoice,
    ModelName,
    OutputRepairs,
    OutputTokens,
    Temperature,
    Tokens,
    ToolCalls,
    Turns,
)
from paracle_domain.guard.spec import Guard, distinct
from paracle_domain.inference.chat import PromptCache, Thinking
from paracle_domain.inference.request import Priority
from paracle_domain.messages import JsonObject
from paracle_domain.names import suggest
from paracle_domain.tool.spec import Money, ToolApproval
from paracle_domain.workflow.spec import Name, PoolName, Seconds, Spec

Guards = Annotated[tuple[Guard, ...], AfterValidator(distinct)]


class ModelEdit(Spec):
    """What changes about the parent's `model`; `params` merge per key, `null` removes one."""

    name: ModelName | None = None
    temperature: Temperature | None = None
    max_output_tokens: OutputTokens | None = None
    priority: Priority | None = None
    thinking: Thinking | None = None
    prompt_cache: PromptCache | None = None
    cache: Cache | None = None
    params: dict[str, JsonValue] | None = None


class LimitsEdit(Spec):
    """What changes about the parent's `limits`."""

    turns: Turns | None = None
    tool_calls: ToolCalls | None = None
    wall_time_s: Seconds | None = None
    tokens: Tokens | None = None
    cost_usd: Money | None = None
    output_repairs: OutputRepairs | None = None


class CompactionEdit(Spec):
    """What changes about the parent's `compaction`."""

    when: Literal["auto", "never"] | None = None
    above_tokens: ContextTokens | None = None
    keep_last: KeepLast | None = None
    model: ModelName | None = None
    instructions: str | None = Field(default=None, max_length=10_000)


class ListEdit(Spec):
    """An edit of the parent's list: first `remove`, then `add` at its end. A plain list replaces it instead."""

    add: tuple[Name, ...] = ()
    remove: tuple[Name, ...] = ()


class DelegatesEdit(Spec):
    """An edit of the parent's delegates: first those of the agents in `remove` go, then `add` is put at the end."""

    add: tuple[Delegate, ...] = ()
    remove: tuple[Name, ...] = ()


class GuardsEdit(Spec):
    """An edit of the parent's guards: first those named in `remove` go, then `add` is put at the end."""

    add: Guards = ()
    remove: tuple[Name, ...] = ()


def _list_or_edit(value: object) -> str | None:
    if isinstance(value, list | tuple):
        return "list"
    return "edit" if isinstance(value, dict | ListEdit | DelegatesEdit | GuardsEdit) else None


_EDITABLE: Final = Discriminator(
    _list_or_edit,
    custom_error_type="list_or_edit",
    custom_error_message="give a list, or {add: [...], remove: [...]} to edit the parent's",
)

type EditableList = Annotated[Annotated[tuple[Name, ...], Tag("list")] | Annotated[ListEdit, Tag("edit")], _EDITABLE]
type EditableDelegates = Annotated[
    Annotated[tuple[Delegate, ...], Tag("list")] | Annotated[DelegatesEdit, Tag("edit")], _EDITABLE
]
type EditableGuards = Annotated[Annotated[Guards, Tag("list")] | Annotated[GuardsEdit, Tag("edit")], _EDITABLE]


class AgentManifest(Spec):
    """`spec` of a `kind: Agent` manifest.

    `instructions` may include the parent's by `{{ parent }}`. `final` lists fields (`model.name`, `limits`,
    `tools`, …) whose values no descendant may change.
    """

    extends: Name | None = None
    description: str | None = None
    model: ModelEdit | None = None
    instructions: str | None = None
    input: JsonObject | None = None
    output: JsonObject | None = None
    tools: EditableList | None = None
    delegates: EditableDelegates | None = None
    approvals: dict[Name, ToolApproval | None] | None = None
    limits: LimitsEdit | None = None
    compaction: CompactionEdit | None = None
    guards: EditableGuards | None = None
    pool: PoolName | None = None
    metadata: dict[str, JsonValue] | None = None
    final: tuple[str, ...] = Field(default=(), description="paths of fields that no descendant may change")

    @model_validator(mode="after")
    def _final_fields_exist(self) -> Self:
        for path in self.final:
            _check_field(path)
        return self


_PARTS: Final = {
    "model": frozenset(ModelChoice.model_fields),
    "limits": frozenset(Limits.model_fields),
    "compaction": frozenset(Compaction.model_fields),
}


def _check_field(path: str) -> None:
    """Whether `path` names a field of a resolved agent (or a key of one of its maps)."""
    name, _, rest = path.partition(".")
    if name not in AgentSpec.model_fields:
        message = f"final: an agent has no field {path!r}{suggest(name, AgentSpec.model_fields)}"
        raise ValueError(message)
    part = rest.partition(".")[0]
    known = _PARTS.get(name)
    if part and known is not None and part not in known:
        message = f"final: {name} has no field {part!r}{suggest(part, known)}"
        raise ValueError(message)
    if rest and known is None and name != "metadata":
        message = f"final: {path!r} names a part of {name}; only the whole field can be final"
        raise ValueError(message)
