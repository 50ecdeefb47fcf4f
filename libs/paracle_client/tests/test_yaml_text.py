"""Manifests as YAML that reads as what it was made of."""

from __future__ import annotations

import pytest

from paracle_client.yaml_text import dump


@pytest.mark.parametrize(
    "text", ["1e3", "0o7", "0x1F", "-1", "+.5", "1.", "1_000", "true", "null", "~", "on", "", "- a"]
)
def test_a_text_that_reads_as_something_else_is_quoted(text: str) -> None:
    assert dump([{"a": text}], start=False) == f"a: '{text}'\n"


def test_texts_of_several_lines_are_written_as_such() -> None:
    assert dump([{"a": "one\n  two\n", "b": ["x y", "1e", 2.5, None]}]) == (
        "---\na: |\n  one\n    two\nb:\n- x y\n- 1e\n- 2.5\n- null\n"
    )
    assert dump([{"a": "one \ntwo\x1b"}], start=False) == 'a: "one \\ntwo\\e"\n'
