"""Against an independent fake of the providers: the npm package `@copilotkit/aimock`, where Node.js is present."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from provider_gateway_samples import CONTEXT, TASK, Gateway, ask, gateway
from pydantic import SecretStr

from paracle_chassis.testing.npm import installed, needs_node, serving
from paracle_domain.errors import ProviderUnavailable, RateLimited
from paracle_domain.inference.chat import OutputFormat, ToolDefinition
from paracle_domain.inference.deltas import assemble
from paracle_domain.inference.response import FinishReason
from paracle_embedded import free_port
from paracle_provider_gateway.adapters.config import Api, ProviderConfig, fixed
from paracle_provider_gateway.adapters.create import create_provider
from paracle_provider_gateway.retries import RetryPolicy

HERE = Path(__file__).parent / "aimock"
ROOT = Path(__file__).parents[3]

pytestmark = needs_node()
both_ways = pytest.mark.parametrize("stream_to", [None, TASK], ids=["whole", "streamed"])


@pytest.fixture
async def server() -> AsyncIterator[str]:
    """Its URL."""
    port = free_port()
    program = installed(HERE / "package.json", ROOT / ".paracle" / "aimock") / "dist" / "cli.js"
    arguments = ["-p", str(port), "-f", str(HERE / "fixtures.json"), "--strict", "--log-level", "silent"]
    async with serving(program, port, *arguments):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=["openai", "responses", "anthropic"])
async def over(request: pytest.FixtureRequest, server: str) -> AsyncIterator[Gateway]:
    key = fixed(SecretStr("test-key"))
    if request.param != "anthropic":
        api: Api = "openai-chat" if request.param == "openai" else "openai-responses"
        config = ProviderConfig("openai", api, f"{server}/v1", key=key, model="gpt-4o")
    else:
        config = ProviderConfig("anthropic", "anthropic", server, key=key, model="claude-sonnet-5")
    provider = create_provider(config)
    yield gateway(provider)
    await provider.close()


@both_ways
async def test_words(over: Gateway, stream_to: str | None):
    answer = await over.completions.complete(ask("hello", stream_to=stream_to), CONTEXT)
    assert answer.message.text == "Hello! How can I help you today?"
    assert answer.finish_reason is FinishReason.STOP
    if stream_to:
        assert assemble(over.outbox.deltas) == answer.message


@both_ways
async def test_tool_calls(over: Gateway, stream_to: str | None):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = (ToolDefinition(name="get_weather", description="Tell the weather", input_schema=schema),)
    request = ask("weather in Paris", tools=tools, stream_to=stream_to)
    answer = await over.completions.complete(request, CONTEXT)
    assert [(call.name, call.arguments) for call in answer.message.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert answer.finish_reason is FinishReason.TOOL_CALLS


@both_ways
@pytest.mark.parametrize("strict", [False, True])
async def test_structured_output(over: Gateway, stream_to: str | None, strict: bool):
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    output = OutputFormat(json_schema=schema, strict=strict)
    answer = await over.completions.complete(ask("as json", output=output, stream_to=stream_to), CONTEXT)
    assert answer.message.text == '{"answer": 42}'


@both_ways
@pytest.mark.parametrize(("text", "error"), [("too fast", RateLimited), ("broken", ProviderUnavailable)])
async def test_failures(over: Gateway, stream_to: str | None, text: str, error: type[Exception]):
    with pytest.raises(error):
        await over.completions.complete(ask(text, stream_to=stream_to), CONTEXT)
    assert len(over.waits) == RetryPolicy().attempts - 1
