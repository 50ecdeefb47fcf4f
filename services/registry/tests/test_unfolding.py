"""Schemas whose references lead to one schema many times."""

from __future__ import annotations

from typing import Any

import pytest

from paracle_domain.messages import JsonObject
from paracle_registry.schemas import check_schema
from paracle_registry.unfolding import MOST_UNFOLDED, unfolded

LINKS = [
    pytest.param(lambda n: {}, lambda n: f"#/$defs/d{n}", id="pointer"),
    pytest.param(lambda n: {"$anchor": f"a{n}"}, lambda n: f"#a{n}", id="anchor"),
    pytest.param(lambda n: {"$id": f"https://acme.example/d{n}"}, lambda n: f"https://acme.example/d{n}", id="id"),
    pytest.param(lambda n: {"$id": f"d{n}.json"}, lambda n: f"d{n}.json#", id="relative id"),
]


def doubling(levels: int, name: Any, link: Any) -> JsonObject:
    """Each of `levels` schemas refers twice to the next."""
    return {
        "$defs": {
            **{f"d{n}": {**name(n), "allOf": [{"$ref": link(n + 1)}, {"$ref": link(n + 1)}]} for n in range(levels)},
            f"d{levels}": {**name(levels), "type": "integer"},
        },
        "$ref": link(0),
    }


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_references_that_double_with_each_level_are_refused(name: Any, link: Any):
    assert [*check_schema(doubling(8, name, link), "spec.output")] == []
    [finding] = check_schema(doubling(40, name, link), "spec.output")
    assert finding.path == "spec.output"
    assert "unfold to more than 100,000 schemas" in finding.message


def test_each_schema_counts_as_often_as_something_leads_to_it():
    assert unfolded({"type": "string", "enum": [{}, {}], "$defs": {"unused": {}}}) == 1
    twice: JsonObject = {"$defs": {"one": {"items": {}}}, "allOf": [{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/one"}]}
    assert unfolded(twice) == 1 + 1 + 2 * (1 + 2)
    assert unfolded({"$defs": {"a/b~": [{}, {"items": {}}]}, "$ref": "#/$defs/a~1b~0/1"}) == 1 + 2


def test_what_leads_back_to_itself_is_no_matter():
    tree: JsonObject = {
        "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}},
        "anyOf": [{"$ref": "#"}, {"type": "null"}],
    }
    assert unfolded(tree) < 20
    assert [*check_schema(tree, "spec.output")] == []


def test_a_long_way_is_no_matter():
    links: JsonObject = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(5_000)}
    schema: JsonObject = {"$defs": {**links, "d5000": {"type": "integer"}}, "$ref": "#/$defs/d0"}
    assert 10_000 < unfolded(schema) < MOST_UNFOLDED


def test_references_to_nothing_count_nothing():
    assert unfolded({"$ref": "#/$defs/gone", "items": {"$ref": "#/items/3/x"}, "not": {"$ref": "#none"}}) == 3
