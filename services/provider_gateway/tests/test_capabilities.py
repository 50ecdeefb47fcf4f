"""What models can do: what they cannot is refused or asked of others, and nothing of a request is left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_gateway_samples import ask

from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import ChatMessage, ImagePart, OutputFormat, Sampling, ToolDefinition
from paracle_domain.inference.request import Complete
from paracle_domain.provider.spec import Capabilities
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.capabilities import fitting, known_of
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier

SANDBOX = SandboxProvider()
SEEN = ChatMessage.user("What is on it?", ImagePart(url="https://example.com/a.png"))


def plan(*tiers: dict[str, Capabilities]) -> Plan:
    routes = [tuple(Route(Deployment(SANDBOX, name, capabilities=can)) for name, can in tier.items()) for tier in tiers]
    return Plan("m", tuple(Tier(each) for each in routes))


def names(found: Plan) -> list[str]:
    return [deployment.model for deployment in found.deployments]


@pytest.mark.parametrize(
    ("can", "asked", "path", "what"),
    [
        ({"tools": False}, {"tools": (ToolDefinition(name="t"),)}, "tools", "cannot call tools"),
        ({"vision": False}, {"messages": (SEEN,)}, "messages", "cannot look at images"),
        ({"json_schema": False}, {"output": OutputFormat(json_schema={})}, "output", "cannot keep to the schema"),
        ({"embeddings": True}, {}, "messages", "can make embeddings and nothing else"),
        (
            {"max_output_tokens": 100},
            {"sampling": Sampling(max_output_tokens=101)},
            "sampling.max_output_tokens",
            "can write 100 tokens at most, not 101",
        ),
        ({"thinking": False}, {"sampling": Sampling(thinking="low")}, "sampling.thinking", "cannot think"),
        (
            {"thinking": False},
            {"sampling": Sampling(params={"reasoning_effort": "low"})},
            "sampling.params.reasoning_effort",
            "cannot think",
        ),
    ],
)
def test_what_a_model_cannot_do_is_refused_or_asked_of_another(
    can: dict[str, Any], asked: dict[str, Any], path: str, what: str
):
    request, lacking = ask(**asked), Capabilities(**can)
    with pytest.raises(InvalidInput, match=f"sandbox/weak {what}") as refused:
        fitting(plan({"weak": lacking}), request)
    assert refused.value.path == path
    assert names(fitting(plan({"weak": lacking, "strong": Capabilities()}), request)) == ["strong"]
    assert names(fitting(plan({"weak": lacking}, {"last": Capabilities()}), request)) == ["last"]


def test_all_that_lack_something_are_named():
    with pytest.raises(InvalidInput, match="sandbox/a cannot look at images; sandbox/b can make embeddings"):
        fitting(plan({"a": Capabilities(vision=False)}, {"b": Capabilities(embeddings=True)}), ask(messages=(SEEN,)))


def test_what_nobody_knows_is_not_refused():
    everything = ask(tools=(ToolDefinition(name="t"),), messages=(SEEN,), output=OutputFormat(json_schema={}))
    unknown = plan({"a": Capabilities()})
    assert fitting(unknown, everything) is unknown


def test_what_may_be_too_long_is_asked_of_those_who_read_more():
    long = ask("word " * 100)
    short, unknown = Capabilities(context_tokens=50), Capabilities()
    assert names(fitting(plan({"short": short, "other": unknown}), long)) == ["other"]
    assert names(fitting(plan({"short": short}), long)) == ["short"], "only it can count"
    assert names(fitting(plan({"short": short, "other": unknown}), ask("word"))) == ["short", "other"]
    room = ask("word", sampling=Sampling(max_output_tokens=60))
    assert names(fitting(plan({"short": short, "other": unknown}), room)) == ["other"], "what is written counts, too"


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("gpt-5-mini", {"tools": True, "vision": True, "max_output_tokens": 128_000}),
        ("gpt-4o-mini", {"vision": True, "thinking": False}),
        ("gpt-3.5-turbo", {"vision": False}),
        ("claude-sonnet-4-5", {"vision": True, "thinking": True}),
        ("openai/gpt-oss-120b", {"vision": False, "thinking": True}),
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", {"tools": True, "vision": False}),
        ("text-embedding-3-small", {"embeddings": True, "tools": False}),
        ("sonar-pro", {"tools": False}),
        ("my-own-model", {"tools": None, "vision": None, "context_tokens": None}),
    ],
)
def test_well_known_models_are_known(model: str, known: dict[str, Any]):
    found = known_of(model)
    assert {name: getattr(found, name) for name in known} == known


def test_how_much_well_known_models_read_is_known():
    assert known_of("gpt-4o").context_tokens == 128_000
    assert known_of("claude-sonnet-4-5").context_tokens


capabilities = st.builds(
    Capabilities,
    tools=st.none() | st.booleans(),
    vision=st.none() | st.booleans(),
    json_schema=st.none() | st.booleans(),
    embeddings=st.none() | st.booleans(),
    context_tokens=st.none() | st.integers(1, 50),
    max_output_tokens=st.none() | st.integers(1, 20),
)
plans = st.lists(st.lists(capabilities, min_size=1, max_size=3), min_size=1, max_size=3)
requests = st.builds(
    lambda tools, image, schema, most, words: ask(
        tools=(ToolDefinition(name="t"),) if tools else (),
        messages=(SEEN if image else ChatMessage.user("w" * words),),
        output=OutputFormat(json_schema={}) if schema else None,
        sampling=Sampling(max_output_tokens=most),
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(1, 30),
    st.integers(1, 300),
)


def able(can: Capabilities, request: Complete) -> bool:
    most = request.sampling.max_output_tokens
    return not (
        can.embeddings
        or (request.tools and can.tools is False)
        or (request.output is not None and can.json_schema is False)
        or (request.messages == (SEEN,) and can.vision is False)
        or (most is not None and can.max_output_tokens is not None and most > can.max_output_tokens)
    )


@given(plans, requests)
def test_whoever_is_left_can_do_it_and_keeps_his_place(made: list[list[Capabilities]], request: Complete):
    tiers = [{f"{n}.{m}": can for m, can in enumerate(tier)} for n, tier in enumerate(made)]
    before = plan(*tiers)
    fit = [name for tier in tiers for name, can in tier.items() if able(can, request)]
    if not fit:
        with pytest.raises(InvalidInput):
            fitting(before, request)
        return
    after = names(fitting(before, request))
    assert after, "somebody is always left"
    assert after == [name for name in fit if name in after], "in the order of the plan, and none that cannot"
    assert fitting(fitting(before, request), request) == fitting(before, request)
