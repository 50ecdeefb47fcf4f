"""Embeddings: texts as vectors, of which those are near each other that mean something alike."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, JsonValue

from paracle_domain.inference.moderation import Moderate
from paracle_domain.inference.request import CallId, CallLabels, Complete, Priority
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import Message, Plain, Request, Value

MOST_TEXTS: Final = 256
MOST_CHARACTERS: Final = 1_000_000
"""Of all texts of a call together."""
MOST_DIMENSIONS: Final = 16_384
_SINGLE: Final = 4


def pack(vector: Sequence[float]) -> str:
    """`vector` as it travels: in single precision, little-endian, as base64.

    Raises
    ------
    ValueError
        If one of its numbers is not finite, or too large for single precision.
    """
    _check_finite(vector)
    try:
        data = struct.pack(f"<{len(vector)}f", *vector)
    except OverflowError as error:
        raise ValueError("a number of the vector is too large for single precision") from error
    return base64.b64encode(data).decode()


def unpack(text: str) -> tuple[float, ...]:
    """The vector that `text` holds, as `pack` wrote it.

    Raises
    ------
    ValueError
        If it holds none.
    """
    data = base64.b64decode(text, validate=True)
    if len(data) % _SINGLE:
        raise ValueError(f"{len(data)} bytes are no vector in single precision")
    vector = struct.unpack(f"<{len(data) // _SINGLE}f", data)
    _check_finite(vector)
    return vector


def _check_finite(vector: Sequence[float]) -> None:
    """By their sum, which is quick: of finite numbers in single precision it is finite, however many they are."""
    if not math.isfinite(sum(vector)):
        raise ValueError("a number of the vector is not finite, or too large for single precision")


Vector = Annotated[str, Field(description="numbers in single precision, little-endian, as base64")]


def _bearable(texts: tuple[str, ...]) -> tuple[str, ...]:
    if (found := sum(map(len, texts))) > MOST_CHARACTERS:
        raise ValueError(
            f"the texts have {found:,} characters together; the limit is {MOST_CHARACTERS:,}: make more calls of them"
        )
    return texts


Text = Annotated[str, Field(min_length=1, max_length=200_000)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1, max_length=MOST_TEXTS), AfterValidator(_bearable)]


class Embeddings(Message, type_name="inference.embeddings"):
    """A vector for each text, in the order of the texts.

    Vectors of different models, or of different `dimensions`, cannot be compared: whoever keeps them keeps `model` with
    them, the name that the provider answered with. `deployment` is the `provider/model` that was asked; `latency_s` and
    `attempts` are as those of a `Completion`.
    """

    vectors: tuple[Vector, ...]
    dimensions: int = Field(ge=1)
    usage: Usage
    provider: str
    model: str
    deployment: str
    latency_s: float = Field(ge=0)
    attempts: int = Field(default=1, ge=1)

    @property
    def numbers(self) -> list[tuple[float, ...]]:
        """The vectors, unpacked."""
        return [unpack(vector) for vector in self.vectors]


class EmbeddingItem(Value):
    """The embedding of the text at place `index`: its numbers, or base64 of them if that was asked for."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(ge=0)
    embedding: tuple[float, ...] | Vector


class EmbeddingUsage(Value):
    """Tokens of all texts; there is no output."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Message, type_name="inference.embedding_list"):
    """Embeddings as OpenAI's API has them, with what it does not say. `cost_usd` is absent where no price is known."""

    object: Literal["list"] = "list"
    data: tuple[EmbeddingItem, ...]
    model: str
    usage: EmbeddingUsage
    dimensions: int
    deployment: str = Field(description="provider/model that was asked")
    cost_usd: Decimal | None = None

    @classmethod
    def of(cls, found: Embeddings, *, as_text: bool = False) -> Self:
        """`found` with its vectors as numbers, or `as_text`."""
        vectors = found.vectors if as_text else found.numbers
        tokens = found.usage.input_tokens
        return cls(
            data=tuple(EmbeddingItem(index=index, embedding=vector) for index, vector in enumerate(vectors)),
            model=found.model,
            usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
            dimensions=found.dimensions,
            deployment=found.deployment,
            cost_usd=found.usage.cost_usd,
        )

    @classmethod
    def encoded(cls, found: Embeddings) -> Iterator[bytes]:
        """`of(found)` as it is encoded, a vector at a time: numbers as text are many, and others may go first."""
        before, after = cls.of(found.model_copy(update={"vectors": ()})).encode().split(b"[]", 1)
        yield before + b"["
        for index, vector in enumerate(found.vectors):
            item = EmbeddingItem.model_construct(index=index, embedding=unpack(vector))
            yield (b"," if index else b"") + item.__pydantic_serializer__.to_json(item)
        yield b"]" + after

    @property
    def numbers(self) -> list[tuple[float, ...]]:
        """The vectors, in the order of the texts."""
        return [unpack(one.embedding) if isinstance(one.embedding, str) else one.embedding for one in self.data]


class Embed(Request[Embeddings], service="provider_gateway", method="embed", answer=Embeddings):
    """Ask a model for a vector of each text.

    `model` is `provider/model`, a model of the tenant's own, or `default` for what the gateway takes where nobody says
    otherwise; whoever keeps vectors names the model. `dimensions` shortens vectors, where the model can. `params` go to
    the provider as they are, under its own names (`input_type`, say). The rest is as in `Complete`: a call is made once
    for its `call_id`.

    Errors: those of `Complete`.
    """

    call_id: CallId
    model: Plain = Field(default="default", min_length=1, max_length=200)
    texts: Texts
    dimensions: int | None = Field(default=None, ge=1, le=MOST_DIMENSIONS)
    params: dict[str, JsonValue] = {}
    priority: Priority = "normal"
    timeout_s: float = Field(default=300.0, gt=0, le=3_600)
    labels: CallLabels = CallLabels()


type ModelCall = Complete | Embed | Moderate
"""What models are asked."""
