"""What carries requests to one provider, whatever they say."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol
from urllib.parse import quote

from pydantic import SecretStr

from paracle_provider_gateway.adapters.config import Api, ProviderConfig
from paracle_provider_gateway.faults import Origin

ENDPOINTS: Final[Mapping[Api, str]] = {
    "openai-chat": "/chat/completions",
    "anthropic": "/v1/messages",
}
_KEYS_REMEMBERED: Final = 4


class Body(Protocol):
    """The body of a good answer, not read yet."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    def iter_bytes(self) -> AsyncIterator[bytes]: ...


class Transport(Protocol):
    """Carries requests, one each: nothing is sent again, no redirect is followed.

    Whatever goes wrong, at any time until the context is left, is raised as an error of the contract; leaving the
    context before the whole body was read closes the connection.
    """

    def post(self, body: Mapping[str, Any], *, model: str, timeout_s: float) -> AbstractAsyncContextManager[Body]:
        """Ask `model`."""

    async def first_model(self) -> str | None:
        """The first model that the server lists (of the OpenAI APIs)."""

    async def close(self) -> None:
        """Give up connections."""


class Credentials:
    """The headers that show the key as it is now; as an iterable, what no error may quote: the latest keys."""

    def __init__(self, config: ProviderConfig) -> None:
        self._supply = config.key
        self._shown = config.key_header
        self._always = dict(config.headers)
        self._keys = deque[SecretStr](maxlen=_KEYS_REMEMBERED)
        self._headers = self._always

    def __iter__(self) -> Iterator[SecretStr]:
        return iter(self._keys)

    def headers(self) -> dict[str, str]:
        """What to send with a request."""
        key = self._supply()
        if key is None:
            return self._always
        if not self._keys or self._keys[-1] != key:
            self._keys.append(key)
            self._headers = self._always | {self._shown.name: self._shown.prefix + key.get_secret_value()}
        return self._headers


def origin_of(config: ProviderConfig, credentials: Credentials) -> Origin:
    """Who an error is about."""
    return Origin(config.name, config.key_source, credentials)


def base_of(config: ProviderConfig, model: str) -> str:
    """The base URL for requests about `model`."""
    return config.base_url.rstrip("/") + config.quirks.model_path.format(model=quote(model, safe=""))
