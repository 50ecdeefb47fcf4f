"""Which provider and model a name stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from paracle_domain.errors import InvalidInput, NotFound, quote
from paracle_provider_gateway.ports import Provider

DEFAULT: Final = "default"

HOW_TO_SET_UP: Final[Mapping[str, str]] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "openai-compatible": "PARACLE_OPENAI_BASE_URL",
}
"""The variable that sets up each provider which is not always there."""


class Routing:
    """The providers that are set up, in order of preference; the sandbox comes last.

    `default` is the model that `default` stands for; absent: the first provider's own default.
    """

    def __init__(self, providers: Sequence[Provider], default: str | None = None) -> None:
        self.providers = tuple(providers)
        self._by_name = {provider.name: provider for provider in providers}
        self._default = default

    async def default_name(self) -> str:
        """The full name that `default` stands for."""
        if self._default is not None:
            return self._default
        first = self.providers[0]
        return f"{first.name}/{await first.default_model()}"

    async def pick(self, name: str) -> tuple[Provider, str]:
        """The provider and the model of `name` (`provider/model`, or `default`).

        Raises
        ------
        InvalidInput
            If `name` has no provider in it.
        NotFound
            If that provider is unknown or not set up; the message names the variable to set.
        """
        full = await self.default_name() if name == DEFAULT else name
        provider, slash, model = full.partition("/")
        if not slash or not model:
            raise InvalidInput(
                f"model {quote(name)} names no provider; write provider/model, such as openai/gpt-5-mini or "
                f"sandbox/rules, or {DEFAULT!r}",
                path="model",
            )
        if provider not in self._by_name:
            raise self._missing(provider, full)
        return self._by_name[provider], model

    def _missing(self, provider: str, full: str) -> NotFound:
        variable = HOW_TO_SET_UP.get(provider)
        if variable is not None:
            what = f"provider {provider!r} is not set up; set {variable} for the provider gateway"
        else:
            known = ", ".join(sorted({*HOW_TO_SET_UP, *self._by_name}))
            what = f"provider {quote(provider)} is unknown; known are {known}"
        return NotFound(f"model {quote(full)}: {what}", path="model")
