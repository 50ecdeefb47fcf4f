"""Providers and models as manifests: what leads nowhere is refused, what is used stays, and the gateway can follow."""

from __future__ import annotations

from typing import Any

import pytest
from registry_samples import together

from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.registry import (
    Applied,
    ApplyManifests,
    DeleteManifests,
    ExplainAgent,
    ListProviderChanges,
    ListSpecs,
    ProviderChanges,
    SpecKey,
)
from paracle_registry.ports import SpecStore
from paracle_registry.service import RegistryService

CALL = Context("acme", principal="ann")
LOCAL = "base_url: http://localhost:9/v1"


def manifest(kind: str, name: str, spec: str) -> str:
    return f"apiVersion: paracle/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


PROVIDER = manifest("Provider", "mine", LOCAL)
LISTED = manifest("Provider", "listed", f"{LOCAL}, only_listed: true, models: {{small: {{}}}}")
MODEL = manifest("Model", "fast", "routes: [{model: mine/a}, {model: openai/b}], fallbacks: [default]")
AGENT = manifest("Agent", "writer", "model: {name: fast}")


@pytest.fixture
def registry(store: SpecStore) -> RegistryService:
    return RegistryService(store, lambda: None)


async def apply(registry: RegistryService, *texts: str) -> Applied:
    return await registry.apply(ApplyManifests(text=together(*texts), source="m.yaml"), CALL)


async def delete(registry: RegistryService, kind: Any, name: str) -> Applied:
    return await registry.delete(DeleteManifests(specs=(SpecKey(kind=kind, name=name),)), CALL)


async def refusals(asked: Any) -> list[tuple[str, str]]:
    with pytest.raises(ParacleError) as refused:
        await asked
    error = refused.value
    return [(item.path, item.message) for item in error.problems] or [(error.path or "", error.message)]


async def test_they_are_applied_together_with_what_uses_them(registry: RegistryService):
    applied = await apply(registry, AGENT, MODEL, PROVIDER, LISTED)
    assert [(one.kind, one.name, one.change) for one in applied.results] == [
        ("Agent", "writer", "created"),
        ("Model", "fast", "created"),
        ("Provider", "mine", "created"),
        ("Provider", "listed", "created"),
    ]
    again = await apply(registry, manifest("Provider", "mine", f"{LOCAL}, key: {{env: MINE}}"))
    assert [(one.kind, one.name) for one in again.results[0].touches] == [("Agent", "writer"), ("Model", "fast")]


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ("model: {name: fats}", "m.yaml#3 spec.model.name", "there is no model 'fats'; did you mean 'fast'?"),
        ("model: {name: mien/a}", "m.yaml#3 spec.model.name", "there is no provider 'mien'; did you mean 'mine'?"),
        ("model: {name: groq/a}", "m.yaml#3 spec.model.name", "kind Provider with preset: groq"),
        ("model: {name: mine/}", "m.yaml#3 spec.model.name", "is no provider/model"),
        ("compaction: {model: tiny}", "m.yaml#3 spec.compaction.model", "apply a manifest of kind Model"),
    ],
)
async def test_an_agent_must_name_a_model_that_can_be(registry: RegistryService, spec: str, path: str, message: str):
    [(place, said)] = await refusals(apply(registry, PROVIDER, MODEL, manifest("Agent", "writer", spec)))
    assert place == path
    assert message in said


@pytest.mark.parametrize("name", ["default", "fast", "mine/any/thing", "openai/gpt-5-mini", "listed/small"])
async def test_names_that_can_be(registry: RegistryService, name: str):
    await apply(registry, PROVIDER, LISTED, MODEL, manifest("Agent", "writer", f"model: {{name: {name}}}"))
    explained = await registry.explain_agent(ExplainAgent(name="writer"), CALL)
    assert explained.spec.model.name == name


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ("routes: [{model: nope/a}]", "spec.routes[0].model", "there is no provider 'nope'"),
        ("routes: [{model: listed/smal}]", "spec.routes[0].model", "has no model 'smal'; did you mean 'small'?"),
        ("routes: [{model: mine/a}], fallbacks: [nope]", "spec.fallbacks[0]", "there is no model 'nope'"),
        ("routes: [{model: mine/a}], fallbacks: [m]", "spec.fallbacks[0]", "its own fallback"),
        ("routes: [{model: mine/a}, {model: mine/a}]", "spec.routes[1].model", "is a route already"),
    ],
)
async def test_a_model_must_lead_somewhere(registry: RegistryService, spec: str, path: str, message: str):
    [(place, said)] = await refusals(apply(registry, PROVIDER, LISTED, manifest("Model", "m", spec)))
    assert place == f"m.yaml#3 {path}"
    assert message in said


async def test_fallbacks_do_not_lead_back(registry: RegistryService):
    routes = "routes: [{model: sandbox/rules}]"
    circle = [
        manifest("Model", name, f"{routes}, fallbacks: [{onward}]") for name, onward in zip("abc", "bca", strict=True)
    ]
    found = await refusals(apply(registry, *circle, manifest("Model", "d", f"{routes}, fallbacks: [a]")))
    assert found == [
        (f"m.yaml#{index} spec.fallbacks[0]", f"it leads back here: {way}")
        for index, way in enumerate(["a → b → c → a", "b → c → a → b", "c → a → b → c"], 1)
    ]


async def test_what_a_provider_says_is_checked(registry: RegistryService):
    [(place, message)] = await refusals(apply(registry, manifest("Provider", "sandbox", LOCAL)))
    assert place == "m.yaml#1 metadata.name"
    assert "built-in" in message


async def test_what_is_used_cannot_be_deleted(registry: RegistryService):
    await apply(registry, PROVIDER, MODEL, AGENT)
    [(place, message)] = await refusals(delete(registry, "Model", "fast"))
    assert place == "Agent/writer spec.model.name"
    assert message.endswith("it is to be deleted")
    [(place, _)] = await refusals(delete(registry, "Provider", "mine"))
    assert place == "Model/fast spec.routes[0].model"
    await delete(registry, "Agent", "writer")
    await delete(registry, "Model", "fast")
    await delete(registry, "Provider", "mine")


async def test_one_that_hides_the_operators_can_be_deleted(registry: RegistryService):
    await apply(registry, manifest("Provider", "openai", LOCAL), manifest("Agent", "a", "model: {name: openai/x}"))
    await apply(registry, manifest("Model", "default", "routes: [{model: openai/x}]"), manifest("Agent", "b", ""))
    for kind, name in (("Model", "default"), ("Provider", "openai")):
        gone = await delete(registry, kind, name)
        assert [(one.kind, one.name, one.change) for one in gone.results] == [(kind, name, "deleted")]
    left = (await registry.list_specs(ListSpecs(), CALL)).specs
    assert [(one.kind, one.name) for one in left] == [("Agent", "a"), ("Agent", "b")]


async def changes(registry: RegistryService, after: int = 0, limit: int = 200) -> ProviderChanges:
    return await registry.list_provider_changes(ListProviderChanges(after=after, limit=limit), CALL)


async def test_the_gateway_can_follow(registry: RegistryService):
    await apply(registry, PROVIDER, MODEL, AGENT)
    await apply(registry, LISTED)
    first = await changes(registry, limit=1)
    assert [(item.kind, item.name, item.version) for item in first.changes] == [
        ("Model", "fast", 1),
        ("Provider", "mine", 1),
    ], "those of one version come together"
    assert (first.version, first.more) == (1, True)
    assert first.changes[1].spec == {"base_url": "http://localhost:9/v1"}
    second = await changes(registry, after=first.version)
    assert ([item.name for item in second.changes], second.version, second.more) == (["listed"], 2, False)
    await delete(registry, "Provider", "listed")
    [gone] = (await changes(registry, after=2)).changes
    assert (gone.name, gone.revision, gone.spec) == ("listed", 2, None)
    assert await changes(registry, after=3) == ProviderChanges(version=3)
