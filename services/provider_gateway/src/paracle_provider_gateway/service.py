"""The use cases: complete a conversation, list models, abort a call."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from paracle_domain.envelope import Context
from paracle_domain.errors import ContentRefused, DeadlineExceeded
from paracle_domain.inference.deltas import Delta
from paracle_domain.inference.request import AbortCall, Complete, ListModels
from paracle_domain.inference.response import Completion, FinishReason, ModelInfo, ModelList
from paracle_provider_gateway.calls import CallTable
from paracle_provider_gateway.ports import Outlet, Prices, Provider, Reply
from paracle_provider_gateway.retries import RetryPolicy, retried
from paracle_provider_gateway.routing import Routing
from paracle_provider_gateway.streaming import Patience, StreamReader
from paracle_provider_gateway.telemetry import Telemetry

_NOT_THE_QUESTION: Final = {"call_id", "stream_to", "timeout_s", "labels"}


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is asked of providers at once, and how patiently."""

    concurrency: int = 512
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class _Answered:
    """A reply, and what it took to get it."""

    reply: Reply
    attempts: int
    first_piece_at: float | None


class Completions:
    """Answers `Complete` with the reply of a provider: at most once for a call id, within its time, with its cost.

    `sleep` and `draw` (from [0, 1)) are the waits and the jitter of retries.
    """

    def __init__(
        self,
        *,
        routing: Routing,
        prices: Prices,
        outlet: Outlet,
        calls: CallTable,
        telemetry: Telemetry,
        pace: Pace = Pace(),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._routing = routing
        self._prices = prices
        self._outlet = outlet
        self._calls = calls
        self._telemetry = telemetry
        self._pace = pace
        self._slots = asyncio.Semaphore(pace.concurrency)
        self._sleep = sleep
        self._draw = draw

    async def complete(self, request: Complete, context: Context) -> Completion:
        """The model's next message; errors as `Complete` names them."""
        key = (context.tenant, request.call_id)
        return await self._calls.once(key, fingerprint(request), lambda: self._in_time(request, context))

    async def abort(self, tenant: str, order: AbortCall) -> None:
        """Stop a call, if it is this replica that has it."""
        self._calls.abort((tenant, order.call_id), order.reason)

    async def list_models(self, _request: ListModels, _context: Context) -> ModelList:
        """The models that providers name, the default among them."""
        default = await self._routing.default_name()
        names = [(provider, f"{provider.name}/{model}") for provider, model in self._listed()]
        models = [self._info(provider, name, default) for provider, name in names]
        if default not in {name for _, name in names}:
            provider, _ = await self._routing.pick(default)
            models.insert(0, self._info(provider, default, default))
        return ModelList(models=tuple(models), default=default)

    async def _in_time(self, request: Complete, context: Context) -> Completion:
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(request.timeout_s), self._slots:
                return await self._answer(request, context, started)
        except TimeoutError as error:
            what = f"no answer of {request.model} within {request.timeout_s:g} s; allow more time with timeout_s"
            raise DeadlineExceeded(what) from error

    async def _answer(self, request: Complete, context: Context, started: float) -> Completion:
        provider, model = await self._routing.pick(request.model)
        with self._telemetry.call(provider.name, model, request) as record:
            answered = await self._persist(provider, model, request, context, started + request.timeout_s)
            record.completion = self._completion(provider, model, answered, started)
            return record.completion

    async def _persist(
        self, provider: Provider, model: str, request: Complete, context: Context, deadline: float
    ) -> _Answered:
        return await retried(
            lambda number: self._attempt(provider, model, request, context, number),
            self._pace.retry,
            deadline=deadline,
            sleep=self._sleep,
            draw=self._draw,
            on_retry=lambda error: self._telemetry.retried(provider.name, model, error),
        )

    async def _attempt(
        self, provider: Provider, model: str, request: Complete, context: Context, number: int
    ) -> _Answered:
        first_piece_at: float | None = None
        if request.stream_to is None:
            reply = await provider.ask(model, request)
        else:
            reader = self._reader(request, context, request.stream_to, number)
            reply = await reader.read(provider.name, provider.stream(model, request))
            first_piece_at = reader.first_piece_at
        if reply.finish_reason is FinishReason.CONTENT_FILTER:
            raise ContentRefused(f"{provider.name}/{model}: the provider's content filter stopped the reply")
        return _Answered(reply, number, first_piece_at)

    def _reader(self, request: Complete, context: Context, task_id: str, number: int) -> StreamReader:
        async def send(delta: Delta) -> None:
            await self._outlet.publish(task_id, delta, context)

        return StreamReader(request.call_id, number, send, self._pace.patience)

    def _completion(self, provider: Provider, model: str, answered: _Answered, started: float) -> Completion:
        reply, first = answered.reply, answered.first_piece_at
        return Completion(
            message=reply.message,
            finish_reason=reply.finish_reason,
            usage=self._prices.priced(provider.name, reply.model or model, reply.usage),
            provider=provider.name,
            model=reply.model or model,
            sandbox=provider.sandbox,
            latency_s=asyncio.get_running_loop().time() - started,
            first_token_s=None if first is None else first - started,
            attempts=answered.attempts,
        )

    def _listed(self) -> list[tuple[Provider, str]]:
        return [(provider, model) for provider in self._routing.providers for model in provider.listed_models]

    def _info(self, provider: Provider, name: str, default: str) -> ModelInfo:
        rates = self._prices.rates(provider.name, name.partition("/")[2])
        return ModelInfo(
            name=name,
            provider=provider.name,
            sandbox=provider.sandbox,
            default=name == default,
            input_usd_per_mtok=None if rates is None else Decimal(str(rates.input)),
            output_usd_per_mtok=None if rates is None else Decimal(str(rates.output)),
        )


def fingerprint(request: Complete) -> bytes:
    """What tells one question from another: the request without its id, time limit, labels and where it streams to."""
    question = request.model_dump_json(exclude=_NOT_THE_QUESTION)
    return hashlib.blake2b(question.encode(), digest_size=16).digest()
