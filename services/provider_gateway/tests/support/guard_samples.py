"""Guards without anybody to ask, and what they told of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paracle_domain.envelope import Context
from paracle_domain.errors import DeadlineExceeded
from paracle_domain.guard.messages import GuardAnswer, GuardQuestion
from paracle_domain.guard.spec import ModerationGuard
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.guards.asked import Telling
from paracle_provider_gateway.guards.rails import Hit
from paracle_provider_gateway.ports import Judgement


@dataclass
class MemoryAudit:
    """Keeps what it is told; raises `away` instead, if there is one."""

    hits: list[Hit] = field(default_factory=list)
    away: Exception | None = None

    async def tell(self, hits: Sequence[Hit], _request: Complete, _context: Context) -> None:
        if self.away is not None:
            raise self.away
        self.hits += hits


@dataclass
class MemoryAsker:
    """Processes of tenants, by name; one that is not there does not answer, which is told at once."""

    answers: dict[str, Callable[[GuardQuestion], GuardAnswer]] = field(default_factory=dict)
    asked: list[GuardQuestion] = field(default_factory=list)

    async def ask(
        self, guard: str, question: GuardQuestion, _context: Context, timeout_s: float, tell: Telling
    ) -> GuardAnswer:
        self.asked.append(question)
        if guard not in self.answers:
            await tell(f"nobody listens on {guard}")
            raise DeadlineExceeded(f"{guard!r} did not answer within {timeout_s:g} s")
        return self.answers[guard](question)


@dataclass
class MemoryModerator:
    """Flags texts that hold a word, in the category of the word."""

    words: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def judge(
        self, _spec: ModerationGuard, texts: Sequence[str], _request: Complete, _context: Context
    ) -> Sequence[Judgement]:
        self.asked += texts
        return [self._judgement(text) for text in texts]

    def _judgement(self, text: str) -> Judgement:
        scores = {category: 0.9 if word in text else 0.2 for word, category in self.words.items()}
        return Judgement(frozenset(name for name, score in scores.items() if score > 0.5), scores)
