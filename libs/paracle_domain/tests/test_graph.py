"""The graph of a workflow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.errors import SpecInvalid
from paracle_domain.names import suggest
from paracle_domain.workflow.graph import Graph, validate_workflow
from paracle_domain.workflow.spec import KINDS, WorkflowSpec


def workflow(*steps: dict[str, Any], output: Any = None) -> WorkflowSpec:
    full = [step if any(kind in step for kind in KINDS) else {"tool": "t", **step} for step in steps]
    return WorkflowSpec.model_validate({"steps": full, "output": output})


def findings(spec: WorkflowSpec) -> list[tuple[str, str]]:
    return [(item.path, item.message) for item in validate_workflow(spec)]


def test_needs_are_said_or_named_in_expressions() -> None:
    graph = Graph.of(
        workflow(
            {"id": "a"},
            {"id": "b", "input": {"q": ["{{ steps.a.output }}"]}},
            {"id": "c", "when": "steps.b.status == 'completed'", "needs": ["a"]},
            output="{{ steps.c.output }}",
        )
    )
    assert graph.needs == {"a": (), "b": ("a",), "c": ("a", "b")}
    assert graph.dependents == {"a": ("b", "c"), "b": ("c",), "c": ()}
    assert graph.order == ("a", "b", "c")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (workflow({"id": "a"}, {"id": "a"}), ("spec.steps[1].id", "'a' is the id of steps[0] already")),
        (workflow({"id": "a", "needs": ["a"]}), ("spec.steps[0].needs[0]", "step 'a' waits for itself")),
        (
            workflow({"id": "classify"}, {"id": "b", "needs": ["clasify"]}),
            ("spec.steps[1].needs[0]", "there is no step 'clasify'; did you mean 'classify'?"),
        ),
        (
            workflow({"id": "a", "input": {"x": [{"y": "{{ steps.zz.output }}"}]}}),
            ("spec.steps[0].input.x[0].y", "there is no step 'zz'; known: a"),
        ),
        (workflow({"id": "a", "when": "steps.zz.output"}), ("spec.steps[0].when", "there is no step 'zz'; known: a")),
        (
            workflow({"id": "a", "on_error": {"fallback": "zz"}}),
            ("spec.steps[0].on_error.fallback", "there is no step 'zz'; known: a"),
        ),
        (
            workflow({"id": "a", "on_error": {"fallback": "a"}}),
            ("spec.steps[0].on_error.fallback", "step 'a' waits for itself"),
        ),
        (
            workflow(
                {"id": "a", "on_error": {"fallback": "c"}}, {"id": "b", "on_error": {"fallback": "c"}}, {"id": "c"}
            ),
            ("spec.steps[1].on_error.fallback", "'c' is the fallback of 'a' already; give each its own"),
        ),
        (
            workflow({"id": "a", "switch": {"cases": [{"name": "x", "when": "true", "then": ["zz"]}]}}),
            ("spec.steps[0].switch.cases[0].then[0]", "there is no step 'zz'; known: a"),
        ),
        (
            workflow({"id": "a", "switch": {"cases": [{"name": "x", "when": "true"}], "default": ["a"]}}),
            ("spec.steps[0].switch.default[0]", "step 'a' waits for itself"),
        ),
        (
            workflow({"id": "a", "compensate": {"tool": "t", "input": "{{ steps.zz.output }}"}}),
            ("spec.steps[0].compensate.input", "there is no step 'zz'; known: a"),
        ),
        (
            workflow({"id": "a"}, output=["{{ steps.zz.output }}"]),
            ("spec.output[0]", "there is no step 'zz'; known: a"),
        ),
    ],
)
def test_findings_have_paths(spec: WorkflowSpec, expected: tuple[str, str]) -> None:
    assert findings(spec) == [expected]


def test_names_of_parts_are_known_only_there() -> None:
    spec = workflow(
        {"id": "a", "map": {"tool": "t", "over": "{{ item }}", "input": "{{ item }}{{ index }}"}},
        {"id": "b", "loop": {"tool": "t", "max": 1, "until": "last == output", "input": "{{ last }}{{ iteration }}"}},
    )
    assert [path for path, _ in findings(spec)] == ["spec.steps[0].map.over", "spec.steps[1].loop.until"]


def test_syntax_errors_have_paths() -> None:
    spec = workflow({"id": "a", "input": "{{ (1 }}", "when": "1 ="}, output="{{ oops }}")
    assert [path for path, _ in findings(spec)] == ["spec.steps[0].input", "spec.steps[0].when", "spec.output"]


def test_a_cycle_is_named() -> None:
    spec = workflow(
        {"id": "z", "needs": ["a"]},
        {"id": "a", "needs": ["c"]},
        {"id": "b", "input": "{{ steps.a.output }}"},
        {"id": "c", "when": "steps.b.output"},
        {"id": "free"},
    )
    message = "steps wait for each other in a circle: a → c → b → a (each waits for the next)"
    assert findings(spec) == [("spec.steps[1]", message)]
    with pytest.raises(SpecInvalid, match="in a circle"):
        Graph.of(spec)


@pytest.mark.parametrize(
    "steps",
    [
        ({"id": "a", "on_error": {"fallback": "b"}}, {"id": "b", "on_error": {"fallback": "a"}}),
        ({"id": "a", "on_error": {"fallback": "b"}, "needs": ["b"]}, {"id": "b"}),
        ({"id": "a", "on_error": {"fallback": "b"}}, {"id": "b", "needs": ["c"]}, {"id": "c", "needs": ["a"]}),
        ({"id": "a", "needs": ["b"], "switch": {"cases": [{"name": "x", "when": "true", "then": ["b"]}]}}, {"id": "b"}),
    ],
)
def test_fallbacks_and_branches_make_circles_too(steps: tuple[dict[str, Any], ...]) -> None:
    ((_, message),) = findings(workflow(*steps))
    assert "in a circle" in message


def test_who_needs_a_step_needs_what_may_step_in_for_it() -> None:
    graph = Graph.of(
        workflow(
            {"id": "a", "on_error": {"fallback": "b"}},
            {"id": "b", "on_error": {"fallback": "c"}},
            {"id": "c", "compensate": {"tool": "t", "input": "{{ steps.c.output }} {{ steps.d.output }}"}},
            {"id": "d", "needs": ["a"]},
        )
    )
    assert graph.needs == {"a": (), "b": ("a",), "c": ("b",), "d": ("a", "b", "c")}
    assert graph.primaries == {"b": "a", "c": "b"}
    assert graph.index == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_a_long_cycle_is_shortened() -> None:
    spec = workflow(*({"id": f"s{n}", "needs": [f"s{(n + 1) % 40}"]} for n in range(40)))
    ((_, message),) = findings(spec)
    assert "s10 → … → s0" in message


@given(st.lists(st.sets(st.integers(0, 30), max_size=4), min_size=1, max_size=31))
def test_order_respects_needs_or_there_is_a_cycle(edges: list[set[int]]) -> None:
    count = len(edges)
    steps = [
        {"id": f"s{n}", "needs": [f"s{other}" for other in sorted(e) if other < count and other != n]}
        for n, e in enumerate(edges)
    ]
    spec = workflow(*steps)
    if validate_workflow(spec):
        return
    graph = Graph.of(spec)
    places = {step: place for place, step in enumerate(graph.order)}
    assert len(places) == count
    assert all(places[needed] < places[step] for step, needs in graph.needs.items() for needed in needs)
    assert {(a, b) for a, needs in graph.needs.items() for b in needs} == {
        (a, b) for b, users in graph.dependents.items() for a in users
    }


def test_a_chain_of_ten_thousand_is_no_trouble() -> None:
    steps = [{"id": f"s{n}", "needs": [f"s{n - 1}"] if n else []} for n in range(10_000)]
    assert Graph.of(workflow(*reversed(steps))).order[:2] == ("s0", "s1")


def test_suggest() -> None:
    assert suggest("x", []) == ""
    assert suggest("qqq", [f"n{n}" for n in range(10)]) == "; known: n0, n1, n2, n3, n4, n5, n6, n7 and 2 more"
    assert suggest("modle", ["model", "mode"]) == "; did you mean 'mode' or 'model'?"
