"""What is asked of the provider gateway."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from paracle_domain import subjects
from paracle_domain.guard.spec import Direction, Guard
from paracle_domain.ids import RunId, TaskId
from paracle_domain.inference.caching import CachePolicy
from paracle_domain.inference.chat import ChatMessage, OutputFormat, Sampling, ToolChoice, ToolDefinition
from paracle_domain.inference.response import Completion, ModelList
from paracle_domain.messages import Message, Plain, Request, Value

CallId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")]
LONGEST_LABEL: Final = 256
CallLabel = Annotated[Plain, Field(max_length=LONGEST_LABEL)]
"""Usage is looked for, and budgets count, by it: as much as a database takes for that."""


type Priority = Literal["low", "normal", "high"]
"""Which of a tenant's calls go first where they have to wait; no tenant goes before another by it."""


class CallLabels(Value):
    """What a model call is for: it is accounted, logged and traced under these.

    `principal` is who started the run, `project` the run's label of that name; `parent_task_id` is the task of the
    agent that turned to this one, if one did.
    """

    run_id: RunId | None = None
    task_id: TaskId | None = None
    agent: CallLabel | None = None
    step: Annotated[Plain, Field(max_length=2_000)] | None = None
    principal: CallLabel | None = None
    project: CallLabel | None = None
    parent_task_id: TaskId | None = None


_PLAIN: Final = Sampling()  # frozen, so one is enough: as a default, pydantic would copy it for every request


class Complete(Request[Completion], service="provider_gateway", method="complete", answer=Completion):
    """Ask a model for the next message of a conversation.

    `call_id` names the call: asked again with the same one, the gateway hands out the answer that it has, or joins the
    call that is in the air; the same id with another request is a `Conflict`. `model` is `provider/model`, or
    `default` for the first provider that is set up. `stream_to`: the task on whose `out` subject deltas are published,
    and that the call waits. `waits_to`: another one on whose subject it is told as well that it waits.
    `attempts_before`: where nobody answered an earlier question with this id, the deltas of this one are numbered as
    attempts after so many, since they replace what was streamed then.
    `priority`: where calls have to wait, those of each tenant go by it. `timeout_s` bounds everything, retries and
    waits included. `cache`: an answer that the tenant got to the same question will do; without it, none will.
    `guards` are asked about what goes in before anything else is done with it, and about the reply before
    anybody has it: where there are guards of the output, nothing is streamed until they have let it pass.

    Errors: `NotFound` (provider or model), `InvalidInput`, `RateLimited`, `ProviderUnavailable`, `ProviderFailed`,
    `ContentRefused` (by the provider, or by a guard that its `details` name), `DeadlineExceeded`, `Cancelled` (after an
    `AbortCall`), `Unavailable` (a guard that cannot be asked is so, too).
    """

    call_id: CallId
    model: Plain = Field(default="default", min_length=1, max_length=200)
    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice = "auto"
    output: OutputFormat | None = None
    sampling: Sampling = Field(
        default_factory=lambda: _PLAIN, json_schema_extra={"default": _PLAIN.model_dump(mode="json")}
    )
    stream_to: TaskId | None = None
    waits_to: TaskId | None = None
    attempts_before: int = Field(default=0, ge=0)
    priority: Priority = "normal"
    timeout_s: float = Field(default=300.0, gt=0, le=3_600)
    labels: CallLabels = CallLabels()
    cache: CachePolicy | None = None
    guards: tuple[Guard, ...] = ()

    def guarded(self, direction: Direction) -> bool:
        """Whether any guard looks at what goes in, or comes out."""
        return any(guard.watches(direction) for guard in self.guards)


class ListModels(Request[ModelList], service="provider_gateway", method="list_models", answer=ModelList, query=True):
    """Which models can be asked by name; a provider may know more than it lists."""


class AbortCall(Message, type_name="inference.abort_call"):
    """Stop the call `call_id`: its upstream connection is closed, and whoever waits for it gets `Cancelled`.

    Broadcast on `abort_subject(tenant)`: every replica hears it, the one that has the call acts.
    """

    call_id: CallId
    reason: str = Field(default="aborted by its caller", max_length=1_000)


def abort_subject(tenant: str) -> str:
    """Where an `AbortCall` is broadcast (core NATS, no answer)."""
    return subjects.rpc(tenant, "provider_gateway", "abort")
