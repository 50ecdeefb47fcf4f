"""What the gateway needs from the outside: providers that answer, manifests of tenants, a way out for deltas."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from paracle_domain.envelope import Context
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.deltas import Change, Delta
from paracle_domain.inference.embedding import Embed, Embeddings
from paracle_domain.inference.moderation import Moderate
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.inference.retrying import Retrying
from paracle_domain.inference.usage import Usage

if TYPE_CHECKING:
    from paracle_provider_gateway.plans import Deployment
from paracle_domain.registry import ProviderChange, ProviderChanges


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's answer to one request. `usage` has tokens only; money is added by the gateway."""

    message: ChatMessage
    finish_reason: FinishReason
    usage: Usage
    model: str


@dataclass(frozen=True, slots=True)
class Vectors:
    """A provider's answer to one request for embeddings: a packed vector of each text, all of the same length."""

    vectors: tuple[str, ...]
    dimensions: int
    usage: Usage
    model: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A change to part `index` of a reply that is being streamed."""

    index: int
    change: Change


@dataclass(frozen=True, slots=True)
class Closing:
    """The last item of a stream: it said everything. A stream that ends without one broke off."""

    finish_reason: FinishReason
    usage: Usage
    model: str


type StreamItem = Piece | Closing
type Said = Reply | Vectors | Judgements
"""What a provider says to one request."""
type Answer = Completion | Embeddings
"""What the gateway answers to a call."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a model answered to a call, and guards have not let out yet."""

    completion: Completion


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per million tokens."""

    input: float
    output: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model for moderation says of one text: the categories that it flags, and its score in each."""

    flagged: frozenset[str]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Judgements:
    """A provider's answer to one request for moderation: a judgement of each text."""

    judgements: tuple[Judgement, ...]
    usage: Usage
    model: str


class Provider(Protocol):
    """A source of answers: a `Speaker`, an `Embedder` or a `Judge`, or several of these.

    One request each: retries, time limits and prices are the gateway's. Errors are raised as `ProviderFailed`,
    `ProviderUnavailable`, `RateLimited`, `NotFound` or `ContentRefused`, without any secret.
    """

    @property
    def name(self) -> str:
        """The part before the slash in `provider/model`."""

    @property
    def source(self) -> str:
        """Where its answers come from, and how they are asked for: another one may answer otherwise."""

    @property
    def sandbox(self) -> bool:
        """Whether its answers come from rules instead of a model."""

    @property
    def listed_models(self) -> tuple[str, ...]:
        """Models to show; it may know more."""

    async def close(self) -> None:
        """Give up connections."""


@runtime_checkable
class Speaker(Provider, Protocol):
    """A provider whose models hold conversations.

    Cancelling `ask`, or closing the iterator of `stream`, closes the upstream connection.
    """

    async def default_model(self) -> str:
        """The model that stands for `default`."""

    async def ask(self, model: str, request: Complete) -> Reply:
        """The whole answer at once."""

    def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        """The answer in pieces, then one `Closing`."""


@runtime_checkable
class Embedder(Protocol):
    """A provider that makes embeddings."""

    @property
    def embedding_model(self) -> str | None:
        """The model that stands for `default` where embeddings are asked for; `None` if it has none that is known."""

    @property
    def texts_at_once(self) -> int:
        """Most texts of which `embed` takes the embeddings."""

    async def embed(self, model: str, request: Embed) -> Vectors:
        """The embeddings of at most `texts_at_once` texts, in their order."""


@runtime_checkable
class Judge(Protocol):
    """A provider that has models for moderation."""

    async def judge(self, model: str, request: Moderate) -> Judgements:
        """A judgement of each text."""


class Registry(Protocol):
    """Knows the manifests of tenants."""

    async def changes(self, tenant: str, after: int) -> ProviderChanges:
        """Providers and models that changed after a version.

        Raises
        ------
        Unavailable, DeadlineExceeded
            If it does not answer.
        """


class Setups(Protocol):
    """Keeps what tenants had set up, for a gateway that starts while the registry is away."""

    async def kept(self, tenant: str) -> Sequence[ProviderChange] | None:
        """The manifests of `tenant` as they were kept last; `None` if they never were."""

    async def keep(self, tenant: str, version: int, manifests: Sequence[ProviderChange]) -> None:
        """Keep these, as they are at `version`, in place of those from before; what is newer stays.

        Replicas keep what each knows, and what they ask for at the same time is done in any order.
        """


class Prices(Protocol):
    """Knows what tokens cost."""

    def rates(self, deployment: Deployment) -> Rates | None:
        """The price of `deployment`; `None` if it is not known."""

    def estimate(self, deployment: Deployment, input_tokens: int, output_tokens: int) -> Decimal | None:
        """What so many tokens of `deployment` may cost at most; `None` if its price is not known."""

    def cost(self, deployment: Deployment, model: str, usage: Usage) -> Decimal | None:
        """What `usage` of `deployment` costs, for which its provider says `model`; `None` if that is not known."""


class Neighbours(Protocol):
    """The other replicas of the gateway."""

    async def answer(self, replica: str, tenant: str, call_id: str, fingerprint: bytes) -> Answer | Held | None:
        """What the call of `replica` came to, once it has; `None` if nobody can say any more.

        It waits for a replica that cannot be asked as long as that is not known to be gone.

        Raises
        ------
        Conflict
            If it has that call with a request of another `fingerprint`.
        Unavailable
            If it is there, but does not answer; or if nobody can say whether it is.
        """


class Outlet(Protocol):
    """Takes deltas, and that a call is tried again, to whoever watches a task."""

    async def publish(self, task_id: str, news: Delta | Retrying, context: Context) -> None:
        """Send `news` on its way; it is not waited for."""
