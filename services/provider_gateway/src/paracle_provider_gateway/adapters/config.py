"""What an adapter is told of its provider: pure data, of settings, presets or manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import SecretStr

from paracle_domain.provider.presets import Quirks

type Api = Literal["openai-chat", "openai-responses", "anthropic"]
"""A wire format."""

type TransportName = Literal["aiohttp", "sdk"]
"""What carries requests: aiohttp, or the official SDK, which takes several times the CPU."""

type KeySupplier = Callable[[], SecretStr | None]
"""The key as it is now: asked before every request, since keys rotate."""

OPENAI_URL: Final = "https://api.openai.com/v1"
OPENAI_EMBEDDING: Final = "text-embedding-3-small"
ANTHROPIC_URL: Final = "https://api.anthropic.com"


def no_key() -> SecretStr | None:
    """For servers that want none."""
    return None


def fixed(key: SecretStr | None) -> KeySupplier:
    """A key that stays as it is."""
    return lambda: key


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """How the key is shown: most take `Authorization: Bearer …`, Azure `api-key: …`, Anthropic `x-api-key: …`."""

    name: str = "Authorization"
    prefix: str = "Bearer "


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One provider.

    Attributes
    ----------
    name
        The part before the slash in `provider/model`.
    api
        What it speaks.
    base_url
        Of the API: with its `/v1` for the OpenAI ones, without it for Anthropic.
    key, key_source, key_header
        Its key, where somebody sets it (a variable or file, for messages), and how it is shown.
    headers, query
        Sent with every request: an organisation's name, Azure's `api-version`.
    model
        What `default` stands for; if absent, the first model that the server lists.
    model_source
        What to set so that `model` is known, for messages.
    embedding_model
        What `default` stands for where embeddings are asked for, if that is known.
    max_output_tokens
        Sent where a request names no limit and the API insists on one (Anthropic).
    connect_s
        Most seconds until there is a connection; the other time limits belong to the call.
    transport
        What carries its requests.
    """

    name: str
    api: Api
    base_url: str
    key: KeySupplier = no_key
    key_source: str = "its key"
    key_header: KeyHeader = KeyHeader()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    model: str | None = None
    model_source: str = "its default model"
    embedding_model: str | None = None
    max_output_tokens: int = 8192
    quirks: Quirks = field(default_factory=Quirks)
    connect_s: float = 10.0
    transport: TransportName = "aiohttp"

    @property
    def source(self) -> str:
        """What it speaks, where, and what is sent with every request; the key is not of it, and how it gets there."""
        return repr((self.api, self.base_url, sorted(self.headers.items()), sorted(self.query.items())))
