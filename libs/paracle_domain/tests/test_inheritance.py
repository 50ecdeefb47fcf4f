"""Inheritance: merging, provenance, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paracle_domain.agent.inheritance import MAX_DEPTH, Layer, Origin, Resolved, resolve
from paracle_domain.agent.manifest import AgentManifest
from paracle_domain.agent.spec import AgentSpec
from paracle_domain.errors import SpecInvalid


def lookup_in(**manifests: Any) -> Callable[[str], Layer | None]:
    layers = {
        name: Layer(Origin(name, revision), AgentManifest.model_validate(manifest))
        for revision, (name, manifest) in enumerate(manifests.items(), start=1)
    }
    return layers.get


def resolved(agent: str, **manifests: Any) -> Resolved:
    return resolve(agent, lookup_in(**manifests))


def refusal(agent: str, **manifests: Any) -> SpecInvalid:
    with pytest.raises(SpecInvalid) as refused:
        resolved(agent, **manifests)
    return refused.value


BASE = {
    "description": "base",
    "model": {"name": "openai/x", "temperature": 0.5, "params": {"a": 1, "b": 2}},
    "instructions": "Be kind.",
    "tools": ["read", "write"],
    "limits": {"turns": 5, "cost_usd": "0.10"},
    "metadata": {"team": "core", "tier": 1},
    "output": {"type": "object"},
}


def test_an_agent_without_parent() -> None:
    found = resolved("base", base=BASE)
    assert found.spec.model.params == {"a": 1, "b": 2}
    assert found.spec.limits.cost_usd == Decimal("0.10")
    assert found.spec.limits.tool_calls == AgentSpec().limits.tool_calls
    assert found.lineage == (Origin("base", 1),)
    assert set(found.origins) == {
        "description", "model.name", "model.temperature", "model.params.a", "model.params.b", "instructions",
        "tools[read]", "tools[write]", "limits.turns", "limits.cost_usd", "metadata.team", "metadata.tier", "output",
    }  # fmt: skip


def test_a_child_edits_what_it_says() -> None:
    child = {
        "extends": "base",
        "model": {"temperature": 0, "params": {"b": None, "c": 3}},
        "instructions": "{{ parent }} Be {{- parent }} brief.",
        "tools": {"remove": ["write"], "add": ["search", "read"]},
        "limits": {"turns": 9, "cost_usd": None},
        "metadata": {"tier": None, "new": True},
        "output": None,
    }
    found = resolved("child", base=BASE, child=child)
    spec, base, own = found.spec, Origin("base", 1), Origin("child", 2)
    assert (spec.model.name, spec.model.temperature, spec.model.params) == ("openai/x", 0, {"a": 1, "c": 3})
    assert spec.instructions == "Be kind. Be Be kind. brief."
    assert spec.tools == ("read", "search")
    assert (spec.limits.turns, spec.limits.cost_usd) == (9, None)
    assert spec.metadata == {"team": "core", "new": True}
    assert spec.output is None
    assert found.origins == {
        "description": base, "model.name": base, "model.temperature": own, "model.params.a": base,
        "model.params.c": own, "instructions": own, "tools[read]": base, "tools[search]": own,
        "limits.turns": own, "metadata.team": base, "metadata.new": own,
    }  # fmt: skip
    assert found.lineage == (own, base)


def test_a_plain_list_replaces_and_null_takes_away() -> None:
    found = resolved(
        "c", a=BASE, b={"extends": "a", "tools": ["other"], "model": None}, c={"extends": "b", "metadata": None}
    )
    assert found.spec.tools == ("other",)
    assert found.spec.model == AgentSpec().model
    assert found.spec.metadata == {}
    assert found.origins["tools[other]"] == Origin("b", 2)
    assert not any(path.startswith(("model", "metadata", "tools[read]")) for path in found.origins)


def test_null_takes_a_whole_map_of_parameters_away() -> None:
    found = resolved("b", a=BASE, b={"extends": "a", "model": {"params": None}})
    assert found.spec.model.params == {}
    assert "model.params.a" not in found.origins


@pytest.mark.parametrize(
    ("final", "edit", "field"),
    [
        ("limits", {"limits": {"turns": 6}}, "limits"),
        ("limits.turns", {"limits": {"turns": 6}}, "limits.turns"),
        ("model.name", {"model": None}, "model.name"),
        ("model.params.a", {"model": {"params": {"a": 7}}}, "model.params.a"),
        ("tools", {"tools": {"add": ["x"]}}, "tools"),
        ("instructions", {"instructions": "{{ parent }} And rude."}, "instructions"),
        ("metadata.team", {"metadata": {"team": "x"}}, "metadata.team"),
        ("metadata.new", {"metadata": {"new": "x"}}, "metadata.new"),
        ("output", {"output": None}, "output"),
    ],
)
def test_a_final_field_is_not_changed(final: str, edit: dict[str, Any], field: str) -> None:
    error = refusal(
        "leaf", base={**BASE, "final": [final]}, middle={"extends": "base"}, leaf={"extends": "middle", **edit}
    )
    assert error.path == f"Agent/leaf spec.{field}"
    assert f"{field} is final in agent 'base' (revision 1)" in error.message


@pytest.mark.parametrize(
    "edit",
    [
        {"limits": {"turns": 5}},
        {"limits": {"tokens": AgentSpec().limits.tokens}},
        {"final": []},
        {"tools": {"add": ["read"]}},
    ],
)
def test_saying_the_same_again_is_no_change(edit: dict[str, Any]) -> None:
    final = {**BASE, "final": ["limits", "tools"]}
    assert resolved("leaf", base=final, leaf={"extends": "base", **edit}).spec == resolved("base", base=final).spec


def test_an_agent_may_set_what_it_makes_final_and_a_child_may_add_to_that() -> None:
    leaf = {"extends": "base", "limits": {"turns": 7}, "final": ["limits"]}
    error = refusal("x", base=BASE, leaf=leaf, x={"extends": "leaf", "limits": {"turns": 5}})
    assert "final in agent 'leaf'" in error.message


def test_a_cycle_is_named() -> None:
    error = refusal("x", x={"extends": "a"}, a={"extends": "b"}, b={"extends": "a"})
    assert (error.path, error.message) == ("Agent/b spec.extends", "inheritance goes in a circle: a → b → a")


def test_a_missing_parent_is_named() -> None:
    error = refusal("x", x={"extends": "y"})
    assert (error.path, error.message) == ("Agent/x spec.extends", "there is no agent 'y'")
    assert "there is no agent 'nobody'" in refusal("nobody").message


def line(ancestors: int) -> dict[str, Any]:
    return {"a0": {}} | {f"a{n}": {"extends": f"a{n - 1}"} for n in range(1, ancestors + 1)}


def test_depth_is_bounded() -> None:
    assert len(resolved(f"a{MAX_DEPTH}", **line(MAX_DEPTH)).lineage) == MAX_DEPTH + 1
    error = refusal(f"a{MAX_DEPTH + 1}", **line(MAX_DEPTH + 1))
    assert error.path == f"Agent/a{MAX_DEPTH + 1} spec.extends"


def test_an_edit_removes_only_what_is_there() -> None:
    error = refusal("x", a={"tools": ["read"]}, x={"extends": "a", "tools": {"remove": ["raed"]}})
    assert error.path == "Agent/x spec.tools.remove[0]"
    assert "did you mean 'read'" in error.message
    assert "the list is empty" in refusal("x", x={"tools": {"remove": ["read"]}}).message


def test_parent_stands_for_something() -> None:
    error = refusal("x", x={"instructions": "{{ parent }}"})
    assert error.path == "Agent/x spec.instructions"


def test_errors_use_the_given_labels() -> None:
    with pytest.raises(SpecInvalid) as refused:
        resolve("x", lookup_in(x={"extends": "y"}), lambda name: f"file.yaml#{name}")
    assert refused.value.path == "file.yaml#x spec.extends"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("modl", "did you mean 'model'"),
        ("limits.turn", "limits has no field 'turn'; did you mean 'turns'"),
        ("input.type", "only the whole field can be final"),
        ("extends", "an agent has no field 'extends'"),
    ],
)
def test_final_names_fields(path: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("'", ".")):
        AgentManifest.model_validate({"final": [path]})


def test_a_list_is_a_list_or_an_edit() -> None:
    with pytest.raises(ValidationError, match="give a list, or"):
        AgentManifest.model_validate({"tools": "read"})
    edit = AgentManifest.model_validate({"tools": {"add": ["x"]}}).tools
    assert AgentManifest(tools=edit).tools == edit


names = st.from_regex(r"[a-z][a-z0-9_-]{0,5}", fullmatch=True)
keys = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=4)
json_maps = st.dictionaries(keys, st.integers() | st.text(max_size=3) | st.booleans(), max_size=3)
manifests = st.fixed_dictionaries(
    {},
    optional={
        "description": st.text(max_size=5),
        "instructions": st.text(max_size=10).filter(lambda text: "{" not in text),
        "model": st.fixed_dictionaries(
            {}, optional={"name": names, "temperature": st.floats(0, 2), "params": json_maps}
        ),
        "input": json_maps,
        "output": st.none() | json_maps,
        "tools": st.lists(names, max_size=4, unique=True),
        "limits": st.fixed_dictionaries(
            {}, optional={"turns": st.integers(1, 1000), "cost_usd": st.decimals(0, 100, places=2).map(str)}
        ),
        "metadata": json_maps,
        "final": st.lists(st.sampled_from(["limits", "model", "tools", "limits.turns", "metadata.x"]), max_size=2),
    },
)


@given(manifests)
def test_a_child_that_says_nothing_is_its_parent(manifest: dict[str, Any]) -> None:
    parent = resolved("p", p=manifest)
    child = resolved("c", p=manifest, c={"extends": "p"})
    assert child.spec == parent.spec
    assert child.origins == parent.origins


@given(manifests, manifests)
def test_resolution_is_deterministic_and_origins_cover_what_is_set(parent: Any, child: Any) -> None:
    given_manifests = {"p": {**parent, "final": []}, "c": {**child, "extends": "p"}}
    first, again = resolved("c", **given_manifests), resolved("c", **given_manifests)
    assert first == again
    differing = {name for name in AgentSpec.model_fields if getattr(first.spec, name) != getattr(AgentSpec(), name)}
    assert differing <= {path.partition(".")[0].partition("[")[0] for path in first.origins}
    assert set(first.spec.tools) == {path[6:-1] for path in first.origins if path.startswith("tools[")}


@given(manifests)
def test_manifests_and_resolved_agents_round_trip(data: dict[str, Any]) -> None:
    manifest = AgentManifest.model_validate(data)
    text = manifest.model_dump_json(exclude_unset=True)
    again = AgentManifest.model_validate_json(text)
    assert again == manifest
    assert again.model_fields_set == manifest.model_fields_set
    spec = resolved("p", p=data).spec
    assert AgentSpec.model_validate_json(spec.model_dump_json()) == spec


def test_delegates_are_edited_like_tools() -> None:
    base = {"delegates": [{"agent": "writer"}, {"agent": "writer", "mode": "handoff"}, {"agent": "critic"}]}
    child = {
        "extends": "base",
        "delegates": {"remove": ["writer"], "add": [{"agent": "editor"}, {"agent": "critic", "description": "Fair."}]},
    }
    found = resolved("child", base=base, child=child)
    assert [(d.tool_name, d.description) for d in found.spec.delegates] == [("ask_critic", "Fair."), ("ask_editor", "")]
    assert found.origins["delegates[editor]"] == Origin("child", 2)
    assert found.origins["delegates[critic]"] == Origin("base", 1)
    assert "delegates[writer]" not in found.origins
    gone = refusal("child", base=base, child={"extends": "base", "delegates": {"remove": ["editer"]}})
    assert gone.path == "Agent/child spec.delegates.remove[0]"
    none = resolved("child", base=base, child={"extends": "base", "delegates": None})
    assert none.spec.delegates == ()
    fixed = refusal("child", base={**base, "final": ["delegates"]}, child=child)
    assert "delegates is final" in fixed.message


PII = {"name": "pii", "type": "pii"}
SHAPE = {"name": "shape", "type": "json_schema", "json_schema": {}}
OURS = {"name": "ours", "type": "nats", "guard": "check"}


def test_guards_are_inherited_and_edited_by_name() -> None:
    base: dict[str, Any] = {"guards": [PII, SHAPE]}
    child = {"extends": "base", "guards": {"remove": ["shape"], "add": [OURS, PII | {"on": "input"}]}}
    found = resolved("child", base=base, child=child)
    assert [guard.name for guard in found.spec.guards] == ["pii", "ours"]
    assert found.spec.guards[0].on == "input"
    assert found.origins["guards[ours]"] == Origin("child", 2)
    assert [guard.name for guard in resolved("b", a=base, b={"extends": "a"}).spec.guards] == ["pii", "shape"]
    error = refusal("b", a=base, b={"extends": "a", "guards": {"remove": ["other"]}})
    assert "there is no 'other' to remove" in error.message


def test_final_guards_stay() -> None:
    base = {"guards": [PII], "final": ["guards"]}
    error = refusal("b", a=base, b={"extends": "a", "guards": {"remove": ["pii"]}})
    assert "guards is final in agent 'a'" in error.message
