"""Provider and model manifests, as people write them: who answers model calls, and by which names."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from paracle_domain.errors import quote
from paracle_domain.tool.spec import HeaderName, HeaderValue
from paracle_domain.workflow.spec import Spec

type Rate = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
type Patience = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]
type Count = Annotated[int, Field(ge=1, le=1_000_000_000)]

BaseUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#@]+$", max_length=500)]
ModelId = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]+$", min_length=1, max_length=150)]
"""What a provider calls one of its models; there may be slashes in it."""

DEFAULT: Final = "default"
DEFAULT_EMBEDDING: Final = "default-embedding"
"""The tenant's own model that `default` stands for where embeddings are asked for."""
SANDBOX: Final = "sandbox"
BUILTIN: Final = "builtin"
"""Models that are part of the gateway."""
FROM_ENVIRONMENT: Final = ("openai-compatible", "openai", "anthropic", BUILTIN, SANDBOX)
"""Providers that the operator sets up by the gateway's environment, or that are always there."""


def _deployment_name(text: str) -> str:
    provider, slash, model = text.partition("/")
    if not provider or not slash or not model:
        raise ValueError(f"{quote(text)} names no provider; write provider/model, such as openai/gpt-5-mini")
    return text


_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_ONE_PLACE: Final = "give exactly one of env and file: the name of a variable or of a file, never the key itself"


def _variable(name: str) -> str:
    """Refuses what is no name without quoting it: it may be the key itself."""
    if not _VARIABLE.fullmatch(name):
        raise ValueError("this is no name of a variable (A-Z, 0-9 and _); write its name, never the key itself")
    return name


def _file(name: str) -> str:
    """As `_variable`."""
    if not _FILE.fullmatch(name):
        raise ValueError("this is no name of a file in the folder of keys; write its name, never the key itself")
    return name


KeyVariable = Annotated[str, AfterValidator(_variable)]
KeyFile = Annotated[str, AfterValidator(_file)]
DeploymentName = Annotated[str, StringConstraints(max_length=200), AfterValidator(_deployment_name)]
"""`provider/model`."""


class Api(StrEnum):
    """What a provider speaks: OpenAI's Chat Completions or Responses, or Anthropic's Messages."""

    OPENAI_CHAT = "openai_chat"
    OPENAI_RESPONSES = "openai_responses"
    ANTHROPIC = "anthropic"


class KeyRef(Spec):
    """Where a key is: by its name alone. It is read anew when it changes.

    `env` is a variable of the provider gateway; `file` a file in its folder of keys. Keys go to hosts only that the
    operator allows for them.
    """

    env: KeyVariable | None = None
    file: KeyFile | None = None
    header: HeaderName | None = Field(default=None, description="that carries it; `Authorization: Bearer …` if absent")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if not isinstance(given, dict | KeyRef):
            raise ValueError(_ONE_PLACE)  # noqa: TRY004  # pydantic turns no other into a finding; what was given is not quoted
        return given

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError(_ONE_PLACE)
        return self

    @property
    def name(self) -> str:
        """Its name, wherever it is."""
        return self.env or self.file or ""


class Capabilities(Spec):
    """What a model can do, where its maker's data or a manifest says so; what nobody knows is not refused."""

    tools: bool | None = None
    vision: bool | None = Field(default=None, description="whether it takes images")
    json_schema: bool | None = Field(default=None, description="whether it keeps to a schema that is enforced")
    thinking: bool | None = None
    embeddings: bool | None = None
    context_tokens: Count | None = Field(default=None, description="most that it reads and writes in one call")
    max_output_tokens: Count | None = None

    def over(self, other: Capabilities) -> Capabilities:
        """These, and what `other` knows where these know nothing."""
        return other.model_copy(update={name: value for name, value in self if value is not None})


class Price(Spec):
    """USD per million tokens. Kinds without one cost what all input, or all output, does."""

    input: Rate
    output: Rate
    cached: Rate | None = Field(default=None, description="input that was read from the provider's cache")
    cache_write: Rate | None = Field(default=None, description="input that was written to it")
    reasoning: Rate | None = Field(default=None, description="output that is thought")


class DeploymentLimits(Spec):
    """What all replicas of the gateway together may ask of one model of the provider; what is over waits."""

    concurrency: Count | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None


class Timeouts(Spec):
    """Seconds that one request may take; what is absent is the gateway's own. The call's `timeout_s` holds anyway."""

    connect_s: Patience | None = None
    first_token_s: Patience | None = Field(default=None, description="to the first piece of a stream")
    between_tokens_s: Patience | None = Field(default=None, description="from each piece to the next")
    total_s: Patience | None = None


class Retries(Spec):
    """How often a call asks again, and how long it waits before: up to `base_s`, doubled each time, at most `cap_s`."""

    attempts: int = Field(default=4, ge=1, le=20, description="requests in all; but each route is asked once")
    base_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 0.5
    cap_s: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 20


class KnownModel(Spec):
    """What is to be known of one model of a provider, over what is known already."""

    capabilities: Capabilities = Capabilities()
    price: Price | None = Field(default=None, description="the list price if absent; unknown if there is none")
    limits: DeploymentLimits | None = Field(default=None, description="instead of the provider's")
    timeouts: Timeouts | None = Field(default=None, description="instead of the provider's")


class ProviderSpec(Spec):
    """`spec` of a `kind: Provider` manifest: an endpoint that answers model calls, as `{name}/{model}`.

    A preset knows the API, the URL and the usual name of the key; what is written besides counts more.
    """

    description: str = ""
    preset: str | None = Field(default=None, max_length=63, description="a provider that is known, or how one is like")
    api: Api | None = Field(default=None, description="the preset's; `openai_chat` without one")
    base_url: BaseUrl | None = Field(default=None, description="with its /v1; the preset's if absent")
    key: KeyRef | None = Field(default=None, description="the preset's if absent; none if it is `null`")
    headers: dict[HeaderName, HeaderValue] = Field(default={}, max_length=20, description="sent with every request")
    query: dict[str, str] = Field(default={}, max_length=20, description="put behind every URL")
    default_model: ModelId | None = Field(default=None, description="the one that it shows first")
    models: dict[ModelId, KnownModel] = Field(default={}, max_length=500)
    only_listed: bool = Field(default=False, description="refuse models that `models` does not have")
    limits: DeploymentLimits = DeploymentLimits()
    timeouts: Timeouts = Timeouts()
    transport: Literal["http", "sdk"] = Field(default="http", description="`sdk`: through the maker's own library")


class Strategy(StrEnum):
    """How the routes of a model are ordered for one call.

    `priority`: as they are written. `weighted`: drawn, by weight. `lowest_latency`: the quickest of late first.
    `lowest_cost`: the cheapest for this call first; those without a known price last.
    """

    PRIORITY = "priority"
    WEIGHTED = "weighted"
    LOWEST_LATENCY = "lowest_latency"
    LOWEST_COST = "lowest_cost"


class RouteSpec(Spec):
    """One way to an answer."""

    model: DeploymentName = Field(description="provider/model")
    weight: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] = Field(
        default=1, description="its share where the strategy is `weighted`"
    )


class HedgeSpec(Spec):
    """When the next route is asked besides one that has not answered yet; the first answer counts, both cost."""

    after_s: Patience


class ModelSpec(Spec):
    """`spec` of a `kind: Model` manifest: a name for models, that agents can use like `provider/model`.

    All its routes failing, the models of `fallbacks` are asked in turn.
    """

    description: str = ""
    strategy: Strategy = Strategy.PRIORITY
    routes: tuple[RouteSpec, ...] = Field(min_length=1, max_length=50)
    fallbacks: tuple[Annotated[str, StringConstraints(min_length=1, max_length=200)], ...] = Field(
        default=(), max_length=10, description="other models: names of `kind: Model`, or provider/model"
    )
    retry: Retries | None = Field(default=None, description="the gateway's own if absent")
    hedge: HedgeSpec | None = None


def is_deployment(name: str) -> bool:
    """Whether `name` is `provider/model`, and not that of a `kind: Model`."""
    return "/" in name


def provider_of(name: str) -> str:
    """The provider in `provider/model`."""
    return name.partition("/")[0]
