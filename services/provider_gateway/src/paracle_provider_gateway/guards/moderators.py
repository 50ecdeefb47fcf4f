"""Models for moderation, asked as others are: by name, in turn, with breakers and retries, and kept in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import batched
from typing import Final

from pydantic import TypeAdapter

from paracle_domain.envelope import Context
from paracle_domain.errors import BudgetExceeded, DeadlineExceeded, InvalidInput
from paracle_domain.guard.spec import ModerationGuard
from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage, Sampling
from paracle_domain.inference.estimate import estimate_input
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import Price
from paracle_provider_gateway.accounts import Accounts
from paracle_provider_gateway.persistence import Persistence
from paracle_provider_gateway.plans import Catalog, Plan, Route
from paracle_provider_gateway.ports import Judge, Judgement, Provider, Reply, StreamItem

AT_ONCE: Final = 32
"""Texts in one request."""
_FREE: Final = Price(input=Decimal(0), output=Decimal(0))
_FREE_MODELS: Final = ("omni-moderation", "text-moderation")
"""OpenAI's own, which cost nothing; no list of prices has them."""
_JUDGEMENTS: Final = TypeAdapter(tuple[Judgement, ...])


class ModelModerator:
    """`Moderator`: the models of providers. To everything between, such a model is one that answers with judgements."""

    def __init__(self, catalog: Catalog, persistence: Persistence, accounts: Accounts) -> None:
        self._catalog = catalog
        self._persistence = persistence
        self._accounts = accounts

    async def judge(
        self, spec: ModerationGuard, texts: Sequence[str], request: Complete, context: Context
    ) -> Sequence[Judgement]:
        """See `Moderator.judge`."""
        found: list[Judgement] = []
        try:
            async with asyncio.timeout(spec.timeout_s):
                for some in batched(texts, AT_ONCE):
                    found += await self._asked(spec, some, request, context)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{spec.model} did not answer within {spec.timeout_s:g} s") from error
        return found

    async def _asked(
        self, spec: ModerationGuard, texts: Sequence[str], request: Complete, context: Context
    ) -> tuple[Judgement, ...]:
        asked = Complete(
            call_id=new_id("call"),
            model=spec.model,
            messages=tuple(ChatMessage.user(text) for text in texts),
            sampling=Sampling(max_output_tokens=1),
            priority=request.priority,
            timeout_s=spec.timeout_s,
            labels=request.labels,
        )
        deadline = asyncio.get_running_loop().time() + spec.timeout_s
        try:
            plan = _judging(await self._catalog.plan(context.tenant, asked))
            found = await self._persistence.answer(plan, asked, context, deadline)
        except BudgetExceeded as error:  # what it says of another model is not for the one that is guarded
            details = {name: value for name, value in error.details.items() if name != "model"}
            raise BudgetExceeded(error.message, details=details) from error
        finally:
            self._accounts.done(context.tenant, asked.call_id)
        reply = found.answered.reply
        assert isinstance(reply, Reply)
        return _JUDGEMENTS.validate_json(reply.message.text)


def _judging(plan: Plan) -> Plan:
    """`plan`, whose deployments are asked for judgements."""

    def judging(route: Route) -> Route:
        deployment = route.deployment
        price = _FREE if deployment.price is None and deployment.model.startswith(_FREE_MODELS) else deployment.price
        return replace(route, deployment=replace(deployment, provider=_AsModel(deployment.provider), price=price))

    tiers = (replace(tier, routes=tuple(map(judging, tier.routes))) for tier in plan.tiers)
    return replace(plan, tiers=tuple(tiers))


class _AsModel:
    """A provider whose models reply with their judgement of what users say, as JSON."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.name = provider.name
        self.source = provider.source
        self.sandbox = provider.sandbox
        self.listed_models = provider.listed_models

    async def default_model(self) -> str:
        return await self._provider.default_model()

    async def ask(self, model: str, request: Complete) -> Reply:
        if not isinstance(self._provider, Judge):
            raise InvalidInput(f"provider {self.name!r} has no models for moderation; name another one's", path="model")
        texts = [message.text for message in request.messages]
        judged = tuple(await self._provider.judge(model, texts, request.timeout_s))
        said = ChatMessage.assistant(_JUDGEMENTS.dump_json(judged).decode())
        tokens = estimate_input(request)  # OpenAI's API counts none
        return Reply(said, FinishReason.STOP, Usage(input_tokens=tokens, model_calls=1), model)

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        raise NotImplementedError(model, request)
        yield  # which makes it a generator

    async def close(self) -> None:
        """The provider is somebody else's to close."""
