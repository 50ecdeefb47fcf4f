"""The cache of answers, as callers see it: who may be given a kept one, and how a tenant's are dropped."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from paracle_domain import subjects
from paracle_domain.messages import Message, Request, Value

CacheSeconds = Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False)]


class CachePolicy(Value):
    """An answer to the same question will do if it is not older than `ttl_s`, and this one may be given for so long.

    `fresh`: only an answer that nobody has yet will do; it is kept all the same.
    """

    ttl_s: CacheSeconds
    fresh: bool = False


class CacheCleared(Message, type_name="inference.cache_cleared"):
    """So many answers were dropped; expired ones that were still there are among them."""

    answers: int = Field(ge=0)


class ClearCache(Request[CacheCleared], service="provider_gateway", method="clear_cache", answer=CacheCleared):
    """Drop all answers that are kept for the tenant. One that a replica is just being given may be kept."""


def cleared_subject(tenant: str) -> str:
    """Where a `CacheCleared` is broadcast (core NATS, no answer), for what replicas have in memory."""
    return subjects.rpc(tenant, "provider_gateway", "cache_cleared")
