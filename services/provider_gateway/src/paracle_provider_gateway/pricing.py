"""What tokens cost: list prices of known models, and a made-up table for the sandbox."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Final

import genai_prices

from paracle_domain.inference.usage import Usage
from paracle_provider_gateway.ports import Rates

SANDBOX_RATES: Final = Rates(input=0.10, output=0.40)
"""Not real money: the sandbox charges it so that budgets and cost views can be exercised."""

_MTOK: Final = 1_000_000
_SAMPLE: Final = 1_000  # small, since some models cost more above a length of input


class ListPrices:
    """Prices from the `genai-prices` data that is installed; nothing is fetched.

    Parameters
    ----------
    sandbox
        Name of the provider that has the made-up table.
    urls
        Base URL of each provider whose name does not tell whose prices hold.
    """

    def __init__(self, sandbox: str, urls: dict[str, str] | None = None) -> None:
        self._sandbox = sandbox
        self._urls = urls or {}
        self._rates = lru_cache(maxsize=512)(self._look_up_rates)

    def rates(self, provider: str, model: str) -> Rates | None:
        return SANDBOX_RATES if provider == self._sandbox else self._rates(provider, model)

    def priced(self, provider: str, model: str, usage: Usage) -> Usage:
        return usage.model_copy(update={"cost_usd": self._cost(provider, model, usage)})

    def _cost(self, provider: str, model: str, usage: Usage) -> Decimal | None:
        if provider == self._sandbox:
            return _linear(SANDBOX_RATES, usage)
        tokens = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
        )
        return self._price(provider, model, tokens)

    def _look_up_rates(self, provider: str, model: str) -> Rates | None:
        inward = self._price(provider, model, genai_prices.Usage(input_tokens=_SAMPLE))
        outward = self._price(provider, model, genai_prices.Usage(output_tokens=_SAMPLE))
        if inward is None or outward is None:
            return None
        return Rates(float(inward * _MTOK / _SAMPLE), float(outward * _MTOK / _SAMPLE))

    def _price(self, provider: str, model: str, tokens: genai_prices.Usage) -> Decimal | None:
        url = self._urls.get(provider)
        try:
            if url is not None:
                return genai_prices.calc_price(tokens, model, provider_api_url=url).total_price
            return genai_prices.calc_price(tokens, model, provider_id=provider).total_price
        except LookupError:
            return None


def _linear(rates: Rates, usage: Usage) -> Decimal:
    cost = usage.input_tokens * Decimal(str(rates.input)) + usage.output_tokens * Decimal(str(rates.output))
    return cost / _MTOK
