"""What carries requests to one provider, whatever they say."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, Protocol

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import from_json

from paracle_provider_gateway.adapters.config import Api, ProviderConfig
from paracle_provider_gateway.faults import DeploymentFailed, Origin

ENDPOINTS: Final[Mapping[Api, str]] = {
    "openai-chat": "/chat/completions",
    "openai-responses": "/responses",
    "anthropic": "/v1/messages",
}
type Purpose = Literal["reply", "embeddings", "moderation"]
"""What a model is asked for."""
ELSEWHERE: Final[Mapping[Purpose, str]] = {"embeddings": "/embeddings", "moderation": "/moderations"}
"""Endpoints of the OpenAI APIs for what is no reply."""
MAX_ERROR_BYTES: Final = 64 * 1024
_KEYS_REMEMBERED: Final = 4


class Body(Protocol):
    """The body of a good answer, not read yet."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    def iter_bytes(self) -> AsyncIterator[bytes]: ...


class Transport(Protocol):
    """Carries requests, one each: nothing is sent again, no redirect is followed.

    Whatever goes wrong, at any time until the context is left, is raised as an error of the contract. Leaving the
    context by an exception or a cancellation closes the connection.
    """

    def post(
        self, body: Mapping[str, Any], *, timeout_s: float, purpose: Purpose = "reply"
    ) -> AbstractAsyncContextManager[Body]:
        """Ask a model for a reply, or for something else that the OpenAI APIs have."""

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
        """What to send with a request: the same object as long as the key is the same."""
        key = self._supply()
        if key is None:
            return self._always
        if not self._keys or self._keys[-1] != key:
            self._headers = self._always | {self._shown.name: self._shown.prefix + _sendable(key)}
            self._keys.append(key)
        return self._headers


def _sendable(key: SecretStr) -> str:
    """The key, if a header can hold it: an HTTP client that complains might quote it."""
    value = key.get_secret_value()
    if not value.isascii() or not value.isprintable():
        message = "the key holds characters that no key has (a line break, an umlaut); is it the right file?"
        raise DeploymentFailed(message)
    return value


def origin_of(config: ProviderConfig, credentials: Credentials) -> Origin:
    """Who an error is about."""
    return Origin(config.name, config.key_source, credentials)


def error_body(data: bytes) -> object:
    """The body of an error, as JSON if it is that; of one that was too long to read, what there is."""
    try:
        return from_json(data)
    except ValueError:
        return data.decode("utf-8", "replace").strip()


def first_listed(data: bytes, origin: Origin) -> str | None:
    """The first model of a list as the OpenAI APIs give it."""
    try:
        found = _Models.model_validate_json(data)
    except ValidationError as error:
        raise origin.malformed(error) from error
    return found.data[0].id if found.data else None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]
