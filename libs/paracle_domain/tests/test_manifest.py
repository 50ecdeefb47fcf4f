"""Reading manifests: what is accepted, and how what is not is explained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paracle_domain.errors import SpecInvalid
from paracle_domain.manifest import API_VERSION, DOCUMENTS, load_manifest, parse_document
from paracle_domain.registry import ResolvePlan
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.wording import PATTERNS
from paracle_domain.workflow.spec import WorkflowSpec


def document(kind: str, spec: Any, **more: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "x"}, "spec": spec, **more}


STEP = {"id": "a", "tool": "t"}
TOOL = {"description": "d", "backend": {"type": "builtin", "function": "f"}}


def problems(doc: object) -> list[tuple[str, str]]:
    with pytest.raises(SpecInvalid) as refused:
        parse_document(doc, 2, "triage.yaml")
    error = refused.value
    return [(item.path, item.message) for item in error.problems] or [(error.path or "", error.message)]


@pytest.mark.parametrize(
    ("doc", "path", "message"),
    [
        (3, "triage.yaml#2", "a manifest is an object"),
        (None, "triage.yaml#2", "(got null)"),
        ({}, "triage.yaml#2 kind", "kind is missing; known: Agent, Tool, Workflow, Trigger"),
        ({"kind": "agnt"}, "triage.yaml#2 kind", "kind 'agnt' is unknown; did you mean 'Agent'?"),
        ({"kind": ["Agent"]}, "triage.yaml#2 kind", "is unknown"),
        ({"kind": "Tool", "apiVersion": "v1"}, "triage.yaml#2 apiVersion", "apiVersion 'v1' is unknown"),
        ({"kind": "Tool", "apiVersion": API_VERSION, "spec": TOOL}, "triage.yaml#2 metadata", "is required"),
        (
            document("Agent", {}, metadata={"name": "X!"}),
            "triage.yaml#2 metadata.name",
            "Input should be a name: a to z first",
        ),
        (
            document("Agent", {"modle": 1}),
            "triage.yaml#2 spec.modle",
            "there is no field 'modle'; did you mean 'model'?",
        ),
        (document("Agent", {}, extra=1), "triage.yaml#2 extra", "there is no field 'extra'; known: apiVersion"),
        (document("Agent", {"model": {"nam": 1}}), "triage.yaml#2 spec.model.nam", "did you mean 'name'?"),
        (
            document(
                "Tool", {"description": "d", "backend": {"type": "http", "url": "http://a", "headers": {"a b": "c"}}}
            ),
            "triage.yaml#2 spec.backend.headers.a b",
            "'a b' is no name of a header",
        ),
        (
            document(
                "Tool", {"description": "d", "backend": {"type": "http", "url": "http://a", "headers": {"a": "b\n"}}}
            ),
            "triage.yaml#2 spec.backend.headers.a",
            "holds a line break",
        ),
        (document("Agent", {"tools": 5}), "triage.yaml#2 spec.tools", "give a list, or {add"),
        (document("Agent", {"tools": ["a", 3]}), "triage.yaml#2 spec.tools[1]", "valid string (got 3)"),
        (document("Agent", {"tools": {"ad": []}}), "triage.yaml#2 spec.tools.ad", "did you mean 'add'?"),
        (document("Agent", {"limits": {"turns": "5"}}), "triage.yaml#2 spec.limits.turns", "integer (got '5')"),
        (document("Agent", {"limits": {"turns": True}}), "triage.yaml#2 spec.limits.turns", "integer (got true)"),
        (document("Agent", {"final": ["modl"]}), "triage.yaml#2 spec", "final: an agent has no field 'modl'"),
        (document("Agent", {"metadata": {"x": float("nan")}}), "triage.yaml#2", "not JSON compliant"),
        (
            document("Workflow", {"steps": [STEP, {**STEP, "retry": {"max_attempts": "many"}}]}),
            "triage.yaml#2 spec.steps[1].retry.max_attempts",
            "valid integer (got 'many')",
        ),
        (
            document("Workflow", {"steps": [{**STEP, "retry": {"max_attemps": 2}}]}),
            "triage.yaml#2 spec.steps[0].retry.max_attemps",
            "did you mean 'max_attempts'",
        ),
        (
            document("Workflow", {"steps": [{"id": "b"}]}),
            "triage.yaml#2 spec.steps[0]",
            "exactly one of agent, tool, workflow, map",
        ),
        (document("Workflow", {"steps": "x"}), "triage.yaml#2 spec.steps", "(got 'x')"),
        (document("Tool", {**TOOL, "backend": {"type": "htp"}}), "triage.yaml#2 spec.backend", "'htp' is unknown"),
        (document("Tool", {**TOOL, "backend": {}}), "triage.yaml#2 spec.backend", "'type' is missing"),
        (
            document("Tool", {**TOOL, "backend": {"type": "http", "ur": "x"}}),
            "triage.yaml#2 spec.backend.ur",
            "did you mean 'url'?",
        ),
        (
            document("Tool", {**TOOL, "input": {"type": "string"}}),
            "triage.yaml#2 spec",
            "must be a JSON Schema of type object",
        ),
    ],
)
def test_refusals_say_where_and_what(doc: object, path: str, message: str) -> None:
    found = problems(doc)
    assert any(where == path and message in what for where, what in found), found


def test_what_is_nested_too_deep_is_refused() -> None:
    deep: Any = "x"
    for _ in range(150):
        deep = [deep]
    assert problems(document("Agent", {"metadata": {"x": deep}})) == [
        ("triage.yaml#2", "nested more than 100 levels deep")
    ]


@pytest.mark.parametrize(
    "doc",
    [
        document("Agent", {}),
        document(
            "Agent", {"output": None, "limits": {"cost_usd": "1.50"}, "tools": {"add": ["a"]}, "final": ["limits"]}
        ),
        document("Tool", TOOL),
        document("Tool", {**TOOL, "backend": {"type": "http", "url": "https://example.com"}, "effect": "at_most_once"}),
        document(
            "Workflow",
            {"steps": [{**STEP, "retry": {"on": ["tool_failed"]}, "on_error": "continue"}], "timeout_s": 5.0},
        ),
    ],
)
def test_a_manifest_is_kept_as_it_was_written(doc: dict[str, Any]) -> None:
    manifest = parse_document(doc, 1, "x")
    assert manifest.to_json() == doc
    assert list(manifest.to_json()) == ["apiVersion", "kind", "metadata", "spec"]
    again = load_manifest(manifest.kind, manifest.to_json())
    assert again == manifest
    assert again.digest() == manifest.digest()


def test_the_digest_sees_every_change() -> None:
    one, other = (parse_document(document("Agent", {"description": text}), 1, "x") for text in "ab")
    assert one.digest() != other.digest()


def test_steps_know_their_targets() -> None:
    spec = WorkflowSpec.model_validate({"steps": [STEP, {"id": "b", "agent": "g"}]})
    assert [(step.kind, step.target) for step in spec.steps] == [("tool", "t"), ("agent", "g")]


@pytest.mark.parametrize("fields", [{}, {"workflow": "a", "agent": "b"}, {"agent": "a", "revision": 2}])
def test_a_plan_is_asked_for_one_target(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ResolvePlan(**fields)
    assert ResolvePlan(workflow="a", revision=2).revision == 2


steps = st.fixed_dictionaries(
    {"id": st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), "tool": st.just("t")},
    optional={
        "input": st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3)),
        "timeout_s": st.floats(0.1, 100),
        "retry": st.fixed_dictionaries({}, optional={"max_attempts": st.integers(1, 100), "jitter": st.floats(0, 1)}),
    },
)


@given(st.lists(steps, min_size=1, max_size=4))
def test_workflows_round_trip(found: list[dict[str, Any]]) -> None:
    manifest = parse_document(document("Workflow", {"steps": found}), 1, "x")
    assert load_manifest("Workflow", json.loads(json.dumps(manifest.to_json()))) == manifest


@given(st.sampled_from(["none", "idempotent", "at_most_once"]), st.floats(0.1, 1000))
def test_tools_round_trip(effect: str, timeout_s: float) -> None:
    spec = ToolSpec.model_validate({**TOOL, "effect": effect, "timeout_s": timeout_s})
    assert ToolSpec.model_validate_json(spec.model_dump_json()) == spec


def test_headers_of_http_tools_hold_text_and_secrets():
    headers = {"Authorization": "Bearer ${KEY}", "X-Note": "caf\N{LATIN SMALL LETTER E WITH ACUTE}\tx"}
    spec = {"description": "d", "backend": {"type": "http", "url": "http://a", "headers": headers}}
    assert parse_document(document("Tool", spec), 1, "t").to_json()["spec"] == spec


def test_what_only_follows_from_a_finding_within_is_not_said():
    step = STEP | {"on_error": {"fallback": "plan-b"}}
    assert [path for path, _ in problems(document("Workflow", {"steps": [step]}))] == [
        "triage.yaml#2 spec.steps[0].on_error.fallback"
    ]
    wrong = STEP | {"on_error": "stop"}
    assert problems(document("Workflow", {"steps": [wrong]})) == [
        ("triage.yaml#2 spec.steps[0].on_error", "Input should be 'fail' or 'continue', or an object (got 'stop')")
    ]


def test_too_few_and_too_many_are_counted():
    assert problems(document("Workflow", {"steps": []})) == [
        ("triage.yaml#2 spec.steps", "Input should have at least 1 item (got [])")
    ]
    [(path, message)] = problems(document("Workflow", {"steps": [STEP] * 10_001}))
    assert path == "triage.yaml#2 spec.steps"
    assert message.startswith("Input should have at most 10,000 items (got ")


def test_no_pattern_of_a_manifest_is_shown_as_it_is():
    found = {pattern for model in DOCUMENTS.values() for pattern in patterns(model.model_json_schema())}
    assert set(PATTERNS) == found


def patterns(schema: object) -> Iterator[str]:
    """Of the values in `schema`, its keys aside."""
    match schema:
        case {"pattern": str(pattern)}:
            yield pattern
        case dict():
            yield from (pattern for below in schema.values() for pattern in patterns(below))
        case list():
            yield from (pattern for below in schema for pattern in patterns(below))
        case _:
            pass
