"""Every preset on the wire: the request line, the headers and the fields that its provider wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, override
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from provider_gateway_samples import CANARY, TASK
from workshop_desk import shop

from paracle_chassis.testing.fake_anthropic import FakeAnthropic
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import WireServer
from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import OutputFormat, Sampling, ToolDefinition
from paracle_domain.provider.presets import PRESETS
from paracle_domain.provider.spec import Api
from paracle_provider_gateway.hosts import HostRules
from paracle_provider_gateway.keys import KeyRing


class AnyOpenAI(FakeOpenAI):
    """Answers wherever it is asked."""

    @override
    def routes(self) -> Iterable[web.RouteDef]:
        return [web.post("/{path:.*}", self.answer)]


class AnyAnthropic(FakeAnthropic):
    """Answers wherever it is asked."""

    @override
    def routes(self) -> Iterable[web.RouteDef]:
        return [web.post("/{path:.*}", self.answer)]


CHAT = "/v1/chat/completions"
BEARER = ("Authorization", f"Bearer {CANARY}")
LINES: dict[str, tuple[str, tuple[str, str] | None]] = {
    "openai": ("/v1/responses", BEARER),
    "anthropic": ("/v1/messages", ("x-api-key", CANARY)),
    "azure": ("/openai/v1/chat/completions", ("api-key", CANARY)),
    "gemini": ("/v1beta/openai/chat/completions", BEARER),
    "mistral": (CHAT, BEARER),
    "deepseek": (CHAT, BEARER),
    "groq": ("/openai/v1/chat/completions", BEARER),
    "xai": (CHAT, BEARER),
    "together": (CHAT, BEARER),
    "fireworks": ("/inference/v1/chat/completions", BEARER),
    "openrouter": ("/api/v1/chat/completions", BEARER),
    "perplexity": ("/chat/completions", BEARER),
    "cohere": ("/compatibility/v1/chat/completions", BEARER),
    "ollama": (CHAT, None),
    "vllm": (CHAT, None),
    "llama-cpp": (CHAT, None),
    "lm-studio": (CHAT, None),
}
"""Where each is asked, and what shows the key."""


@pytest.fixture(params=["http", "sdk"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def servers() -> AsyncIterator[dict[Api, WireServer]]:
    async with AnyOpenAI() as openai, AnyAnthropic() as anthropic:
        yield {Api.OPENAI_CHAT: openai, Api.OPENAI_RESPONSES: openai, Api.ANTHROPIC: anthropic}


async def asked(name: str, servers: dict[Api, WireServer], transport: str = "http", **more: Any) -> Any:
    """What the provider `name` gets, its host alone being another."""
    preset = PRESETS[name]
    server, url = servers[preset.api], preset.base_url or "https://acme.openai.azure.com/openai/v1"
    mine = shop(KeyRing({preset.key or "": CANARY}), HostRules(["127.0.0.1"], {preset.key or "": ["127.0.0.1"]}))
    mine.registry.provider("p", preset=name, base_url=server.origin + urlsplit(url).path, transport=transport)
    answer = await mine.ask("p/some/model", **more)
    await mine.workshop.close()
    assert answer.message.text == "Nothing else was scripted."
    return server.journal[-1]


def test_every_preset_is_asked() -> None:
    assert LINES.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
async def test_the_request_line_and_the_headers(name: str, servers: dict[Api, WireServer], transport: str):
    path, shown = LINES[name]
    seen = await asked(name, servers, transport)
    headers = {key.lower(): value for key, value in seen.headers.items()}
    assert (seen.path, seen.body["model"]) == (path, "some/model")
    assert headers["content-type"] == "application/json"
    assert [key for key, value in headers.items() if CANARY in value] == ([shown[0].lower()] if shown else [])
    if shown is not None:
        assert headers[shown[0].lower()] == shown[1]
    if PRESETS[name].api is Api.ANTHROPIC:
        assert headers["anthropic-version"] == "2026-10-21", "as the SDK that is the reference"
    if transport == "http" and shown is None:
        assert "authorization" not in headers


RENAMED = {"azure", "groq"}


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.api is Api.OPENAI_CHAT])
async def test_the_fields_that_differ(name: str, servers: dict[Api, WireServer]):
    sampling = Sampling(max_output_tokens=5, seed=3)
    tools = (ToolDefinition(name="t"),)
    output = OutputFormat(json_schema={"type": "object"})
    body = (await asked(name, servers, sampling=sampling, tools=tools, tool_choice="required", output=output)).body
    assert body["max_completion_tokens" if name in RENAMED else "max_tokens"] == 5
    assert body["random_seed" if name == "mistral" else "seed"] == 3
    assert body["tool_choice"] == ("any" if name == "mistral" else "required")
    if name == "deepseek":
        assert body["response_format"] == {"type": "json_object"}
        assert body["messages"][0]["content"].endswith('{"type": "object"}')
    else:
        assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    streamed = (await asked(name, servers, stream_to=TASK)).body
    assert ("stream_options" in streamed) is (name not in {"mistral", "perplexity"})


async def test_a_schema_that_cannot_be_enforced_is_refused(servers: dict[Api, WireServer]):
    with pytest.raises(InvalidInput, match="enforces no schema") as refused:
        await asked("deepseek", servers, output=OutputFormat(json_schema={}, strict=True))
    assert refused.value.path == "output.strict"
