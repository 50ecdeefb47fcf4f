"""The use cases: complete a conversation, list models, abort a call."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Final

from paracle_domain.envelope import Context
from paracle_domain.errors import BudgetExceeded, DeadlineExceeded
from paracle_domain.inference.request import AbortCall, Complete, ListModels
from paracle_domain.inference.response import Completion, ModelList
from paracle_provider_gateway.accounts import Accounts, MadeElsewhere
from paracle_provider_gateway.caching import Caching
from paracle_provider_gateway.calls import CallTable
from paracle_provider_gateway.guards.rails import Rails
from paracle_provider_gateway.guards.verdicts import LetOut
from paracle_provider_gateway.persistence import Found, Persistence
from paracle_provider_gateway.plans import Catalog, Plan
from paracle_provider_gateway.ports import Neighbours, Prices
from paracle_provider_gateway.telemetry import Telemetry

_NOT_THE_QUESTION: Final = {"call_id", "stream_to", "attempts_before", "priority", "timeout_s", "labels", "cache"}


class Completions:
    """Answers `Complete` with the reply of a deployment: at most once for a call id, within its time, with its cost.

    The way of a call: the table of calls (`complete`), its time (`_in_time`), no other replica that has it, and what
    guards let in of it (`_here`), another model where a budget says so (`_affordable`), what the model's name stands
    for, a kept answer if one will do (`_answer`), attempts till one answers, and what guards let out (`_made`).
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        persistence: Persistence,
        accounts: Accounts,
        cache: Caching,
        neighbours: Neighbours,
        rails: Rails,
        prices: Prices,
        calls: CallTable,
        telemetry: Telemetry,
    ) -> None:
        self._catalog = catalog
        self._persistence = persistence
        self._accounts = accounts
        self._cache = cache
        self._neighbours = neighbours
        self._rails = rails
        self._prices = prices
        self._calls = calls
        self._telemetry = telemetry

    async def complete(self, request: Complete, context: Context) -> Completion:
        """The model's next message; errors as `Complete` names them."""
        key = (context.tenant, request.call_id)
        return await self._calls.once(key, fingerprint(request), lambda: self._in_time(request, context))

    async def abort(self, tenant: str, order: AbortCall) -> None:
        """Stop a call, if it is this replica that has it."""
        self._calls.abort((tenant, order.call_id), order.reason)

    async def list_models(self, _request: ListModels, context: Context) -> ModelList:
        """The models that the tenant can ask for by name, the default among them."""
        return await self._catalog.models(context.tenant)

    async def _in_time(self, request: Complete, context: Context) -> Completion:
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._here(request, context, started)
        except TimeoutError as error:
            what = f"no answer of {request.model} within {request.timeout_s:g} s; allow more time with timeout_s"
            raise DeadlineExceeded(what) from error
        finally:
            self._accounts.done(context.tenant, request.call_id)

    async def _here(self, request: Complete, context: Context, started: float) -> Completion:
        while True:
            try:
                asked = await self._rails.let_in(request, context)
                return await self._affordable(asked, context, started)
            except MadeElsewhere as found:
                theirs = (found.replica, context.tenant, request.call_id, fingerprint(request))
                answer = await self._neighbours.answer(*theirs)
                if answer is not None:
                    return answer
                await self._accounts.take_over(context.tenant, request.call_id, found.replica)

    async def _affordable(self, request: Complete, context: Context, started: float) -> Completion:
        asked = {request.model}
        while True:
            try:
                return await self._answer(request, context, started)
            except BudgetExceeded as error:
                instead = error.details.get("model")
                if instead is None or instead in asked:
                    raise
                asked.add(instead)
                request = request.model_copy(update={"model": instead})

    async def _answer(self, request: Complete, context: Context, started: float) -> Completion:
        plan = await self._catalog.plan(context.tenant, request)
        if request.cache is None:
            return (await self._made(plan, request, context, started)).answer
        ask = partial(self._made, plan, request, context, started)
        return await self._cache.answer(plan, request, request.cache, context, ask)

    async def _made(self, plan: Plan, request: Complete, context: Context, started: float) -> LetOut:
        with self._telemetry.call(plan, request) as record:
            found = await self._persistence.answer(plan, request, context, started + request.timeout_s)
            record.deployment = found.answered.deployment
            record.completion = self._completion(found, started)
        return await self._rails.let_out(record.completion, request, context)

    def _completion(self, found: Found, started: float) -> Completion:
        reply, first, deployment = found.answered.reply, found.answered.first_piece_at, found.answered.deployment
        provider, model = deployment.provider, reply.model or deployment.model
        return Completion(
            message=reply.message,
            finish_reason=reply.finish_reason,
            usage=reply.usage.model_copy(update={"cost_usd": self._prices.cost(deployment, model, reply.usage)}),
            provider=provider.name,
            model=model,
            deployment=deployment.name,
            sandbox=provider.sandbox,
            latency_s=asyncio.get_running_loop().time() - started,
            first_token_s=None if first is None else first - started,
            attempts=found.attempts,
        )


def fingerprint(request: Complete) -> bytes:
    """What tells one question from another: the request without its id, priority, time, labels, stream and cache."""
    question = request.model_dump_json(exclude=_NOT_THE_QUESTION)
    return hashlib.blake2b(question.encode(), digest_size=16).digest()
