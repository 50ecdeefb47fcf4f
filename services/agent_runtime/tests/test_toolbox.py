"""One way to call a tool: its time, and the schemas of what it takes and gives."""

from __future__ import annotations

import pytest
from tool_bench import Bench

from paracle_agent_runtime.schemas import Schemas, parse_answer
from paracle_domain.errors import SpecInvalid
from paracle_domain.task.inputs import Outcome


async def test_a_tool_that_takes_too_long_is_stopped(bench: Bench):
    backend = {"type": "builtin", "function": "sleep"}
    end = await bench.call({"seconds": 60}, backend=backend, timeout_s=0.01)
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("tool_unavailable", Outcome.UNKNOWN)


async def test_arguments_and_results_are_held_against_the_schemas(bench: Bench):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    before = await bench.call({"n": "x"}, input=schema)
    assert before.error is not None
    assert (before.error.code, before.error.path) == ("input_schema_mismatch", "arguments.n")
    after = await bench.call({"n": "x"}, output=schema)
    assert after.error is not None
    assert (after.error.code, after.outcome) == ("output_invalid", Outcome.DONE)


def test_schemas_that_are_none_say_so_and_few_are_kept():
    schemas = Schemas(capacity=1)
    with pytest.raises(SpecInvalid, match="the input schema of 't'"):
        schemas.problems(("p", "t", "input"), {"type": "nonsense"}, {}, root="input")
    with pytest.raises(SpecInvalid):
        schemas.problems(("p", "t", "input"), {"$ref": "https://example.org/other"}, {}, root="input")
    for n in range(3):
        assert schemas.problems((str(n), "t", "input"), {"maximum": n}, n + 1, root="input")[0].path == "input"


def test_findings_stay_short_however_long_the_value():
    [found] = Schemas().problems(("p", "t", "input"), {"type": "integer"}, "x" * 1_000_000, root="input")
    assert len(found.message) < 400
    assert found.message.endswith('is not of type "integer"')


@pytest.mark.parametrize("text", ['{"a": 1}', '```json\n{"a": 1}\n```', ' {"a":1} \n'])
def test_answers_are_read_with_or_without_a_fence(text: str):
    assert parse_answer(text) == ({"a": 1}, ())


@pytest.mark.parametrize("text", ["", "sure: {}", '{"a": NaN}', "[" * 100_000, '{"a": "\\ud83d"}', '{"a": 1e999}'])
def test_answers_that_are_no_json_say_so(text: str):
    assert parse_answer(text)[1]
