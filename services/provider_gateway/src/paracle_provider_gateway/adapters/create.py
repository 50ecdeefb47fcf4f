"""Makes the adapter of a provider."""

from __future__ import annotations

from paracle_provider_gateway.adapters.anthropic import AnthropicProvider
from paracle_provider_gateway.adapters.config import ProviderConfig
from paracle_provider_gateway.adapters.openai import OpenAIProvider
from paracle_provider_gateway.adapters.sdk import SdkTransport
from paracle_provider_gateway.adapters.transport import Credentials, origin_of
from paracle_provider_gateway.ports import Provider


def create_provider(config: ProviderConfig) -> Provider:
    """The provider that `config` describes; nothing is connected before it is asked."""
    credentials = Credentials(config)
    origin = origin_of(config, credentials)
    transport = SdkTransport(config, credentials, origin)
    match config.api:
        case "openai-chat":
            return OpenAIProvider(config, transport, origin)
        case "anthropic":
            return AnthropicProvider(config, transport, origin)
