"""Embeddings of many texts: asked for in as many requests as providers want, and put together again. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

from paracle_domain.errors import ProviderFailed
from paracle_domain.inference.embedding import Embed, Embeddings
from paracle_domain.inference.usage import Usage
from paracle_provider_gateway.persistence import Found
from paracle_provider_gateway.plans import Plan
from paracle_provider_gateway.ports import Embedder, Prices, Vectors


def parts_of(request: Embed, plan: Plan) -> Iterator[Embed]:
    """`request` in parts that every deployment of `plan` takes; itself if it is no more than that."""
    providers = (deployment.provider for deployment in plan.deployments)
    most = min(provider.texts_at_once for provider in providers if isinstance(provider, Embedder))
    if len(request.texts) <= most:
        yield request
        return
    for start in range(0, len(request.texts), most):
        yield request.model_copy(update={"texts": request.texts[start : start + most]})


def joined(found: Sequence[Found], prices: Prices, latency_s: float) -> Embeddings:
    """What was found for each part, in order, as one answer.

    Raises
    ------
    ProviderFailed
        If vectors of one part cannot be compared with those of another.
    """
    parts = [_vectors(part) for part in found]
    deployment = found[0].answered.deployment
    lengths = sorted({part.dimensions for part in parts})
    if len(lengths) > 1:
        what = " and ".join(map(str, lengths))
        raise ProviderFailed(f"{deployment.name}: it answered vectors of {what} dimensions to one call")
    return Embeddings(
        vectors=tuple(vector for part in parts for vector in part.vectors),
        dimensions=lengths[0],
        usage=reduce(add, (_usage(one, prices) for one in found)),
        provider=deployment.provider.name,
        model=parts[0].model or deployment.model,
        deployment=deployment.name,
        latency_s=latency_s,
        attempts=sum(one.attempts for one in found),
    )


def _usage(found: Found, prices: Prices) -> Usage:
    said, deployment = _vectors(found), found.answered.deployment
    cost = prices.cost(deployment, said.model or deployment.model, said.usage)
    return said.usage.model_copy(update={"cost_usd": cost})


def _vectors(found: Found) -> Vectors:
    assert isinstance(found.answered.reply, Vectors)
    return found.answered.reply
