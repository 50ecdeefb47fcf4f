"""Expressions: what they give, what they refuse, and that nothing gets out of hand."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from paracle_domain import expressions
from paracle_domain.errors import ExpressionFailed
from paracle_domain.expression_syntax import MAX_TEMPLATE_CHARS

SCOPE: dict[str, Any] = {
    "input": {
        "a": 1,
        "xs": [1, 2],
        "s": "hi <b>",
        "items": [7],
        "n": None,
        "f": 1.0,
        "yes": True,
        "odd key": 3,
        "e": {},
    },
    "steps": {"read": {"output": {"text": "t"}, "status": "completed", "error": None}, "skipped": {"output": None}},
    "run": {"id": "run_1"},
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("a {brace", "a {brace"),
        ("{# a comment is text without code #}", "{# a comment is text without code #}"),
        (5, 5),
        (None, None),
        ("{{ input.a }}", 1),
        ("  {{ input.a }}\n", 1),
        ("{{- input.a -}}", 1),
        ("{# why #}{{ input.a }}", "1"),
        ("{{ input.f }}", 1.0),
        ("{{ input.yes }}", True),
        ("{{ input['odd key'] }}", 3),
        ("{{ input.xs[1] }}", 2),
        ("{{ input.xs.0 }}", 1),
        ("{{ input.xs[:1] }}", [1]),
        ("{{ input.items }}", [7]),
        ("{{ steps.skipped.output }}", None),
        ("{{ none }}", None),
        ("{{ 1 if false }}", None),
        ("{{ {'a': {'b': input.f + 0.5}} }}", {"a": {"b": 1.5}}),
        ("{{ (1, 'x') }}", [1, "x"]),
        ("{{ '}}' ~ \"%}\" }}", "}}%}"),
        ("{{ input.nope | default('x') }}", "x"),
        ("{{ input.nope is defined }}", False),
        ("{{ input.xs | map('upper') | list }}", ["1", "2"]),
        ("{{ input.xs | join(', ') }}", "1, 2"),
        ("{{ [{'k': 'a'}, {'k': 'b'}] | join('-', 'k') }}", "a-b"),
        ("{{ input.s | replace('hi', 'ho') }}", "ho <b>"),
        ("{{ input.s | tojson }}", '"hi <b>"'),
        ("{{ input.xs | tojson(2) }}", "[\n  1,\n  2\n]"),
        ("{{ input.s.upper() }}", "HI <B>"),
        ("{{ input.get('nope', 3) }}", 3),
        ("{{ 4 is divisibleby(2) }}", True),
        ("{{ 4 is not in([1]) }}", True),
        ("{{ not (input.a == 1) }}", False),
        ("{{ range(3) | list }}", [0, 1, 2]),
        ("{{ ((input.a | int) + 1) * 2 }}", 4),
        ("{{ -2 * input.xs|length + 1 }}", -3),
        ("{{ input.a | float | round(1) * 2 }}", 2),
        ("{{ 'n' ~ (2 * 3) }}", "n6"),
        ("{{ input.a == 1 and [2 * 3, 1][0] == 6 }}", True),
        ("{{ input.a }} {{ input.xs }} {{ true }} {{ none }} {{ input.s }}", "1 [1, 2] true null hi <b>"),
        ("{% for x in input.xs %}{{ loop.index }}{% endfor %}\n", "12\n"),
        ("{% if (input.a) %}y{% endif %}", "y"),
        ("{{ input.e.items() | list }}", []),
        ({"a": ["{{ steps.read.output.text }}", 1], "b": "c"}, {"a": ["t", 1], "b": "c"}),
    ],
)
def test_evaluates(template: Any, value: Any) -> None:
    before = copy.deepcopy(SCOPE)
    result = expressions.evaluate(template, SCOPE)
    assert result == value
    assert type(result) is type(value)
    assert before == SCOPE


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ steps.zz }}", "`steps.zz` is undefined; there are 'read, skipped'"),
        ("{{ steps.zz.output }}", "`steps.zz` is undefined"),
        ("{{ [input.nope] }}", "`input.nope` is undefined"),
        ("{{ input.n.x }}", "`input.n` is null"),
        ("{{ input.a.x }}", "`input.a` is a number"),
        ("{{ input.s.x }}", "`input.s` is text"),
        ("{{ input.yes.x }}", "`input.yes` is a boolean"),
        ("{{ input.e.x }}", "`input.e` is empty"),
        ("{{ input.xs[9] }}", "`input.xs[9]` is undefined; `input.xs` has 2 items"),
        ("{{ steps.read.status[0] ~ steps.read.error.code }}", "`steps.read.status` is text"),
        ("{{ input.nope if true }}", "`input.nope` is undefined"),
        ("{{ input.a == 1 and input.zz }}", "`input.zz` is undefined"),
        ("text {{ input.nope }}", "`input.nope` is undefined"),
        ("{{ nobody }}", "`nobody` is undefined"),
        ("{{ (1 }}", "syntax error"),
        ("{{ a b }}", "syntax error"),
        ("{{ }}", "syntax error"),
        ("{{ input.s ! }}", "unexpected '! }}'"),
        ("{{ 1 ", "is not closed with `}}`"),
        ("{% if true ", "is not closed with `%}`"),
        ("{{ 1 }} {# never", "is not closed with `#}`"),
        ("{% if true %}", "syntax error"),
        ("{% set x = 1 %}", "`{% set %}` is not available"),
        ("{% %}", "`{%  %}` is not available"),
        ("{% include 'x' %}", "is not available"),
        ("{{ input.xs.pop() }}", "method 'pop' is not available"),
        ("{{ (input.xs|first)() }}", "only functions"),
        ("{{ input['x']() }}", "only functions"),
        ("{{ 'x'() }}", "only functions"),
        ("{{ debug() }}", "function 'debug' is not available"),
        ("{{ input.xs | attr('pop') }}", "filter 'attr' is not available"),
        ("{{ input.xs | map('attr', 'pop') | list }}", "unknown filter"),
        ("{{ input.xs | }}", "syntax error"),
        ("{{ 'x' * 9 }}", "could repeat text or a list"),
        ("{{ 9 * input.a }}", "could repeat text or a list"),
        ("{{ [input.a] * 9 }}", "could repeat text or a list"),
        ("{{ (input.a ~ 'x') * 9 }}", "could repeat text or a list"),
        ("{{ (input.a | string) * 9 }}", "could repeat text or a list"),
        ("{{ (input.a if input.a else 3) * 9 }}", "could repeat text or a list"),
        ("{{ input['a'] * 9 }}", "could repeat text or a list"),
        ("{{ )*( }}", None),
        ("{{ )) * 3 }}", None),
        ("{{ input.s" + " ~ input.s" * 65 + " }}", "is too long"),
        ("{{ range(100000) | join('" + "x" * 1000 + "') }}", "larger than 4,194,304 bytes"),
        ("{{ (range(5000) | join) | replace('1', '" + "y" * 5000 + "') }}", "larger than"),
        ("{{ (range(90000) | join ~ range(90000) | join) | replace('1', '" + "z" * 40 + "') }}", "larger than"),
        ("{% for i in range(3000) %}{{ range(900) | join }}{% endfor %}", "larger than"),
        ("{{ 1e400 }}", "inf is no JSON value"),
        ("{{ 1e400 }} x", "no JSON value"),
        ("{{ {1: 2} }}", "names are text"),
        ("{{ input.items() }}", "no JSON value"),
        ("{{ range }}", "`range` is a function"),
        ("{{ input.a | join }}", "not iterable"),
        ("{{ 1 // 0 }}", "'{{ 1 // 0 }}': "),
        ("x" * MAX_TEMPLATE_CHARS + "{{ 1 }}", "65,543 characters"),
        ("{{ " + "[" * 300 + "]" * 300 + " }}", None),
    ],
)
def test_refuses(template: str, message: str | None) -> None:
    with pytest.raises(ExpressionFailed) as failed:
        expressions.evaluate(template, SCOPE)
    assert message is None or message in str(failed.value)


def test_an_endless_loop_over_constants_is_refused_before_it_runs() -> None:
    with pytest.raises(ExpressionFailed, match="ran out of fuel"):
        expressions.check("{% for i in range(90000) %}{% for k in range(90000) %}x{% endfor %}{% endfor %}")


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(input.n) %}x{% endfor %}",
        "{% for x in input.xs %}{{ x.a.b.c }}{% endfor %}",
        "{{ input.n + 1 }}",
        "{{ input.n | int * 9 }}",
        "{% for i in range(900) %}" + "x" * 9_000 + "{% endfor %}",
    ],
)
def test_what_depends_on_values_is_not_judged_without_them(template: str) -> None:
    expressions.check(template)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}" + "x" * 60_000 + "{% endfor %}{% endfor %}",
    ],
)
def test_an_endless_loop_runs_out_of_fuel(template: str) -> None:
    with pytest.raises(ExpressionFailed, match="ran out of fuel"):
        expressions.evaluate(template, SCOPE)


def test_an_error_has_the_path_of_its_string() -> None:
    with pytest.raises(ExpressionFailed) as failed:
        expressions.evaluate({"a": {"b": [1, ["{{ input.zz }}"]]}}, SCOPE)
    assert failed.value.path == "a.b[1][0]"


def test_an_error_quotes_no_values_of_the_scope() -> None:
    with pytest.raises(ExpressionFailed) as failed:
        expressions.evaluate("{{ input.secret if input.nope }}", {"input": {"secret": "hunter2"}})
    assert "hunter2" not in str(failed.value)
    assert failed.value.__cause__ is None


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("input.a == 1", True),
        ("{{ input.a == 2 }}", False),
        ("input.xs", True),
        ("input.e", False),
        ("steps.read.status == 'completed'", True),
        ("false", False),
    ],
)
def test_truth(condition: str, holds: bool) -> None:
    assert expressions.truth(condition, SCOPE) is holds


def test_a_condition_is_one_expression_not_text() -> None:
    with pytest.raises(ExpressionFailed, match="is text, not a condition"):
        expressions.truth("{{ input.a }}{{ input.a }}", SCOPE)


def test_references() -> None:
    template: JsonValue = {
        "a": "{{ steps.one.output.x }}",
        "b": ["{{ steps['two'].status }} {{ input.steps.no }}"],
        "c": "steps.no",
    }
    assert expressions.references(template) == {"one", "two"}
    assert expressions.references("{% for k in input.steps %}{{ k }}{% endfor %}") == set()
    assert expressions.references("{{ input.xs | join(steps='x') }}") == set()


@pytest.mark.parametrize("template", ["{{ steps[input.s].output }}", "{{ steps | list }}", "{{ steps[0] }}"])
def test_a_step_is_named_literally(template: str) -> None:
    with pytest.raises(ExpressionFailed, match="computed name"):
        expressions.references(template)


def test_a_field_of_an_output_forgotten() -> None:
    with pytest.raises(ExpressionFailed, match=r"did you mean `steps\.a\.output\.label`"):
        expressions.check("{{ steps.a.label }}")


def test_check_knows_the_names_of_the_scope() -> None:
    expressions.check(["{{ input.x + range(3)|length }}", {"x": "{% for i in input.y %}{{ i }}{% endfor %}"}])
    with pytest.raises(ExpressionFailed, match=r"`bug` in .* is unknown; there are input, run, steps"):
        expressions.check("{{ steps.a.output == bug }}")
    with pytest.raises(ExpressionFailed, match="there are input"):
        expressions.check("{{ run.id }}", frozenset({"input"}))


def test_render_gives_text() -> None:
    assert expressions.render("{{ input.xs }}", SCOPE) == "[1, 2]"
    assert expressions.render("no code", SCOPE) == "no code"
    with pytest.raises(ExpressionFailed, match=r"input\.nope"):
        expressions.render("{{ input.nope }}", SCOPE)


def test_no_value_nests_without_end() -> None:
    deep: Any = []
    for _ in range(250):
        deep = [deep]
    with pytest.raises(ExpressionFailed, match="no JSON value"):
        expressions.evaluate("{{ input.x | list }}", {"input": {"x": [deep]}})


def test_threads_do_not_share_their_meters() -> None:
    big = {"input": {"x": "x" * 3_000_000}}
    failures: list[ExpressionFailed] = []

    def work() -> None:
        try:
            expressions.render("{{ input.x }}", big)
        except ExpressionFailed as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_a_whole_expression_gives_the_value_itself(value: Any) -> None:
    assert expressions.evaluate("{{ input }}", {"input": value}) == value


@given(st.text(max_size=40))
def test_any_text_is_evaluated_or_refused(text: str) -> None:
    with contextlib.suppress(ExpressionFailed):
        json.dumps(expressions.evaluate(f"{{{{ {text} }}}}", SCOPE), allow_nan=False)


@given(st.text(max_size=40).filter(lambda text: "{{" not in text and "{%" not in text))
def test_text_without_code_is_itself(text: str) -> None:
    assert expressions.evaluate(text, {}) == text
