"""Guards that are a process of the tenant's own."""

from __future__ import annotations

from typing import Protocol

from paracle_domain.envelope import Context
from paracle_domain.guard.messages import GuardAnswer, GuardQuestion
from paracle_domain.guard.spec import NatsGuard
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.guards.verdicts import PASSED, Outcome, Verdict


class Asker(Protocol):
    """Asks processes of tenants."""

    async def ask(self, guard: str, question: GuardQuestion, context: Context, timeout_s: float) -> GuardAnswer:
        """What the process that serves `guard` says.

        Raises
        ------
        DeadlineExceeded
            If it does not answer in time; one that is not there is waited for as long.
        ParacleError
            What it answered instead.
        """


class AskedGuard:
    """Does as a process says."""

    def __init__(self, spec: NatsGuard, asker: Asker) -> None:
        self._spec = spec
        self._asker = asker

    async def check(self, question: GuardQuestion, _request: Complete, context: Context) -> Verdict:
        """See `Guard.check`."""
        answer = await self._asker.ask(self._spec.guard, question, context, self._spec.timeout_s)
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
