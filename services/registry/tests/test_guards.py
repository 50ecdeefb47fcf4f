"""Guards of agents: what can be known to be wrong about them before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from registry_samples import together

from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.registry import Applied, ApplyManifests, DeleteManifests, ExplainAgent, SpecKey
from paracle_registry.ports import SpecStore
from paracle_registry.service import RegistryService

CALL = Context("acme", principal="ann")


@pytest.fixture
def registry(store: SpecStore) -> RegistryService:
    return RegistryService(store, lambda: None)


def manifest(spec: str, name: str = "writer", kind: str = "Agent") -> str:
    return f"apiVersion: paracle/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


async def apply(registry: RegistryService, *texts: str) -> Applied:
    return await registry.apply(ApplyManifests(text=together(*texts), source="m.yaml"), CALL)


async def refusals(asked: Any) -> list[tuple[str, str]]:
    with pytest.raises(ParacleError) as refused:
        await asked
    error = refused.value
    return [(item.path, item.message) for item in error.problems] or [(error.path or "", error.message)]


async def test_they_are_applied_and_explained(registry: RegistryService):
    base = manifest("guards: [{name: no-mail, type: pii, entities: [email]}]")
    child = manifest("extends: writer, guards: {add: [{name: own, type: nats, guard: c}]}", "child")
    await apply(registry, base, child)
    found = await registry.explain_agent(ExplainAgent(name="child"), CALL)
    assert [guard.name for guard in found.spec.guards] == ["no-mail", "own"]


@pytest.mark.parametrize(
    ("guard", "field", "message"),
    [
        ("type: regex, pattern: '(a'", "pattern", "'(a' is no regular expression of RE2: missing ): (a"),
        ("type: regex, pattern: '(?=a)b'", "pattern", "'(?=a)b' is no regular expression of RE2: invalid perl"),
        ("type: regex, pattern: 'a*'", "pattern", "'a*' matches nothing at all"),
        ("type: regex, pattern: '[A-Z]+', on_hit: redact", "pattern", "'[A-Z]+' matches [REDACTED]"),
        ("type: json_schema, json_schema: {type: nonsense}", "json_schema.type", "no valid JSON Schema"),
        ("type: moderation, model: mine/x", "model", "there is no provider 'mine'"),
    ],
)
async def test_what_can_find_nothing_is_refused(registry: RegistryService, guard: str, field: str, message: str):
    ((path, said),) = await refusals(apply(registry, manifest(f"guards: [{{name: g, {guard}}}]")))
    assert path.startswith("m.yaml")
    assert path.endswith(f"spec.guards[g].{field}")
    assert message in said


async def test_the_manifest_that_set_a_guard_is_named(registry: RegistryService):
    base = manifest("guards: [{name: g, type: regex, pattern: 'a*'}]", "base")
    ((path, _),) = await refusals(apply(registry, base, manifest("extends: base", "child")))
    assert path == "m.yaml#1 spec.guards[g].pattern"


async def test_names_are_unique(registry: RegistryService):
    ((path, said),) = await refusals(apply(registry, manifest("guards: [{name: g, type: pii}, {name: g, type: pii}]")))
    assert "spec.guards" in path
    assert "two guards are called 'g'; give each a name of its own" in said


async def test_a_provider_that_a_guard_asks_cannot_be_deleted(registry: RegistryService):
    provider = manifest("base_url: http://localhost:9/v1", "mine", "Provider")
    await apply(registry, provider, manifest("guards: [{name: g, type: moderation, model: mine/m}]"))
    order = DeleteManifests(specs=(SpecKey(kind="Provider", name="mine"),))
    ((path, said),) = await refusals(registry.delete(order, CALL))
    assert "writer" in path
    assert "it is to be deleted" in said
