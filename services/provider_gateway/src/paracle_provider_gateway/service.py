"""The use cases: complete a conversation, embed texts, list models, abort a call."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Final, assert_never

from paracle_domain.envelope import PRINCIPAL, Context
from paracle_domain.errors import BudgetExceeded, DeadlineExceeded, InvalidInput, Unavailable
from paracle_domain.inference.embedding import Embed, Embeddings
from paracle_domain.inference.request import LONGEST_LABEL, AbortCall, Complete, ListModels
from paracle_domain.inference.response import Completion, ModelList
from paracle_provider_gateway.accounts import Accounts, MadeElsewhere
from paracle_provider_gateway.caching import Caching
from paracle_provider_gateway.calls import CallTable
from paracle_provider_gateway.embedding import joined, parts_of
from paracle_provider_gateway.guards.rails import Rails
from paracle_provider_gateway.guards.verdicts import LetOut
from paracle_provider_gateway.persistence import Found, Persistence, Tried
from paracle_provider_gateway.plans import Catalog, Plan
from paracle_provider_gateway.ports import Answer, Held, Neighbours, Prices, Reply
from paracle_provider_gateway.telemetry import Telemetry

_NOT_THE_QUESTION: Final = {
    "call_id",
    "stream_to",
    "waits_to",
    "attempts_before",
    "priority",
    "timeout_s",
    "labels",
    "cache",
}
_UNJUDGED: Final = (
    "{model} has answered, but guards did not judge that within {seconds:g} s; ask again with the same call_id"
)

type Call = Complete | Embed
"""What callers ask."""


class Completions:
    """Answers `Complete` and `Embed` with what a deployment says: once for a call id, within its time, with its cost.

    The way of a call: the table of calls (`_once`), its time (`_in_time`), no other replica that has it (`_here`), and
    what is asked (`_asked`): texts, of a model that makes embeddings (`_embeddings`), or a conversation. That one goes
    on as guards let it in, of another model where a budget says so (`_affordable`), to what the model's name stands
    for, if no kept answer will do (`_answer`), by attempts till one answers; guards see what is let out (`_made`).
    An answer that they did not let out is held, and they alone are asked again where the call is (`_let_out`).
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
        answer = await self._once(request, context)
        assert isinstance(answer, Completion), "a conversation has a fingerprint of its own"
        return answer

    async def embed(self, request: Embed, context: Context) -> Embeddings:
        """A vector of each text; errors as `Embed` names them."""
        answer = await self._once(request, context)
        assert isinstance(answer, Embeddings), "texts have a fingerprint of their own"
        return answer

    async def abort(self, tenant: str, order: AbortCall) -> None:
        """Stop a call, if it is this replica that has it."""
        self._calls.abort((tenant, order.call_id), order.reason)

    async def list_models(self, _request: ListModels, context: Context) -> ModelList:
        """The models that the tenant can ask for by name, the default among them."""
        return await self._catalog.models(context.tenant)

    async def _once(self, request: Call, context: Context) -> Answer:
        if len(context.principal) > LONGEST_LABEL:  # whom the call is counted under, if its labels name nobody
            what = f"the name has {len(context.principal):,} characters; at most {LONGEST_LABEL} can be counted by"
            raise InvalidInput(what, path=PRINCIPAL)
        key, question = (context.tenant, request.call_id), fingerprint(request)
        return await self._calls.once(key, question, lambda: self._in_time(request, question, context))

    async def _in_time(self, request: Call, question: bytes, context: Context) -> Answer:
        started = _now()
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._here(request, question, context, started)
        except TimeoutError as error:
            if self._calls.held((context.tenant, request.call_id), question) is not None:
                raise Unavailable(_UNJUDGED.format(model=request.model, seconds=request.timeout_s)) from error
            what = f"no answer of {request.model} within {request.timeout_s:g} s; allow more time with timeout_s"
            raise DeadlineExceeded(what) from error
        finally:
            self._accounts.done(context.tenant, request.call_id)

    async def _here(self, request: Call, question: bytes, context: Context, started: float) -> Answer:
        if (held := self._calls.held((context.tenant, request.call_id), question)) is not None:
            return await self._released(held, request, context)
        while True:
            try:
                return await self._asked(request, context, started)
            except MadeElsewhere as found:
                answer = await self._neighbours.answer(found.replica, context.tenant, request.call_id, question)
                if isinstance(answer, Held):
                    return await self._released(answer.completion, request, context)
                if answer is not None:
                    return answer
                await self._accounts.take_over(context.tenant, request.call_id, found.replica)

    async def _asked(self, request: Call, context: Context, started: float) -> Answer:
        match request:
            case Complete():
                return await self._affordable(await self._rails.let_in(request, context), context, started)
            case Embed():
                return await self._embeddings(request, context, started)
            case _:
                assert_never(request)

    async def _affordable(self, request: Complete, context: Context, started: float) -> Completion:
        asked, tried = {request.model}, Tried()
        while True:
            try:
                return await self._answer(request, context, started, tried)
            except BudgetExceeded as error:
                instead = error.details.get("model")
                if instead is None or instead in asked:
                    raise
                asked.add(instead)
                streamed = request.attempts_before + tried.numbered  # what it says replaces what others began to say
                request = request.model_copy(update={"model": instead, "attempts_before": streamed})
                tried.numbered = 0

    async def _answer(self, request: Complete, context: Context, started: float, tried: Tried) -> Completion:
        plan = await self._catalog.plan(context.tenant, request)
        if request.cache is None:
            return (await self._made(plan, request, context, started, tried)).answer
        ask = partial(self._made, plan, request, context, started, tried)
        return await self._cache.answer(plan, request, request.cache, context, ask)

    async def _made(self, plan: Plan, request: Complete, context: Context, started: float, tried: Tried) -> LetOut:
        with self._telemetry.call(plan, request) as record:
            found = await self._persistence.answer(plan, request, context, started + request.timeout_s, tried)
            record.deployment = found.answered.deployment
            record.answer = completion = self._completion(found, started)
        return await self._let_out(completion, request, context)

    async def _let_out(self, answer: Completion, request: Complete, context: Context) -> LetOut:
        if request.guarded("output"):
            self._calls.hold((context.tenant, request.call_id), answer)
        return await self._rails.let_out(answer, request, context)

    async def _released(self, held: Completion, request: Call, context: Context) -> Completion:
        """What guards let out of an answer that they did not when the call was here before."""
        assert isinstance(request, Complete), "nothing else has guards"
        return (await self._let_out(held, request, context)).answer

    async def _embeddings(self, request: Embed, context: Context, started: float) -> Embeddings:
        plan = await self._catalog.plan(context.tenant, request)
        with self._telemetry.call(plan, request) as record:
            deadline = started + request.timeout_s
            found = [await self._persistence.answer(plan, part, context, deadline) for part in parts_of(request, plan)]
            record.deployment = found[0].answered.deployment
            record.answer = embeddings = joined(found, self._prices, _now() - started)
        return embeddings

    def _completion(self, found: Found, started: float) -> Completion:
        reply, first, deployment = found.answered.reply, found.answered.first_piece_at, found.answered.deployment
        assert isinstance(reply, Reply)
        provider, model = deployment.provider, reply.model or deployment.model
        return Completion(
            message=reply.message,
            finish_reason=reply.finish_reason,
            usage=reply.usage.model_copy(update={"cost_usd": self._prices.cost(deployment, model, reply.usage)}),
            provider=provider.name,
            model=model,
            deployment=deployment.name,
            sandbox=provider.sandbox,
            latency_s=_now() - started,
            first_token_s=None if first is None else first - started,
            attempts=found.attempts,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()


def fingerprint(request: Call) -> bytes:
    """What tells one question from another: the request without its id, priority, time, labels, stream and cache."""
    question = request.model_dump_json(exclude=_NOT_THE_QUESTION)
    return hashlib.blake2b(question.encode(), digest_size=16).digest()
