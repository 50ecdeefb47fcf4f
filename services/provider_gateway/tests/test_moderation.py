"""Models for moderation over the wire: each API of OpenAI's, over each transport."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from provider_gateway_samples import CANARY, MAKERS

from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Turn, fail, page, reset, say
from paracle_domain.errors import ParacleError, ProviderFailed, ProviderUnavailable, RateLimited
from paracle_domain.inference.moderation import Moderate
from paracle_provider_gateway.adapters.config import TransportName
from paracle_provider_gateway.ports import Judge, Judgement


@pytest.fixture(params=["openai", "responses"])
async def judge(request: pytest.FixtureRequest, transport: TransportName) -> AsyncIterator[tuple[FakeOpenAI, Judge]]:
    make_server, make_provider = MAKERS[request.param]
    async with make_server() as server:
        assert isinstance(server, FakeOpenAI)
        provider = make_provider(server, transport)
        assert isinstance(provider, Judge)
        yield server, provider
        await provider.close()


def asked(*texts: str) -> Moderate:
    return Moderate(call_id="c", model="p/m", texts=texts, timeout_s=10)


async def test_each_text_is_judged(judge: tuple[FakeOpenAI, Judge]):
    server, provider = judge
    server.script(say("kill"))
    said = await provider.judge("m", asked("Hello.", "I kill you."))
    fine, bad = said.judgements
    assert (said.model, said.usage.model_calls) == ("m", 1)
    assert said.usage.input_tokens > 0, "the API counts none"
    assert fine == Judgement(frozenset(), {"violence": 0.01, "hate": 0.3})
    assert bad == Judgement(frozenset({"violence"}), {"violence": 0.9, "hate": 0.3})
    (seen,) = server.journal
    assert (seen.path, seen.body) == ("/v1/moderations", {"model": "m", "input": ["Hello.", "I kill you."]})
    assert seen.headers["Authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        (fail(429), RateLimited),
        (fail(503), ProviderUnavailable),
        (reset(), ProviderUnavailable),
        (fail(401), ProviderFailed),
        (page(), ProviderFailed),
        (Turn(raw=b'{"results": [{}]}'), ProviderFailed),
        (Turn(raw=b'{"results": [{"categories"'), ProviderUnavailable),
        (Turn(raw=b'{"results": []}'), ProviderFailed),
    ],
)
async def test_what_goes_wrong_is_an_error_of_the_contract(
    judge: tuple[FakeOpenAI, Judge], turn: Turn, kind: type[ParacleError]
):
    server, provider = judge
    server.script(turn)
    with pytest.raises(kind) as failed:
        await provider.judge("m", asked("Hello."))
    assert CANARY not in str(failed.value)
