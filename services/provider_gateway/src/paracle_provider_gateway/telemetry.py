"""Names of this service's telemetry, and the one place that records it.

Source: the OpenTelemetry semantic conventions for generative AI. No prompts or replies are recorded.

| signal | name | attributes |
|---|---|---|
| span | `chat {model}` | operation, provider, request and response model, finish reasons, tokens, error type |
| span | `embeddings {model}` | the same with dimensions instead of finish reasons |
| span | `chat {model}`, of a kept answer | operation, provider, request model, result: hit, joined |
| histogram | `gen_ai.client.operation.duration` (s) | operation, provider, request model, error type |
| histogram | `gen_ai.client.token.usage` (tokens) | operation, provider, request model, token type |
| histogram | `gen_ai.client.operation.time_to_first_chunk` (s) | operation, provider, request model |
| counter | `paracle.provider_gateway.retries` | provider, request model, error type |
| counter | `paracle.provider_gateway.fallbacks` | as of those that failed |
| counter | `paracle.provider_gateway.hedges` | provider, request model, of those that were silent |
| counter | `paracle.provider_gateway.cache.lookups`, of calls that may have a kept answer | result: hit, joined, miss |
| counter | `paracle.provider_gateway.cache.outages`, times that it could not be asked | |
| gauge | `paracle.provider_gateway.breaker` (0 closed, 1 half open, 2 open) | provider, request model |

Provider and model are those of the deployment that answered, or else of the plan's first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter
from typing import Any, Final

from opentelemetry.trace import StatusCode

from paracle_chassis import telemetry
from paracle_chassis.telemetry import Counter, Gauge, Histogram
from paracle_domain.errors import ParacleError
from paracle_domain.inference.embedding import Embed, Embeddings, ModelCall
from paracle_domain.inference.request import CallLabels, Complete
from paracle_domain.inference.response import BreakerState, Completion
from paracle_provider_gateway.plans import Deployment, Plan
from paracle_provider_gateway.ports import Answer

SCOPE: Final = "paracle.provider_gateway"
CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  # not a password
DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"
AGENT_NAME: Final = "gen_ai.agent.name"
ERROR_TYPE: Final = "error.type"
RUN_ID: Final = "paracle.run.id"
TASK_ID: Final = "paracle.task.id"
STEP: Final = "paracle.step"
CALL_ID: Final = "paracle.call.id"
ATTEMPTS: Final = "paracle.attempts"
CACHE_RESULT: Final = "paracle.cache.result"

DURATION: Final = "gen_ai.client.operation.duration"
TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105  # not a password
FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
RETRIES: Final = "paracle.provider_gateway.retries"
FALLBACKS: Final = "paracle.provider_gateway.fallbacks"
HEDGES: Final = "paracle.provider_gateway.hedges"
BREAKER: Final = "paracle.provider_gateway.breaker"
LOOKUPS: Final = "paracle.provider_gateway.cache.lookups"
OUTAGES: Final = "paracle.provider_gateway.cache.outages"
GUARDS: Final = "paracle.provider_gateway.guards"
GUARD: Final = "paracle.guard.name"
GUARD_TYPE: Final = "paracle.guard.type"
DIRECTION: Final = "paracle.guard.direction"
OUTCOME: Final = "paracle.guard.outcome"

_duration: Final = Histogram(DURATION, "Time of a call, retries included.")
_tokens: Final = Histogram(TOKEN_USAGE, "Tokens of a call.", "{token}")
_first_chunk: Final = Histogram(FIRST_CHUNK, "Time to the first piece of a reply.")
_retries: Final = Counter(RETRIES, "Requests that were sent again to the same deployment.", "{retry}")
_fallbacks: Final = Counter(FALLBACKS, "Requests that were sent to another deployment instead.", "{request}")
_hedges: Final = Counter(HEDGES, "Requests that were sent besides one that was silent.", "{request}")
_lookups: Final = Counter(LOOKUPS, "Calls that may have an answer that is kept.", "{call}")
_outages: Final = Counter(OUTAGES, "Times that kept answers could not be asked for, or not be kept.", "{failure}")
_guards: Final = Counter(GUARDS, "Hits of guards, and guards that failed.", "{hit}")
_breaker: Final = Gauge(BREAKER, "Whether calls go to a deployment (0), only a probe does (1), or none (2).")
_BREAKER: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}

log = logging.getLogger(SCOPE)


class CacheResult(StrEnum):
    """What became of a call that may have a kept answer; `joined`: it got that of an identical one."""

    HIT = "hit"
    JOINED = "joined"
    MISS = "miss"


@dataclass(slots=True)
class CallRecord:
    """What becomes known of a call while it is made."""

    answer: Answer | None = None
    deployment: Deployment | None = None


class Telemetry:
    """A span and metrics for every call, and a log line for every one that fails."""

    @contextmanager
    def call(self, plan: Plan, request: ModelCall) -> Iterator[CallRecord]:
        """Record the call that is made within this context."""
        first = next(plan.deployments)
        model = first.model
        operation = EMBEDDINGS if isinstance(request, Embed) else CHAT
        names = {OPERATION: operation, PROVIDER: first.provider.name, REQUEST_MODEL: model}
        attributes = names | {CALL_ID: request.call_id} | _labels(request.labels)
        record, started = CallRecord(), perf_counter()
        failure: BaseException | None = None
        with telemetry.span(f"{operation} {model}", kind="client", attributes=attributes) as span:
            try:
                yield record
            except BaseException as error:  # noqa: BLE001  # raised again below
                self._failed(span, names, attributes, error, perf_counter() - started)
                failure = error  # outside of the span, which would record it with all that it quotes
            else:
                assert record.answer is not None
                if record.deployment is not first:
                    names, attributes = _renamed(span, record.deployment, names, attributes)
                self._finished(span, names, attributes, record.answer)
        if failure is not None:
            raise failure

    def again(self, failed: Deployment, error: ParacleError, next_one: Deployment) -> None:
        """Count one request that is sent again after `error`, to the same deployment or to another one."""
        names = {PROVIDER: failed.provider.name, REQUEST_MODEL: failed.model, ERROR_TYPE: error.code}
        if next_one is failed:
            _retries.add(1, names)
        else:
            _fallbacks.add(1, names)
        log.warning("model call failed, trying %s", next_one.name, extra=names | {"detail": error.message})

    def hedged(self, silent: Deployment, next_one: Deployment) -> None:
        """Count one request that is sent besides one which has not answered yet."""
        _hedges.add(1, {PROVIDER: silent.provider.name, REQUEST_MODEL: silent.model})
        log.info("model call is silent, asking %s besides", next_one.name)

    def missed(self) -> None:
        """Count one call that may have a kept answer, and found none."""
        _lookups.add(1, {CACHE_RESULT: CacheResult.MISS.value})

    def spared(self, request: Complete, completion: Completion, result: CacheResult) -> None:
        """Show one call that no provider is asked for, as a span, too."""
        _lookups.add(1, {CACHE_RESULT: result.value})
        model = completion.deployment.partition("/")[2]
        names = {OPERATION: CHAT, PROVIDER: completion.provider, REQUEST_MODEL: model, CACHE_RESULT: result.value}
        with telemetry.span(f"{CHAT} {model}", attributes=names | {CALL_ID: request.call_id} | _labels(request.labels)):
            pass

    def cache_away(self) -> None:
        """Count that kept answers could not be asked for, or not be kept."""
        _outages.add(1, {})

    def health(self, deployment: Deployment, state: BreakerState, error: ParacleError) -> None:
        """Show that a deployment is left in peace, probed, or well again."""
        names = {PROVIDER: deployment.provider.name, REQUEST_MODEL: deployment.model}
        _breaker.set(_BREAKER[state], names)
        level = logging.INFO if state is BreakerState.CLOSED else logging.WARNING
        log.log(level, "breaker of %s: %s", deployment.name, state, extra=names | {"detail": error.message})

    def guard(self, name: str, kind: str, direction: str, outcome: str, request: Complete) -> None:
        """Count one guard that did not just let a call pass."""
        names = {GUARD: name, GUARD_TYPE: kind, DIRECTION: direction, OUTCOME: outcome}
        _guards.add(1, names)
        log.info("a guard hit", extra=names | {CALL_ID: request.call_id} | _labels(request.labels))

    def _finished(self, span: Any, names: dict[str, str], attributes: dict[str, str], answer: Answer) -> None:
        usage = answer.usage
        _duration.record(answer.latency_s, names)
        _tokens.record(usage.input_tokens, names | {TOKEN_TYPE: "input"})
        if isinstance(answer, Completion):
            _tokens.record(usage.output_tokens, names | {TOKEN_TYPE: "output"})
            if answer.first_token_s is not None:
                _first_chunk.record(answer.first_token_s, names)
        outcome: dict[str, str | int] = {
            RESPONSE_MODEL: answer.model,
            INPUT_TOKENS: usage.input_tokens,
            OUTPUT_TOKENS: usage.output_tokens,
            CACHED_TOKENS: usage.cached_tokens,
            REASONING_TOKENS: usage.reasoning_tokens,
            ATTEMPTS: answer.attempts,
        }
        if span is not None:
            span.set_attributes(outcome)
            match answer:
                case Completion():
                    span.set_attribute(FINISH_REASONS, [answer.finish_reason.value])
                case Embeddings():
                    span.set_attribute(DIMENSIONS, answer.dimensions)
        if log.isEnabledFor(logging.DEBUG):  # its caller keeps each call in its ledger
            log.debug("model call finished", extra=attributes | outcome | {"latency_s": round(answer.latency_s, 3)})

    def _failed(
        self, span: Any, names: dict[str, str], attributes: dict[str, str], error: BaseException, seconds: float
    ) -> None:
        kind = error.code if isinstance(error, ParacleError) else type(error).__name__
        detail = error.message if isinstance(error, ParacleError) else kind
        _duration.record(seconds, names | {ERROR_TYPE: kind})
        if span is not None:
            span.set_attribute(ERROR_TYPE, kind)
            span.set_status(StatusCode.ERROR, detail)
        log.warning("model call failed", extra=attributes | {ERROR_TYPE: kind, "detail": detail})


def _renamed(
    span: Any, answered: Deployment | None, names: dict[str, str], attributes: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Names and attributes of a call that another deployment answered than the plan's first."""
    assert answered is not None
    new = {PROVIDER: answered.provider.name, REQUEST_MODEL: answered.model}
    if span is not None:
        span.set_attributes(new)
    return names | new, attributes | new


def _labels(labels: CallLabels) -> dict[str, str]:
    found = {RUN_ID: labels.run_id, TASK_ID: labels.task_id, AGENT_NAME: labels.agent, STEP: labels.step}
    return {name: value for name, value in found.items() if value is not None}
