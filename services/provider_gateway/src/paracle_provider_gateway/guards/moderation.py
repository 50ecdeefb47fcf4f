"""Guards that ask a model which is made to judge texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from paracle_domain.envelope import Context
from paracle_domain.guard.messages import GuardQuestion
from paracle_domain.guard.spec import ModerationGuard
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.guards.local import hit
from paracle_provider_gateway.guards.verdicts import Verdict
from paracle_provider_gateway.ports import Judgement


class Moderator(Protocol):
    """Asks such models."""

    async def judge(
        self, spec: ModerationGuard, texts: Sequence[str], request: Complete, context: Context
    ) -> Sequence[Judgement]:
        """What the model of `spec` says of each of `texts`; errors as of a model call."""


class Moderation:
    """Counts the texts that are hits, by category."""

    def __init__(self, spec: ModerationGuard, moderator: Moderator) -> None:
        self._spec = spec
        self._moderator = moderator

    async def check(self, question: GuardQuestion, request: Complete, context: Context) -> Verdict:
        """See `Guard.check`."""
        texts = list(dict.fromkeys(passage.text for passage in question.passages if passage.text.strip()))
        if not texts:
            return hit(self._spec.on_hit, Counter())
        judged = await self._moderator.judge(self._spec, texts, request, context)
        return hit(self._spec.on_hit, Counter(name for one in judged for name in self._hits(one)))

    def _hits(self, judged: Judgement) -> set[str]:
        spec = self._spec
        found = (
            judged.flagged
            if spec.threshold is None
            else {name for name, score in judged.scores.items() if score >= spec.threshold}
        )
        return set(found) & set(spec.categories) if spec.categories else set(found)
