"""What tokens cost: what a manifest says, or else list prices of known models; a made-up table for the sandbox."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import genai_prices
from genai_prices.types import ModelPrice, TieredPrices

from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import Price
from paracle_provider_gateway.plans import Deployment
from paracle_provider_gateway.ports import Rates

SANDBOX_PRICE: Final = Price(input=Decimal("0.10"), output=Decimal("0.40"))
"""Not real money: the sandbox charges it so that budgets and cost views can be exercised."""

FREE: Final = Price(input=Decimal(0), output=Decimal(0))
"""What runs here costs no money."""

_MTOK: Final = 1_000_000
_FREE: Final = Decimal(0)
_FREE_MODELS: Final = ("omni-moderation", "text-moderation")
"""OpenAI's for moderation, which no list of prices has."""
_SAMPLE: Final = 1_000  # small, since some models cost more above a length of input
_FRESH_S: Final = 60.0  # some prices go by the time of day
_KEPT: Final = 2_048
_PER_REQUEST: Final = "requests_kcount"


@dataclass(frozen=True, slots=True)
class _Tariff:
    """A list price: that of the first of `steps` whose length the input has passed; without any, what `full` says."""

    full: ModelPrice
    steps: tuple[tuple[int, Price], ...]
    until: float

    def at(self, input_tokens: int) -> Price | None:
        """The step of an input of that length."""
        return next((price for passed, price in self.steps if input_tokens > passed), None)

    def cost(self, usage: Usage) -> Decimal:
        if (price := self.at(usage.input_tokens)) is not None:
            return cost_by_kind(price, usage)
        tokens = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        return self.full.calc_price(tokens)["total_price"]


class ListPrices:
    """Prices from the `genai-prices` data that is installed; nothing is fetched.

    Parameters
    ----------
    sandbox
        Name of the provider that has the made-up table.
    urls
        Base URL of each provider whose name does not tell whose prices hold.
    """

    def __init__(
        self, sandbox: str, urls: dict[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sandbox = sandbox
        self._urls = urls or {}
        self._clock = clock
        self._tariffs: dict[tuple[str, str, str | None], _Tariff | None] = {}

    def rates(self, deployment: Deployment) -> Rates | None:
        """The price of `deployment`; `None` if it is not known."""
        inward = self.cost(deployment, deployment.model, Usage(input_tokens=_SAMPLE))
        outward = self.cost(deployment, deployment.model, Usage(output_tokens=_SAMPLE))
        if inward is None or outward is None:
            return None
        return Rates(float(inward * _MTOK / _SAMPLE), float(outward * _MTOK / _SAMPLE))

    def estimate(self, deployment: Deployment, input_tokens: int, output_tokens: int) -> Decimal | None:
        """What so many tokens of `deployment` may cost at most; `None` if its price is not known."""
        price = self._set(deployment)
        if price is None:
            tariff = self._tariff(deployment.provider.name, deployment.model, deployment.price_url)
            if tariff is None:
                return None
            price = tariff.at(input_tokens)
            if price is None:
                return tariff.cost(Usage(input_tokens=input_tokens, output_tokens=output_tokens))
        return most_by_kind(price, input_tokens, output_tokens)

    def cost(self, deployment: Deployment, model: str, usage: Usage) -> Decimal | None:
        """What `usage` of `deployment` costs, for which its provider says `model`; `None` if that is not known.

        No answer is made of no tokens: a provider that says so does not count them.
        """
        if not usage.total_tokens:
            return None
        price = self._set(deployment)
        if price is not None:
            return cost_by_kind(price, usage)
        tariff = self._tariff(deployment.provider.name, model, deployment.price_url)
        return None if tariff is None else tariff.cost(usage)

    def _set(self, deployment: Deployment) -> Price | None:
        """The price that is no list price: somebody set it, or it is for what costs nothing."""
        if deployment.price is not None:
            return deployment.price
        if deployment.provider.name == self._sandbox:
            return SANDBOX_PRICE
        return FREE if deployment.model.startswith(_FREE_MODELS) else None

    def _tariff(self, provider: str, model: str, url: str | None) -> _Tariff | None:
        key = (provider, model, url)
        try:
            found = self._tariffs[key]
        except KeyError:
            pass
        else:
            if found is None or found.until > self._clock():
                return found
        if len(self._tariffs) >= _KEPT:  # callers name models, so they are no bounded set
            self._tariffs.clear()
        found = self._tariffs[key] = self._looked_up(provider, model, url or self._urls.get(provider))
        return found

    def _looked_up(self, provider: str, model: str, url: str | None) -> _Tariff | None:
        tokens = genai_prices.Usage(input_tokens=_SAMPLE)
        try:
            if url is None:
                full = genai_prices.calc_price(tokens, model, provider_id=provider).model_price
            else:
                full = genai_prices.calc_price(tokens, model, provider_api_url=url).model_price
        except LookupError:
            return None
        return _Tariff(full, tuple(_steps(full)), self._clock() + _FRESH_S)


def _steps(full: ModelPrice) -> Iterator[tuple[int, Price]]:
    """The same price by kinds of tokens, for the longest input first; nothing, if a request costs something by itself.

    What else has a price (searches, pages, hours of sound) is nothing that is told of a reply here. Asking `full` would
    take thirty times as long, several times a call.
    """
    if full.input_mtok is None or full.output_mtok is None or getattr(full, _PER_REQUEST) is not None:
        return
    kinds = (full.input_mtok, full.output_mtok, full.cache_read_mtok, full.cache_write_mtok)
    lengths = {tier.start for kind in kinds if isinstance(kind, TieredPrices) for tier in kind.tiers}
    for passed in sorted(lengths | {-1}, reverse=True):
        given, said, cached, written = (_at(kind, passed) for kind in kinds)
        if given is not None and said is not None:
            yield passed, Price(input=given, output=said, cached=cached, cache_write=written)


def _at(price: Decimal | TieredPrices | None, passed: int) -> Decimal | None:
    """A price of an input that is longer than `passed`."""
    if not isinstance(price, TieredPrices):
        return price
    return next((tier.price for tier in reversed(price.tiers) if passed >= tier.start), price.base)


def cost_by_kind(price: Price, usage: Usage) -> Decimal:
    """What `usage` costs where each kind of token has its price."""
    cached = price.input if price.cached is None else price.cached
    reasoning = price.output if price.reasoning is None else price.reasoning
    written = price.input if price.cache_write is None else price.cache_write
    fresh = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    cost = fresh * price.input + usage.cached_tokens * cached + usage.cache_write_tokens * written
    cost += (usage.output_tokens - usage.reasoning_tokens) * price.output + usage.reasoning_tokens * reasoning
    return cost / _MTOK


def most_by_kind(price: Price, input_tokens: int, output_tokens: int) -> Decimal:
    """What so many tokens cost if all are of the dearest kind: input may all be written to a cache, output thought."""
    given = max(price.input, price.cached or _FREE, price.cache_write or _FREE)
    return (input_tokens * given + output_tokens * max(price.output, price.reasoning or _FREE)) / _MTOK
