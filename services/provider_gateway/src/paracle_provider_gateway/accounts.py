"""What is asked of accounts about every attempt, and accounts that keep nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from paracle_domain.envelope import Context
from paracle_domain.inference.embedding import ModelCall
from paracle_provider_gateway.plans import Deployment
from paracle_provider_gateway.ports import Said


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One request to one deployment; `number` counts the attempts of its call from 1.

    `first_word` is called before anything of its reply goes out, and may stop it.
    """

    number: int
    deployment: Deployment
    request: ModelCall
    context: Context
    first_word: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: with an answer, or with an error's code. Times are in seconds since it was granted.

    `lost`: the provider has the request, and may have answered it, but its reply did not come whole.
    """

    reply: Said | None
    error: str | None
    latency_s: float
    first_token_s: float | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """The attempt may be made."""


@dataclass(frozen=True, slots=True)
class Full:
    """A limit that many share (`what`) is used up for about `after_s` seconds.

    `budget`: it is what is left of one, which is no affair of other calls of the deployment: its tenant, and its name.
    """

    what: str
    after_s: float
    budget: tuple[str, str] | None = None


class MadeElsewhere(Exception):
    """`replica` has the call in the air, or has its answer: nobody is asked here."""

    def __init__(self, replica: str) -> None:
        super().__init__(replica)
        self.replica = replica


type Opening = Granted | Full
GRANTED: Final = Granted()


class Accounts(Protocol):
    """Keeps what attempts may use and what they used: budgets, limits that replicas share, the ledger."""

    async def open(self, attempt: Attempt) -> Opening:
        """Reserve what `attempt` may use, before it is made; what is `Full` reserves nothing.

        Raises
        ------
        BudgetExceeded
            If a budget does not allow it.
        MadeElsewhere
            If another replica makes, or has made, this call.
        Unavailable
            If nobody can say.
        """

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Turn the reservation of a granted `attempt` into what it used; it is not waited for."""

    async def take_over(self, tenant: str, call_id: str, replica: str) -> None:
        """`replica`, which had the call, is gone, or has no answer of it any more: its attempts are made here.

        Raises
        ------
        Unavailable
            If that cannot be noted.
        """

    def done(self, tenant: str, call_id: str) -> None:
        """The call has ended here."""
