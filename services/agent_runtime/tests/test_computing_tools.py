"""Builtin tools that compute: options, arithmetic, queries, time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tool_bench import Bench

FOLDER = {"path": "mails"}


async def test_options_of_the_manifest_overrule_the_arguments(bench: Bench):
    end = await bench.builtin("noop", {"a": 1, "b": 2}, b=3)
    assert end.output == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("-2 ** 2", -4),
        ("sqrt(16) / 2", 2.0),
        ("max(1, 2.5)", 2.5),
        ("7 // 2 % 2", 1),
        ("round(pi, 2)", 3.14),
        ("round(5, -10**9)", 0),
        ("round(1.5, 10**30)", 1.5),
        ("round(3.7)", 4),
    ],
)
async def test_arithmetic(bench: Bench, expression: str, value: float):
    assert (await bench.builtin("calculate", {"expression": expression})).output == {"value": value}


@pytest.mark.parametrize(
    "expression",
    [
        "1/0",
        "9**9**9**9",
        "(-8)**0.5",
        "__import__('os')",
        "().__class__",
        "'a'*9",
        "True",
        "1 if 1 else 2",
        "1+",
        "10**400*1.0",
        "x",
    ],
)
async def test_what_is_no_arithmetic_is_refused(bench: Bench, expression: str):
    end = await bench.builtin("calculate", {"expression": expression})
    assert end.error is not None
    assert end.error.code == "input_schema_mismatch"
    assert bench.bugs == []


@given(st.text(max_size=60))
async def test_calculating_any_text_gives_a_number_or_a_clear_error(text: str):
    bench = Bench(Path())
    end = await bench.builtin("calculate", {"expression": text})
    assert bench.bugs == []
    assert (end.error is None) == (isinstance(end.output, dict) and "value" in end.output)


async def test_json_query(bench: Bench):
    value = {"items": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]}
    assert (await bench.builtin("json_query", {"value": value, "query": "items[1].name"})).output == {"value": "b"}
    assert (await bench.builtin("json_query", {"value": value, "query": "sum(items[].n)"})).output == {"value": 3}
    assert (await bench.builtin("json_query", {"value": value, "query": "items[7].name"})).output == {"value": None}
    assert (await bench.builtin("json_query", {"value": value})).output == {"value": value}


@pytest.mark.parametrize("query", ["items[x", "nope(@)", "sum(@)", "@.", "to_number('nan')", "(" * 900, "items[::0]"])
async def test_what_is_no_query_is_refused(bench: Bench, query: str):
    end = await bench.builtin("json_query", {"value": {"items": []}, "query": query})
    assert end.error is not None
    assert (end.error.code, end.error.path) == ("input_schema_mismatch", "query")
    assert bench.bugs == []


@pytest.mark.filterwarnings("ignore:deprecated string literal")
@given(st.text(alphabet="abc@[]{}*?.,:|&!'\"`() 0123456789<>=-", max_size=40))
async def test_any_query_gives_a_value_or_a_clear_error(query: str):
    bench = Bench(Path())
    await bench.builtin("json_query", {"value": {"a": [1, {"b": "c"}]}, "query": query})
    assert bench.bugs == []


@pytest.mark.parametrize(
    "query",
    [
        "[@,@]|" * 60 + "@",
        "[@,@][]|" * 60 + "@",
        "{a:@,b:@}|" * 60 + "@",
        "join('', [@,@])|" * 60 + "@",
        "to_string([@,@])|" * 40 + "@",
        "map(&map(&map(&@, [@,@,@]), [@,@,@]), [@,@,@])|[]|[]|" * 18 + "@",
        "[[@,@]|[@,@]|" + "[@,@]|" * 50 + "@,[@,@]|" + "[@,@]|" * 50 + "@]|[0]==[1]",
    ],
)
async def test_queries_that_grow_without_end_are_stopped(bench: Bench, query: str):
    end = await bench.builtin("json_query", {"value": "xxxxxxxxxxxxxxxx", "query": query})
    assert end.error is not None
    assert end.error.code == "limit_exceeded", end.error
    assert bench.bugs == []


async def test_csv_query(bench: Bench, tmp_path: Path):
    text = 'name,price\n"Ada, L.",3\nBob,12\nCid\n'
    dear = "[?to_number(price) > `10`].name"
    assert (await bench.builtin("csv_query", {"text": text, "query": dear})).output == {"value": ["Bob"]}
    rows = (await bench.builtin("csv_query", {"text": "1;2\n\n3;4", "delimiter": ";", "header": False})).output
    assert rows == {"value": [["1", "2"], ["3", "4"]]}
    (tmp_path / "mails" / "list.csv").write_text(text)
    end = await bench.builtin("csv_query", {"path": "list.csv", "query": "[-1]"}, "mails")
    assert end.output == {"value": {"name": "Cid", "price": ""}}
    for wrong in ({}, {"text": "a", "path": "b"}, {"text": '"a'}, {"text": "a", "delimiter": "\n"}):
        refused = await bench.builtin("csv_query", wrong)
        assert refused.error is not None
        assert refused.error.code == "input_schema_mismatch"
    assert bench.bugs == []


async def test_now_and_sleep(bench: Bench):
    now = await bench.builtin("now", {})
    assert isinstance(now.output, dict)
    assert str(now.output["utc"]).endswith("Z")
    assert (await bench.builtin("sleep", {"seconds": 0})).output == {"slept_s": 0.0}
    assert (await bench.builtin("sleep", {"seconds": 1e9})).error is not None
