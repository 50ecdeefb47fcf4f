"""Any JSON, laid out for people."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from paracle_client.cli.report import cell, print_value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def printed(value: Any, width: int = 100) -> str:
    out = io.StringIO()
    print_value(value, Console(file=out, width=width, color_system=None))
    return out.getvalue()


def test_a_report() -> None:
    text = printed(
        {
            "title": "Monday's mails",
            "critical_share": 12.5,
            "labels": ["a", "b"],
            "summary": "word " * 40,
            "tickets": [{"subject": "No login", "urgency": "critical"}, {"subject": "Thanks", "urgency": None}],
            "nested": {"contact": {"name": "Zoë"}},
        }
    )
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == "Monday's mails"
    assert "Critical share  12.5" in lines
    assert "Labels          a, b" in lines
    assert "  Subject   Urgency" in lines
    assert "  No login  critical" in lines
    assert "  Thanks    –" in lines
    assert "    Zoë" in lines


def test_a_name_is_not_broken() -> None:
    text = printed([{"name": "11-chat-transcript.txt", "summary": "word " * 40}], width=40)
    assert "11-chat-transcript.txt  word" in text


def test_a_text_is_printed_as_it_is() -> None:
    assert printed("[bold]two\nlines[/]") == "[bold]two\nlines[/]\n"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (True, "yes"), (1234567, "1,234,567"), ([], "–"), ([1], "[1]")]
)
def test_cells(value: Any, text: str) -> None:
    assert cell(value) == text


@given(JSON, st.integers(20, 120))
def test_anything_can_be_printed_and_nothing_takes_over_the_terminal(value: Any, width: int) -> None:
    assert "\x1b" not in printed(value, width)
