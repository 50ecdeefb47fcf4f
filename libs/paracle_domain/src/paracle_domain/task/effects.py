"""The ledger of effects as people see it: what every call of a tool that changes the world came to."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from paracle_domain.ids import RunId, TaskId
from paracle_domain.messages import Command, Message, Moment, Plain, Request, Sent, Value
from paracle_domain.tool.spec import Effect

EffectKey = Annotated[str, StringConstraints(pattern=r"^eff_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
Truth = Literal["done", "not_done"]


class EffectState(StrEnum):
    """How an effect stands. `in_doubt`: it may or may not have happened; `resolved`: somebody found out."""

    INTENDED = "intended"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    RESOLVED = "resolved"


class Resolution(Value):
    """What somebody found out about an effect that was in doubt, and how he knows."""

    outcome: Truth
    output: JsonValue = None
    reason: str
    principal: str
    at: datetime


class ProbeView(Value):
    """What probes of an effect came to so far. `open`: another is to follow; until then nobody needs to find out."""

    tool: str
    tried: int
    outcome: Literal["done", "not_done", "unknown"] | None = None
    reason: str | None = None
    open: bool


class EffectView(Message, type_name="effect.view"):
    """One effect: the call that has this key, however often it was tried. Attempt and task are the last that had it."""

    key: EffectKey
    state: EffectState
    effect: Effect
    tool: str
    revision: int
    run_id: RunId
    step: str
    attempt: int
    task_id: TaskId
    call_id: str
    scope: str = Field(description="what names the step, and the way to a delegate, in the key")
    arguments_digest: str
    reason: str | None = Field(default=None, description="why it failed or is in doubt")
    called: str | None = Field(
        default=None, description="in a fork: the key of the call that is in doubt, its parent's"
    )
    probe: ProbeView | None = Field(default=None, description="what the tool's probe found, if it was asked")
    intended_at: datetime
    changed_at: datetime
    resolution: Resolution | None = None
    resolved: int = Field(default=0, description="how often somebody resolved it")


class EffectPage(Message, type_name="effect.page"):
    """Effects, the newest first; `next_cursor` asks for the page after it."""

    effects: tuple[EffectView, ...]
    next_cursor: str | None = None


class EffectFilter(Value):
    """Which effects: those that meet all that is given."""

    state: EffectState | None = None
    tool: Plain | None = Field(default=None, max_length=64)
    run_id: RunId | None = None
    since: Moment | None = Field(default=None, description="intended then or later")
    until: Moment | None = Field(default=None, description="intended earlier than that")


class ListEffects(Request[EffectPage], service="agent_runtime", method="list_effects", answer=EffectPage, query=True):
    """Effects of the tenant's tasks, the newest first."""

    filter: EffectFilter = EffectFilter()
    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = None


class GetEffect(Request[EffectView], service="agent_runtime", method="get_effect", answer=EffectView, query=True):
    """One effect, by its idempotency key."""

    key: EffectKey


class ResolveEffect(Command, service="agent_runtime", verb="resolve_effect"):
    """Say what became of an effect that is in doubt; answered with its `EffectView`.

    Later attempts of the step, and a fork from it, believe that: what was `done` is not done again and gave `output`;
    what was `not_done` may be done.
    """

    key: EffectKey
    outcome: Truth
    output: Sent = Field(default=None, description="what the tool would have answered, if it was done")
    reason: str = Field(min_length=1, max_length=4_000, description="how you know")
