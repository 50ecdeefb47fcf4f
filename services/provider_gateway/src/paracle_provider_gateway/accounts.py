"""What is asked of accounts about every attempt, and accounts that keep nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from paracle_domain.envelope import Context
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.plans import Deployment
from paracle_provider_gateway.ports import Reply


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One request to one deployment; `number` counts the attempts of its call from 1."""

    number: int
    deployment: Deployment
    request: Complete
    context: Context


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: with a reply, or with an error's code. Times are in seconds since it was granted."""

    reply: Reply | None
    error: str | None
    latency_s: float
    first_token_s: float | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The attempt may be made."""


@dataclass(frozen=True, slots=True)
class Full:
    """A limit that many share (`what`) is used up for about `after_s` seconds."""

    what: str
    after_s: float


type Opening = Granted | Full
GRANTED: Final = Granted()


class Accounts(Protocol):
    """Keeps what attempts may use and what they used: budgets, limits that replicas share, the ledger."""

    async def open(self, attempt: Attempt) -> Opening:
        """Reserve what `attempt` may use, before it is made; what is `Full` reserves nothing.

        Raises
        ------
        LimitExceeded
            If a budget does not allow it.
        """

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Turn the reservation of a granted `attempt` into what it used; it is not waited for."""


class Unaccounted:
    """No budgets, no shared limits, no ledger: every attempt is granted, and none is remembered."""

    async def open(self, _attempt: Attempt) -> Opening:
        return GRANTED

    def settle(self, _attempt: Attempt, _outcome: Outcome) -> None:
        """Nothing was reserved."""
