"""What the provider gateway answers, and the deltas that it publishes while the answer grows."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

from pydantic import Field

from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import Message, Value


class FinishReason(StrEnum):
    """Why the model stopped. `length`: its output limit cut the answer off."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    OTHER = "other"


class Completion(Message, type_name="inference.completion"):
    """A model's reply, whole. `sandbox` marks the answers of the built-in rule-based model.

    `model` is the name that the provider answered with, `deployment` the `provider/model` that was asked. `latency_s`
    is the time from accepting the call to the whole answer, retries included; `first_token_s` that to the first delta
    of the attempt which succeeded (absent where the provider was not asked to stream). `attempts` counts the requests
    that were sent, to whichever deployments. `saved`: the answer came from the cache, and that is what it used when it
    was made; `usage` is nothing then, and so are the `attempts`.
    """

    message: ChatMessage
    finish_reason: FinishReason
    usage: Usage
    provider: str
    model: str
    deployment: str = ""
    sandbox: bool = False
    latency_s: float = Field(ge=0)
    first_token_s: float | None = Field(default=None, ge=0)
    attempts: int = Field(default=1, ge=0)
    saved: Usage | None = None


class BreakerState(StrEnum):
    """Whether calls go to a deployment: `open`: none, since it failed too often; `half_open`: one, to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class ModelInfo(Value):
    """A model that can be asked. Prices are in USD per million tokens; absent: unknown, which is not zero.

    `routes`: what a model of the tenant's own leads to, as provider/model; the rest is told of the first of them.
    `capabilities`: those that it is known to have. `breaker`, `rests_s` (how long it is left in peace) and `trouble`
    (its latest failure, if there was one of late) are what the replica that answers knows.
    """

    name: str = Field(description="provider/model, or the name of a model of the tenant's own")
    provider: str
    sandbox: bool = False
    default: bool = False
    input_usd_per_mtok: Decimal | None = None
    output_usd_per_mtok: Decimal | None = None
    routes: tuple[str, ...] = ()
    context_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    breaker: BreakerState = BreakerState.CLOSED
    rests_s: float = Field(default=0.0, ge=0)
    trouble: str | None = None


class ModelList(Message, type_name="inference.models"):
    """Models by name, and what `default` stands for; where embeddings are asked for, that is another one, if any."""

    models: tuple[ModelInfo, ...]
    default: str
    default_embedding: str | None = None
