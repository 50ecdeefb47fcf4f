"""What guards say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from paracle_domain.envelope import Context
from paracle_domain.guard.messages import GuardQuestion
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion


class Outcome(StrEnum):
    """What became of a text that a guard looked at.

    `failed`: the guard could not say anything, and the call was refused for that; `skipped`: likewise, and the call
    went on.
    """

    PASSED = "passed"
    WARNED = "warned"
    REDACTED = "redacted"
    REFUSED = "refused"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard says.

    Attributes
    ----------
    found
        How much of what was found, by its kind: never what it was.
    texts
        What is to stand in the places of the passages; absent: what stands there.
    reason
        Why it refuses, without quoting anything.
    """

    outcome: Outcome = Outcome.PASSED
    found: Mapping[str, int] = field(default_factory=dict[str, int])
    texts: Sequence[str] | None = None
    reason: str = ""


PASSED: Final = Verdict()


@dataclass(frozen=True, slots=True)
class LetOut:
    """An answer as guards let it pass. `judged`: none of them failed to look at it."""

    answer: Completion
    judged: bool = True


class Guard(Protocol):
    """Looks at texts of a call."""

    async def check(self, question: GuardQuestion, request: Complete, context: Context) -> Verdict:
        """What is to become of the texts; what it raises says that nobody knows."""
