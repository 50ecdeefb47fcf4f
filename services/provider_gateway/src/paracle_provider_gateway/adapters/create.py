"""Makes the adapter of a provider."""

from __future__ import annotations

from aiohttp.abc import AbstractResolver
from yarl import URL

from paracle_domain.errors import InvalidInput
from paracle_provider_gateway.adapters.anthropic import AnthropicProvider
from paracle_provider_gateway.adapters.config import ProviderConfig
from paracle_provider_gateway.adapters.http import AiohttpTransport
from paracle_provider_gateway.adapters.openai import OpenAIProvider
from paracle_provider_gateway.adapters.responses import ResponsesProvider
from paracle_provider_gateway.adapters.sdk import SdkTransport
from paracle_provider_gateway.adapters.transport import Credentials, Transport, origin_of
from paracle_provider_gateway.ports import Speaker


def create_provider(config: ProviderConfig, resolver: AbstractResolver | None = None) -> Speaker:
    """The provider that `config` describes; nothing is connected before it is asked.

    `resolver` resolves names instead of the system; the SDKs have their own ways.

    Raises
    ------
    InvalidInput
        If its base URL cannot be asked.
    """
    _check_url(config)
    credentials = Credentials(config)
    origin = origin_of(config, credentials)
    transport: Transport
    if config.transport == "aiohttp":
        transport = AiohttpTransport(config, credentials, origin, resolver)
    else:
        transport = SdkTransport(config, credentials, origin)
    match config.api:
        case "openai-chat":
            return OpenAIProvider(config, transport, origin)
        case "openai-responses":
            return ResponsesProvider(config, transport, origin)
        case "anthropic":
            return AnthropicProvider(config, transport, origin)


def _check_url(config: ProviderConfig) -> None:
    try:
        url = URL(config.base_url)
        port_is_one = url.port is not None
    except ValueError:
        url, port_is_one = URL(), False
    if url.scheme not in {"http", "https"} or not url.host or " " in url.host or not port_is_one:
        what = "is none that can be asked; write http:// or https://, a host, and a path if it has one"
        raise InvalidInput(f"{config.name}: its base URL {what}", path="base_url")
    if url.user is not None or url.password is not None:
        raise InvalidInput(f"{config.name}: its base URL holds credentials; give them as its key", path="base_url")
