"""What the provider gateway can be told. Without any provider, the sandbox answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from paracle_chassis.settings import Seconds, ServiceSettings


def read_hosts(value: Any) -> Any:
    """Hosts with commas between them, as the environment has them."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class GatewaySettings(ServiceSettings):
    """Providers, and how much is asked of them."""

    openai_api_key: SecretStr | None = Field(
        None, validation_alias="OPENAI_API_KEY", title="OpenAI key", description="Sets up the provider `openai`."
    )
    openai_api_key_file: Path | None = Field(
        None,
        validation_alias="OPENAI_API_KEY_FILE",
        title="File with the OpenAI key",
        description="Instead of the key itself; read anew when it changes.",
    )
    official_openai_base_url: str | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        title="OpenAI URL",
        description="Base URL of OpenAI's API, for a proxy in front of it.",
        pattern=r"^https?://",
    )
    openai_api: Literal["responses", "chat"] = Field(
        "responses",
        title="OpenAI API",
        description="What `openai` is asked over; a proxy in front of it may know Chat Completions alone.",
    )
    openai_default_model: str = Field(
        "gpt-5-mini", title="OpenAI model", description="The model of `openai` that `default` stands for."
    )
    anthropic_api_key: SecretStr | None = Field(
        None,
        validation_alias="ANTHROPIC_API_KEY",
        title="Anthropic key",
        description="Sets up the provider `anthropic`.",
    )
    anthropic_api_key_file: Path | None = Field(
        None,
        validation_alias="ANTHROPIC_API_KEY_FILE",
        title="File with the Anthropic key",
        description="Instead of the key itself; read anew when it changes.",
    )
    anthropic_base_url: str | None = Field(
        None,
        validation_alias="ANTHROPIC_BASE_URL",
        title="Anthropic URL",
        description="Base URL of Anthropic's API, for a proxy in front of it.",
        pattern=r"^https?://",
    )
    anthropic_default_model: str = Field(
        "claude-sonnet-5", title="Anthropic model", description="The model of `anthropic` that `default` stands for."
    )
    anthropic_max_output_tokens: int = Field(
        8192, ge=1, title="Anthropic output", description="Output limit where a request names none."
    )
    compatible_base_url: str | None = Field(
        None,
        validation_alias="PARACLE_OPENAI_BASE_URL",
        title="OpenAI-compatible URL",
        description="Sets up the provider `openai-compatible`: the base URL, with its /v1, of Ollama, vLLM or others.",
        pattern=r"^https?://",
    )
    compatible_api_key: SecretStr | None = Field(
        None,
        validation_alias="PARACLE_OPENAI_API_KEY",
        title="OpenAI-compatible key",
        description="Key of the server at PARACLE_OPENAI_BASE_URL, if it wants one.",
    )
    compatible_api_key_file: Path | None = Field(
        None,
        validation_alias="PARACLE_OPENAI_API_KEY_FILE",
        title="File with the OpenAI-compatible key",
        description="Instead of the key itself; read anew when it changes.",
    )
    compatible_model: str | None = Field(
        None,
        validation_alias="PARACLE_OPENAI_MODEL",
        title="OpenAI-compatible model",
        description="The model of `openai-compatible` that `default` stands for; if unset, the first that it lists.",
    )
    default_model: str | None = Field(
        None,
        title="Default model",
        description="What `default` stands for, as provider/model; if unset, the first provider that is set up.",
        pattern=r"^[a-z-]+/.+$",
    )
    default_embedding_model: str | None = Field(
        None,
        title="Default embedding model",
        description="What `default` stands for where embeddings are asked for, as provider/model; if unset, that of "
        "the first provider which has one: OpenAI's text-embedding-3-small, then the built-in one.",
        pattern=r"^[a-z-]+/.+$",
    )
    provider_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(read_hosts)] = Field(
        (),
        title="Hosts of providers",
        description="Hosts whose addresses are not public and that providers of tenants may have: localhost, "
        "10.0.0.7, llm.internal:8000, *.internal; separated by commas.",
    )
    provider_key_hosts: dict[str, tuple[str, ...]] = Field(
        {},
        title="Hosts of keys",
        description='Where keys may go besides the hosts of the presets, as JSON: {"MY_KEY": ["llm.example.com"]}.',
    )
    provider_keys_dir: Path | None = Field(
        None,
        title="Folder of keys",
        description="Files with keys, by name; those in a folder with the name of a tenant are its own.",
    )
    model_concurrency: int = Field(
        512, ge=1, title="Concurrency", description="Most model calls in the air at once in one replica."
    )
    model_attempts: int = Field(
        4, ge=1, le=20, title="Attempts", description="Most requests that are sent to a provider for one call."
    )
    breaker_failures: int = Field(
        5, ge=1, le=1_000, title="Failures", description="So many of a deployment stop calls to it for a while."
    )
    breaker_window_s: Seconds = Field(
        30.0, gt=0, title="Window", description="Seconds within which failures count, if successes are not more."
    )
    breaker_cooldown_s: Seconds = Field(
        5.0, gt=0, title="Cooldown", description="Seconds until one call tries it; doubled each time that fails, to 60."
    )
    first_token_timeout_s: Seconds = Field(
        120.0, gt=0, title="First token", description="Seconds of silence before a stream's first piece."
    )
    between_tokens_timeout_s: Seconds = Field(
        60.0, gt=0, title="Between tokens", description="Seconds of silence between two pieces of a stream."
    )
    answers_kept_s: Seconds = Field(
        300.0, gt=0, title="Answers kept", description="Seconds for which a repeated call id gets the same answer."
    )
    usage_keep_s: Seconds | None = Field(
        None,
        gt=0,
        title="Usage kept",
        description="Seconds that attempts are kept in the ledger; for ever, if not set.",
    )
    cache_memory_mb: float = Field(
        16.0, ge=0, title="Cache in memory", description="Megabytes of cached answers that a replica has at hand."
    )
    cache_answers: int = Field(
        100_000, ge=1, title="Cached answers", description="Most that are kept for a tenant; the oldest go first."
    )
    cache_answer_kb: int = Field(
        256, ge=1, title="Cached answer", description="Kilobytes of an answer that is still put into the cache."
    )
    budget_counts_keep_s: Seconds = Field(
        2_592_000.0,
        ge=86_400,
        title="Counts kept",
        description="Seconds, in whole days, that the counts of budgets for each run or task are kept after their last "
        "use, and until the run has ended.",
    )
    answers_kept: int = Field(2048, ge=1, title="Most answers kept", description="The oldest go first.")
