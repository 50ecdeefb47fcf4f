"""Provider and model manifests: what they say, what is wrong with them, and what presets know."""

from __future__ import annotations

from typing import Any

import pytest

from paracle_domain.errors import SpecInvalid
from paracle_domain.manifest import DOCUMENTS, Manifest, load_manifest, parse_document
from paracle_domain.provider.presets import PRESETS, endpoint_of, hosts_of_key
from paracle_domain.provider.spec import (
    Api,
    Capabilities,
    KeyRef,
    ModelSpec,
    ProviderSpec,
    is_deployment,
    provider_of,
)
from paracle_domain.provider.validation import validate_model, validate_provider
from paracle_domain.registry import Kind

LOCAL = "http://localhost:9/v1"
ROUTE = {"model": "groq/llama"}


def parse(kind: Kind, **spec: Any) -> Manifest:
    document = {"apiVersion": "paracle/v1", "kind": kind, "metadata": {"name": "m"}, "spec": spec}
    return parse_document(document, 1, "m.yaml")


def test_manifests_come_back_as_they_were_written() -> None:
    provider = parse("Provider", preset="groq", key=None, models={"a/b": {"price": {"input": "0.1", "output": "0"}}})
    model = parse("Model", strategy="weighted", routes=[{**ROUTE, "weight": 3}], fallbacks=["default"])
    for found in (provider, model):
        assert isinstance(found, DOCUMENTS[found.kind])
        assert load_manifest(found.kind, found.to_json()) == found
    assert provider.to_json()["spec"]["key"] is None  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    ("kind", "spec", "path", "message"),
    [
        ("Provider", {"base_url": "ftp://x"}, "spec.base_url", "should be a URL that begins"),
        ("Provider", {"base_url": "http://key@host/v1"}, "spec.base_url", "without credentials"),
        ("Provider", {"base_url": "http://host/v1?key=1"}, "spec.base_url", "without credentials"),
        ("Provider", {"base_url": LOCAL, "api": "soap"}, "spec.api", "Input should be 'openai_chat'"),
        ("Provider", {"base_url": LOCAL, "key": {}}, "spec.key", "exactly one of env and file"),
        ("Provider", {"base_url": LOCAL, "key": {"env": "A", "file": "a"}}, "spec.key", "exactly one of env and file"),
        ("Provider", {"base_url": LOCAL, "key": {"env": "sk-123"}}, "spec.key.env", "never the key itself"),
        ("Provider", {"base_url": LOCAL, "key": {"file": "../etc/passwd"}}, "spec.key.file", "never the key itself"),
        ("Provider", {"base_url": LOCAL, "key": "sk-123"}, "spec.key", "exactly one of env and file"),
        ("Provider", {"base_url": LOCAL, "headers": {"a b": "c"}}, "spec.headers.a b", "no name of a header"),
        ("Provider", {"base_url": LOCAL, "models": {"a b": {}}}, "spec.models.a b", "should be text without blanks"),
        ("Model", {}, "spec.routes", "is required"),
        ("Model", {"routes": []}, "spec.routes", "at least 1 item"),
        ("Model", {"routes": [{"model": "fast"}]}, "spec.routes[0].model", "write provider/model"),
        ("Model", {"routes": [{**ROUTE, "weight": 0}]}, "spec.routes[0].weight", "greater than 0"),
        ("Model", {"routes": [ROUTE], "strategy": "best"}, "spec.strategy", "Input should be 'priority'"),
        ("Model", {"routes": [ROUTE], "fallback": ["a"]}, "spec.fallback", "did you mean 'fallbacks'?"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_path(
    kind: Kind, spec: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(SpecInvalid) as refused:
        parse(kind, **spec)
    found = [(item.path, item.message) for item in refused.value.problems] or [
        (refused.value.path or "", refused.value.message)
    ]
    assert [place for place, _ in found] == [f"m.yaml#1 {path}"]
    assert message in found[0][1]
    assert "sk-123" not in refused.value.message + found[0][1], "a key that was pasted in is not shown again"


def provider_findings(name: str = "p", **spec: Any) -> dict[str, str]:
    return {item.path: item.message for item in validate_provider(name, ProviderSpec.model_validate(spec))}


def model_findings(name: str = "m", **spec: Any) -> dict[str, str]:
    return {item.path: item.message for item in validate_model(name, ModelSpec.model_validate(spec))}


@pytest.mark.parametrize("preset", [name for name, preset in PRESETS.items() if preset.base_url])
def test_a_preset_is_all_that_most_providers_need(preset: str) -> None:
    assert provider_findings(preset=preset) == {}


@pytest.mark.parametrize(
    "spec",
    [
        {"base_url": LOCAL, "headers": {"X-Org": "acme"}, "query": {"api-version": "1"}},
        {"preset": "azure", "base_url": "https://acme.openai.azure.com/openai/v1"},
        {"base_url": LOCAL, "models": {"a": {}}, "only_listed": True, "default_model": "a"},
        {"base_url": LOCAL, "models": {"a": {}}, "only_listed": True},
        {"base_url": "https://[::1]:8080/v1", "key": {"env": "A", "header": "X-Key"}},
    ],
)
def test_a_sound_provider_has_no_findings(spec: dict[str, Any]) -> None:
    assert provider_findings(**spec) == {}


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"preset": "grok"}, "spec.preset", "did you mean 'groq'"),
        ({}, "spec.base_url", "is required: no preset"),
        ({"preset": "azure"}, "spec.base_url", "https://RESOURCE.openai.azure.com/openai/v1"),
        ({"base_url": "http://:80/v1"}, "spec.base_url", "has no host"),
        ({"base_url": "http://host:99999/v1"}, "spec.base_url", "no port that can be"),
        ({"base_url": "http://[::1/v1"}, "spec.base_url", "has no host"),
        ({"base_url": LOCAL, "headers": {"Authorization": "Bearer x"}}, "spec.headers.Authorization", "say where it"),
        ({"base_url": LOCAL, "headers": {"x-goog-api-key": "x"}}, "spec.headers.x-goog-api-key", "say where it is"),
        ({"base_url": LOCAL, "headers": {"X-Auth-Token": "x"}}, "spec.headers.X-Auth-Token", "say where it is"),
        (
            {"base_url": LOCAL, "headers": {"X-Mine": "x"}, "key": {"env": "A", "header": "x-mine"}},
            "spec.headers.X-Mine",
            "say where it is",
        ),
        ({"base_url": LOCAL, "query": {"key": "x"}}, "spec.query.key", "say where it is"),
        ({"base_url": LOCAL, "headers": {"Host": "x"}}, "spec.headers.Host", "by the request itself"),
        ({"base_url": LOCAL, "key": {"env": "A", "header": "Host"}}, "spec.key.header", "by the request itself"),
        ({"base_url": LOCAL, "only_listed": True}, "spec.only_listed", "name them in `models`"),
        (
            {"base_url": LOCAL, "only_listed": True, "models": {"abc": {}}, "default_model": "abd"},
            "spec.default_model",
            "did you mean 'abc'",
        ),
    ],
)
def test_what_is_wrong_with_a_provider_is_found(spec: dict[str, Any], path: str, message: str) -> None:
    found = provider_findings(**spec)
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize("name", ["sandbox", "builtin"])
def test_nothing_stands_in_for_what_is_built_in(name: str) -> None:
    assert list(provider_findings(name, base_url=LOCAL)) == ["metadata.name"]


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"routes": [ROUTE, ROUTE]}, "spec.routes[1].model", "is a route already"),
        ({"routes": [{**ROUTE, "weight": 2}]}, "spec.routes[0].weight", "set strategy: weighted"),
        ({"routes": [ROUTE], "hedge": {"after_s": 1}}, "spec.hedge", "no second route"),
        ({"routes": [ROUTE], "fallbacks": ["m"]}, "spec.fallbacks[0]", "its own fallback"),
        ({"routes": [ROUTE], "fallbacks": ["a", "b/c", "a"]}, "spec.fallbacks[2]", "is a fallback already"),
    ],
)
def test_what_is_wrong_with_a_model_is_found(spec: dict[str, Any], path: str, message: str) -> None:
    found = model_findings(**spec)
    assert list(found) == [path]
    assert message in found[path]


def test_a_sound_model_has_no_findings() -> None:
    routes = [{**ROUTE, "weight": 2}, {"model": "openai/gpt-5-mini"}]
    assert model_findings(strategy="weighted", routes=routes, hedge={"after_s": 2}, fallbacks=["a"]) == {}


def endpoint(**spec: Any) -> Any:
    return endpoint_of(ProviderSpec.model_validate(spec))


def test_what_is_written_counts_more_than_the_preset() -> None:
    plain = endpoint(preset="groq")
    assert (plain.api, plain.base_url) == (Api.OPENAI_CHAT, "https://api.groq.com/openai/v1")
    assert plain.key == KeyRef(env="GROQ_API_KEY")
    assert plain.key_header is None
    own = endpoint(preset="groq", base_url=LOCAL, key={"file": "groq", "header": "X-K"}, api="openai_responses")
    assert (own.api, own.base_url, own.key.name, own.key_header) == (Api.OPENAI_RESPONSES, LOCAL, "groq", "X-K")
    assert own.quirks.output_limit == "max_completion_tokens"
    assert endpoint(preset="groq", key=None).key is None
    assert endpoint(preset="ollama").key is None
    assert endpoint(base_url=LOCAL).key is None
    assert endpoint(preset="nobody").base_url is None


def test_each_api_has_its_own_header_for_keys() -> None:
    assert endpoint(preset="azure").key_header == "api-key"
    assert endpoint(preset="anthropic").key_header == "x-api-key"
    assert endpoint(base_url=LOCAL, api="anthropic", key={"env": "A"}).key_header == "x-api-key"


def test_presets_know_where_keys_may_go() -> None:
    assert hosts_of_key("GROQ_API_KEY") == {"api.groq.com"}
    assert "*.openai.azure.com" in hosts_of_key("AZURE_OPENAI_API_KEY")
    assert hosts_of_key("PARACLE_POSTGRES_DSN") == frozenset()


def test_what_a_manifest_says_of_a_model_counts_more() -> None:
    known = Capabilities(tools=True, vision=True, context_tokens=1_000)
    said = Capabilities(vision=False, max_output_tokens=10)
    assert said.over(known) == Capabilities(tools=True, vision=False, context_tokens=1_000, max_output_tokens=10)


def test_names_of_models_are_told_apart() -> None:
    assert is_deployment("openai/gpt-5-mini")
    assert not is_deployment("fast")
    assert provider_of("together/meta-llama/Llama-4") == "together"
