"""Reading YAML."""

from __future__ import annotations

import contextlib
import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.errors import ParacleError, PayloadTooLarge, SpecInvalid
from paracle_domain.registry import MAX_TEXT_BYTES
from paracle_registry import yaml_text
from paracle_registry.yaml_text import read_documents, write_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", {"a": 1}),
        ("on: yes", {"on": "yes"}),
        ("[~, null, '', Null, true, False, no]", [None, None, "", None, True, False, "no"]),
        ("[0, -7, +8, 0x1F, 0o17, 007, 1_000]", [0, -7, 8, 31, 15, 7.0, "1_000"]),
        ("[1.5, .5, 1e3, -2.5E-1, .inf, 1e999, 1.2.3]", [1.5, 0.5, 1000.0, -0.25, ".inf", "1e999", "1.2.3"]),
        (f"[{10**40}, {10**40}.5]", [10**40, 1e40]),
        ("[2026-01-01, 12:30:00, '5', \"6\"]", ["2026-01-01", "12:30:00", "5", "6"]),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
        ("a: &x {b: [1]}\nc: *x\nd: &y 5\ne: *y", {"a": {"b": [1]}, "c": {"b": [1]}, "d": 5, "e": 5}),
        ("a: |\n  x\n  y\nb: >\n  p\n  q", {"a": "x\ny\n", "b": "p q"}),
        ("!!str 5", "5"),
        ('{"json": [1, {"x": "\\u00e9"}]}', {"json": [1, {"x": "é"}]}),
        ("'<<': 1", {"<<": 1}),
    ],
)
def test_values(text: str, value: Any) -> None:
    (found,) = read_documents(text, "f")
    assert found == value
    assert repr(found) == repr(value)


def test_many_documents_and_empty_ones() -> None:
    assert read_documents("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n", "f") == [{"a": 1}, {"b": 2}]
    assert read_documents("", "f") == []


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("a: [1\n", "f.yaml:2:1", "did not find expected"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1", "'a' stands here twice"),
        ("x:\n  - &a [*a]", "f.yaml:2:9", "alias *a stands for nothing"),
        ("a: *b", "f.yaml:1:4", "undefined alias|alias *b stands for nothing"),
        ("a: !!python/object x", "f.yaml:1:4", "tag 'tag:yaml.org,2002:python/object'"),
        ("!thing [1]", "f.yaml:1:1", "tag '!thing'"),
        ("a: &a {b: 1}\nc: {<<: *a}", "f.yaml:2:5", "merge keys"),
        ("? [1]\n: 2", "f.yaml:1:3", "a key must be text"),
        ("&a x: 1\n*a : 2", "f.yaml:2:1", "a key must be text"),
        ("\tx: 1", "f.yaml:1:1", "cannot start any token"),
        ("a: \x00", "f.yaml", "control characters"),
        ("[" * 5000, "f.yaml:1:101", "nested more than 100 levels"),
        ("a: 'x", "f.yaml:", "end of stream"),
    ],
)
def test_mistakes_have_a_line_and_column(text: str, path: str, message: str) -> None:
    with pytest.raises(SpecInvalid) as refused:
        read_documents(text, "f.yaml")
    assert (refused.value.path or "").startswith(path)
    assert any(part in refused.value.message for part in message.split("|"))


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def test_an_alias_bomb_does_not_go_off() -> None:
    with pytest.raises(PayloadTooLarge, match="aliases expand"):
        read_documents(bomb(9), "f")
    assert len(json.dumps(read_documents(bomb(3), "f"))) > 1_000


def test_text_is_bounded() -> None:
    with pytest.raises(PayloadTooLarge, match="split it"):
        read_documents("#" + "é" * (MAX_TEXT_BYTES // 2), "f")


def test_documents_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "MAX_DOCUMENTS", 3)
    with pytest.raises(SpecInvalid, match="more than 3 documents"):
        read_documents("--- 1\n--- 2\n--- 3\n--- 4\n", "f")


texts = st.text(string.printable + "é–", max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=3))
def test_json_is_read_as_it_is(document: dict[str, Any]) -> None:
    assert read_documents(json.dumps(document), "f") == [document]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ParacleError):
        json.dumps(read_documents(text, "f"), allow_nan=False)


def test_written_documents_keep_their_order() -> None:
    assert write_document({"b": "é", "a": [1]}) == "b: é\na:\n- 1\n"
