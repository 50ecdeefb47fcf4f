"""Takes the texts of a call past the guards of its agent, and sees to what they say.

Guards are asked in turn, each about what the one before it left. All of a conversation is looked at each time that it
goes in, since the agent keeps what was said as it was said: what was taken out once is there again in the next turn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from paracle_domain.envelope import Context
from paracle_domain.errors import BudgetExceeded, ContentRefused, ParacleError, Unavailable
from paracle_domain.guard.messages import GuardQuestion, Passage
from paracle_domain.guard.spec import AnyGuard, Direction
from paracle_domain.guard.spec import Guard as GuardSpec
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion
from paracle_provider_gateway.guards.passages import passages_of, with_texts
from paracle_provider_gateway.guards.verdicts import Guard, LetOut, Outcome, Verdict
from paracle_provider_gateway.ports import Outlet
from paracle_provider_gateway.streaming import send_whole
from paracle_provider_gateway.telemetry import Telemetry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hit:
    """A guard that found something, or failed to look."""

    guard: str
    type: str
    direction: Direction
    verdict: Verdict


class Workbench(Protocol):
    """Makes guards."""

    def guard(self, spec: GuardSpec) -> Guard:
        """The one that `spec` describes."""


class Audit(Protocol):
    """Keeps what guards did."""

    async def tell(self, hits: Sequence[Hit], request: Complete, context: Context) -> None:
        """Keep `hits` for good.

        Raises
        ------
        Unavailable
            If that cannot be done; then nothing else is.
        """


class Rails:
    """See the module."""

    def __init__(self, workbench: Workbench, audit: Audit, outlet: Outlet, telemetry: Telemetry) -> None:
        self._workbench = workbench
        self._audit = audit
        self._outlet = outlet
        self._telemetry = telemetry

    async def let_in(self, request: Complete, context: Context) -> Complete:
        """`request` as the guards of the input let it pass.

        Raises
        ------
        ContentRefused
            If one of them refuses it.
        Unavailable
            If one cannot be asked that must be.
        """
        if not request.guarded("input"):
            return request
        messages, _ = await self._past("input", request.messages, request, context)
        return request if messages is request.messages else request.model_copy(update={"messages": messages})

    async def let_out(self, answer: Completion, request: Complete, context: Context) -> LetOut:
        """`answer` as the guards of the output let it pass; whoever watches is told of it then. Errors as `let_in`."""
        if not request.guarded("output"):
            return LetOut(answer)
        said = (answer.message,)
        messages, judged = await self._past("output", said, request, context)
        if messages is not said:
            answer = answer.model_copy(update={"message": messages[0]})
        if request.stream_to is not None:
            await send_whole(self._outlet, request.stream_to, request, answer, context)
        return LetOut(answer, judged)

    async def _past(
        self, direction: Direction, messages: tuple[ChatMessage, ...], request: Complete, context: Context
    ) -> tuple[tuple[ChatMessage, ...], bool]:
        """What is left of `messages`, and whether all guards have looked at them."""
        shown = passages_of(messages)
        passages: Sequence[Passage] = shown
        hits: list[Hit] = []
        refusal: ParacleError | None = None
        for spec in request.guards:
            if not spec.watches(direction):
                continue
            question = _question(spec, direction, passages, messages, request)
            verdict, refusal = await self._asked(spec, question, request, context)
            if verdict.outcome is not Outcome.PASSED:
                hits.append(Hit(spec.name, spec.type, direction, verdict))
                self._telemetry.guard(spec.name, spec.type, direction, verdict.outcome, request)
            if refusal is not None:
                break
            if verdict.texts is not None:
                passages = _with(passages, verdict.texts)
        if hits:
            await self._audit.tell(hits, request, context)
        if refusal is not None:
            raise refusal
        judged = all(hit.verdict.outcome is not Outcome.SKIPPED for hit in hits)
        left = messages if passages is shown else with_texts(messages, (passage.text for passage in passages))
        return left, judged

    async def _asked(
        self, spec: GuardSpec, question: GuardQuestion, request: Complete, context: Context
    ) -> tuple[Verdict, ParacleError | None]:
        """What a guard says, and the error if the call ends there."""
        try:
            verdict = await self._workbench.guard(spec).check(question, request, context)
            if verdict.texts is not None:
                _with(question.passages, verdict.texts)
        except BudgetExceeded:
            raise
        except Exception as error:  # noqa: BLE001  # logged, audited, and what becomes of it is the spec's to say
            return self._failed(spec, question, error)
        refused = verdict.outcome is Outcome.REFUSED
        return verdict, _refusal(spec, question, verdict.reason) if refused else None

    def _failed(
        self, spec: GuardSpec, question: GuardQuestion, error: Exception
    ) -> tuple[Verdict, ParacleError | None]:
        what = error.message if isinstance(error, ParacleError) else type(error).__name__
        log.warning(
            "a guard failed", exc_info=None if isinstance(error, ParacleError) else error,
            extra={"guard": spec.name, "agent": question.agent, "direction": question.direction, "error": what},
        )  # fmt: skip
        found = {error.code if isinstance(error, ParacleError) else "broken": 1}
        if spec.on_error == "pass":
            return Verdict(Outcome.SKIPPED, found), None
        return Verdict(Outcome.FAILED, found), _unjudged(spec, question, error)


def _question(
    spec: GuardSpec,
    direction: Direction,
    passages: Sequence[Passage],
    messages: Iterable[ChatMessage],
    request: Complete,
) -> GuardQuestion:
    labels = request.labels
    return GuardQuestion(
        guard=spec.name,
        direction=direction,
        passages=tuple(passages),
        calls_tools=direction == "output" and any(message.tool_calls for message in messages),
        call_id=request.call_id,
        model=request.model,
        agent=labels.agent,
        run_id=labels.run_id,
        task_id=labels.task_id,
        step=labels.step,
    )


def _with(passages: Sequence[Passage], texts: Sequence[str]) -> list[Passage]:
    """`passages` with other texts.

    Raises
    ------
    ValueError
        If there are more texts than passages, or fewer.
    """
    return [
        passage if passage.text == text else passage.model_copy(update={"text": text})
        for passage, text in zip(passages, texts, strict=True)
    ]


def _refusal(spec: GuardSpec, question: GuardQuestion, reason: str) -> ContentRefused:
    why = f": {reason}" if reason else ""
    return ContentRefused(
        f"{_named(spec, question)} refused the {question.direction}{why}", details=_details(spec, question)
    )


def _unjudged(spec: GuardSpec, question: GuardQuestion, error: Exception) -> ParacleError:
    """The error of a call that is refused since nobody knows whether it may pass.

    An outage is over some day. It is always `Unavailable`, after which a call is made again under the same id: what the
    model has answered by then is held.
    """
    who, details = _named(spec, question), _details(spec, question)
    if isinstance(error, ParacleError) and error.retryable:
        what = f"{who} cannot be asked about the {question.direction}, and without it nothing passes: {error.message}"
        return Unavailable(what, retry_after_s=error.retry_after_s, details=details)
    why = error.message if isinstance(error, ParacleError) else f"{type(error).__name__}; see the gateway's log"
    return ContentRefused(
        f"{who} could not judge the {question.direction}, which is refused for that: {why}", details=details
    )


def _named(spec: AnyGuard, question: GuardQuestion) -> str:
    return f"guard {spec.name!r}" + (f" of agent {question.agent!r}" if question.agent else "")


def _details(spec: GuardSpec, question: GuardQuestion) -> dict[str, Any]:
    return {"guard": spec.name, "type": spec.type, "direction": question.direction}
