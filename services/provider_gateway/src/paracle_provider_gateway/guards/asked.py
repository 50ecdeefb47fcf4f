"""Guards that are a process of the tenant's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from paracle_domain.envelope import Context
from paracle_domain.errors import Unavailable
from paracle_domain.guard.messages import GuardAnswer, GuardQuestion
from paracle_domain.guard.spec import NatsGuard
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.guards.verdicts import PASSED, Outcome, Verdict
from paracle_provider_gateway.ports import Outlet
from paracle_provider_gateway.retelling import LOOK_AGAIN_S, tell_of_retry

type Telling = Callable[[str], Awaitable[None]]
"""Takes why a guard is waited for."""


class Asker(Protocol):
    """Asks processes of tenants."""

    async def ask(
        self, guard: str, question: GuardQuestion, context: Context, timeout_s: float, tell: Telling
    ) -> GuardAnswer:
        """What the process that serves `guard` says. `tell` hears of it, once, if nobody does for longer.

        Raises
        ------
        DeadlineExceeded
            If it does not answer in time; one that is not there is waited for as long.
        ParacleError
            What it answered instead.
        """


class AskedGuard:
    """Does as a process says."""

    def __init__(self, spec: NatsGuard, asker: Asker, outlet: Outlet) -> None:
        self._spec = spec
        self._asker = asker
        self._outlet = outlet

    async def check(self, question: GuardQuestion, request: Complete, context: Context) -> Verdict:
        """See `Guard.check`. Whoever watches is told that nobody serves the guard."""

        async def tell(why: str) -> None:
            waits = Unavailable(f"guard {self._spec.name!r} cannot be asked about the {question.direction}: {why}")
            await tell_of_retry(self._outlet, request, context, waits, 0, LOOK_AGAIN_S)

        answer = await self._asker.ask(self._spec.guard, question, context, self._spec.timeout_s, tell)
        match answer.verdict:
            case "refuse":
                return Verdict(Outcome.REFUSED, {"refused": 1}, reason=answer.reason)
            case "replace":
                texts = answer.texts or ()
                told = zip(question.passages, texts, strict=True)
                changed = sum(passage.text != text for passage, text in told)
                return Verdict(Outcome.REDACTED, {"replaced": changed}, texts) if changed else PASSED
            case "pass":
                return PASSED
