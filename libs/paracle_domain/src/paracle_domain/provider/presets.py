"""Providers that are known: where they are, what they speak, how they take their key, and where they differ. Pure data.

Source: each provider's own reference of its OpenAI-compatible API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from paracle_domain.inference.embedding import MOST_TEXTS
from paracle_domain.provider.spec import Api, KeyRef, ProviderSpec

API_KEY: Final = "api-key"
X_API_KEY: Final = "x-api-key"


@dataclass(frozen=True, slots=True)
class Quirks:
    """Where a server differs from others that speak OpenAI's Chat Completions.

    Attributes
    ----------
    output_limit
        What it calls the most tokens of a reply.
    seed
        What it calls the seed.
    stream_usage
        Whether it wants to be told that a stream is to say what it used; the others do so anyway.
    output
        How it takes the schema of an answer: enforced, or in words beside the order to write JSON.
    tool_choice_required
        What it calls that some tool must be called.
    vectors
        In which form it is asked for embeddings; whatever it answers is read.
    dimensions
        What it calls the length of an embedding.
    texts_at_once
        Most texts of which it takes the embeddings in one request.
    """

    output_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    seed: Literal["seed", "random_seed"] = "seed"
    stream_usage: bool = True
    output: Literal["json_schema", "json_object"] = "json_schema"
    tool_choice_required: Literal["required", "any"] = "required"
    vectors: Literal["float", "base64"] = "float"
    dimensions: Literal["dimensions", "output_dimension"] = "dimensions"
    texts_at_once: int = MOST_TEXTS


@dataclass(frozen=True, slots=True)
class Preset:
    """A provider that is known.

    Attributes
    ----------
    base_url
        Absent where everybody has their own.
    key
        The usual name of its key; absent where it wants none.
    key_header
        What carries the key, if it is not `Authorization: Bearer …`.
    hosts
        Where its key may go, besides the host of `base_url`; `*.` in front stands for any one name there.
    """

    title: str
    api: Api = Api.OPENAI_CHAT
    base_url: str | None = None
    key: str | None = None
    key_header: str | None = None
    hosts: tuple[str, ...] = ()
    quirks: Quirks = Quirks()


PRESETS: Final[Mapping[str, Preset]] = {
    "openai": Preset(
        "OpenAI",
        api=Api.OPENAI_RESPONSES,
        base_url="https://api.openai.com/v1",
        key="OPENAI_API_KEY",
        quirks=Quirks(output_limit="max_completion_tokens", vectors="base64"),
    ),
    "anthropic": Preset(
        "Anthropic",
        api=Api.ANTHROPIC,
        base_url="https://api.anthropic.com",
        key="ANTHROPIC_API_KEY",
        key_header=X_API_KEY,
    ),
    "azure": Preset(
        "Azure OpenAI; base_url: https://RESOURCE.openai.azure.com/openai/v1",
        key="AZURE_OPENAI_API_KEY",
        key_header=API_KEY,
        hosts=("*.openai.azure.com", "*.services.ai.azure.com", "*.cognitiveservices.azure.com"),
        quirks=Quirks(output_limit="max_completion_tokens", vectors="base64"),
    ),
    "gemini": Preset(
        "Google Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key="GEMINI_API_KEY",
        quirks=Quirks(texts_at_once=100),
    ),
    "mistral": Preset(
        "Mistral",
        base_url="https://api.mistral.ai/v1",
        key="MISTRAL_API_KEY",
        quirks=Quirks(
            seed="random_seed",
            stream_usage=False,
            tool_choice_required="any",
            vectors="base64",
            dimensions="output_dimension",
        ),
    ),
    "deepseek": Preset(
        "DeepSeek",
        base_url="https://api.deepseek.com/v1",
        key="DEEPSEEK_API_KEY",
        quirks=Quirks(output="json_object"),
    ),
    "groq": Preset(
        "Groq",
        base_url="https://api.groq.com/openai/v1",
        key="GROQ_API_KEY",
        quirks=Quirks(output_limit="max_completion_tokens"),
    ),
    "xai": Preset("xAI", base_url="https://api.x.ai/v1", key="XAI_API_KEY"),
    "together": Preset("Together AI", base_url="https://api.together.xyz/v1", key="TOGETHER_API_KEY"),
    "fireworks": Preset("Fireworks AI", base_url="https://api.fireworks.ai/inference/v1", key="FIREWORKS_API_KEY"),
    "openrouter": Preset("OpenRouter", base_url="https://openrouter.ai/api/v1", key="OPENROUTER_API_KEY"),
    "perplexity": Preset(
        "Perplexity",
        base_url="https://api.perplexity.ai",
        key="PERPLEXITY_API_KEY",
        quirks=Quirks(stream_usage=False),
    ),
    "cohere": Preset(
        "Cohere",
        base_url="https://api.cohere.ai/compatibility/v1",
        key="COHERE_API_KEY",
        quirks=Quirks(texts_at_once=96),
    ),
    "ollama": Preset("Ollama", base_url="http://localhost:11434/v1", quirks=Quirks(vectors="base64")),
    "vllm": Preset("vLLM", base_url="http://localhost:8000/v1", quirks=Quirks(vectors="base64")),
    "llama-cpp": Preset("llama.cpp", base_url="http://localhost:8080/v1", quirks=Quirks(vectors="base64")),
    "lm-studio": Preset("LM Studio", base_url="http://localhost:1234/v1"),
}

_PLAIN: Final = Preset("any")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a provider's manifest comes to: its preset, and what is written besides. `base_url`: nowhere if absent."""

    api: Api
    base_url: str | None
    key: KeyRef | None
    key_header: str | None
    quirks: Quirks


def endpoint_of(spec: ProviderSpec) -> Endpoint:
    """Where `spec` leads to, and how; an unknown preset says nothing."""
    preset = PRESETS.get(spec.preset or "", _PLAIN)
    api = spec.api or preset.api
    key = spec.key
    if key is None and "key" not in spec.model_fields_set and preset.key is not None:
        key = KeyRef(env=preset.key)
    header = key.header if key is not None else None
    usual = X_API_KEY if api is Api.ANTHROPIC else preset.key_header
    return Endpoint(api, spec.base_url or preset.base_url, key, header or usual, preset.quirks)


def hosts_of_key(name: str) -> frozenset[str]:
    """Where the key that is usually called `name` may go, as far as presets know."""
    return frozenset(host for preset in PRESETS.values() if preset.key == name for host in _hosts(preset))


def _hosts(preset: Preset) -> tuple[str, ...]:
    own = urlsplit(preset.base_url or "").hostname
    return preset.hosts if own is None else (own, *preset.hosts)
