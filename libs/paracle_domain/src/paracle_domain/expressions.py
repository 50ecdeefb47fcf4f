"""Expressions in manifests: minijinja, sandboxed, with the values of a run as their scope.

A string that is exactly one `{{ … }}` gives a JSON value, so `"{{ steps.classify.output.urgent }}"` may be a boolean or
an object. Any other string with `{{` or `{%` gives text, in which values that are not text stand as JSON. A string
without either is itself.

The scope is `input` (the run's input), `steps.<id>.output`, `.status` and `.error`, and `run.id`. What is absent is an
error that names it, unless the expression says what holds then (`| default(…)`, `is defined`, …).

Bounds: `FUEL` instructions (fewer for long templates), `MAX_OUTPUT_BYTES` of result, no access to anything but the
scope, no calls beyond the pure ones in `expression_syntax.py`.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, cast

from minijinja import Environment, TemplateError
from pydantic import JsonValue

from paracle_domain.errors import ExpressionFailed, quote
from paracle_domain.expression_syntax import FILTERS, FUNCTIONS, Code, Path, guarded, paths, read_template, words

FUEL: Final = 100_000
MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
STEP_FIELDS: Final = frozenset({"output", "status", "error"})
ROOTS: Final = frozenset({"input", "steps", "run"})
LOCALS: Final = frozenset({"item", "index", "iteration", "last", "output"})
"""Names that only some expressions see: those of a map's or loop's work."""
_STEPS: Final = frozenset({"steps"})
_FUEL_STEP_CHARS: Final = 1_024
_MAX_DEPTH: Final = 200


@dataclass(frozen=True, slots=True)
class Template:
    """A string of a manifest, read once: how it is evaluated and what it names."""

    source: str
    expression: str | None
    """The text between `{{` and `}}` if that is all there is: then the result is a JSON value."""
    path: Path | None
    """The path that is the whole expression, looked up without minijinja."""
    required: tuple[Path, ...]
    """Paths that must be there before anything is evaluated."""
    names: frozenset[str]
    """What it takes from its scope, at the top: `input`, `steps`, …"""
    steps: frozenset[str]


def evaluate(template: JsonValue, scope: Mapping[str, Any]) -> JsonValue:
    """`template` with every expression in it replaced by its value in `scope`; lists and objects are gone through.

    Raises
    ------
    ExpressionFailed
        If an expression does not parse, names something absent, runs out of fuel, or gives too much or no JSON value.
        Its `path` leads to the string within `template`.
    """
    return compiled(template)(scope)


type Evaluator = Callable[[Mapping[str, Any]], JsonValue]


def compiled(template: JsonValue) -> Evaluator:
    """`template` made ready to be evaluated often, see `evaluate`; parts without code are given as they are.

    Raises
    ------
    ExpressionFailed
        If an expression does not parse.
    """
    if not any(True for _ in texts(template)):
        return lambda _: template
    match template:
        case str():
            return _compiled_text(template)
        case dict():
            fields = [(key, compiled(value)) for key, value in template.items()]
            return lambda scope: {key: _below(key, part, scope) for key, part in fields}
        case _:
            items = [compiled(value) for value in cast("list[JsonValue]", template)]
            return lambda scope: [_below(index, part, scope) for index, part in enumerate(items)]


def _compiled_text(text: str) -> Evaluator:
    template = read(text)
    if template.expression is None:
        return lambda scope: _text(template, scope)
    return lambda scope: _value(template, scope)


def truth(expression: str, scope: Mapping[str, Any]) -> bool:
    """Whether `expression` (with or without `{{ }}`) holds in `scope`; empty values do not, as in Python."""
    return bool(compiled_condition(expression)(scope))


def compiled_condition(expression: str) -> Evaluator:
    """`expression` made ready to be evaluated often, see `truth`."""
    template = read_condition(expression)
    return lambda scope: bool(_value(template, scope))


def references(template: JsonValue) -> set[str]:
    """Ids of the steps that `template` names.

    Raises
    ------
    ExpressionFailed
        If an expression does not parse, or picks a step by a computed name.
    """
    return {step for _, text in texts(template) for step in read(text).steps}


def check(template: JsonValue, names: frozenset[str] = ROOTS) -> None:
    """Raise `ExpressionFailed` if an expression in `template` does not parse or uses what is not available.

    `names` are what its scope will hold.
    """
    for _, text in texts(template):
        check_names(read(text), names)


def check_names(template: Template, names: frozenset[str] = ROOTS) -> None:
    unknown = sorted(template.names - names)
    if unknown:
        raise ExpressionFailed(
            f"`{unknown[0]}` in {quote(template.source)} is unknown; there are {', '.join(sorted(names))}"
            " (text stands in quotes)"
        )
    _check_end(template.source)


@lru_cache(maxsize=8_192)
def _check_end(source: str) -> None:
    """Refuse what takes or gives too much although its scope is empty: a loop over constants that no run can afford.

    Whether an expression ends with the values that it will be given cannot be seen from it; and that it fails without
    them says nothing.
    """
    _meter.spent = 0
    try:
        with suppress(TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            _environment(_fuel(source), undefined="chainable").render_str(source)
    except TemplateError as error:
        if error.kind == "OutOfFuel":
            raise ExpressionFailed(_explain(error, source)) from None


def texts(template: JsonValue, at: str = "") -> Iterable[tuple[str, str]]:
    """Every string in `template` that holds code, with its path (`items[0].text`) below `at`."""
    match template:
        case str() if has_code(template):
            yield at, template
        case dict():
            for key, value in template.items():
                yield from texts(value, f"{at}.{key}" if at else key)
        case list():
            for index, value in enumerate(template):
                yield from texts(value, f"{at}[{index}]")
        case _:
            pass


def has_code(text: str) -> bool:
    return "{{" in text or "{%" in text


@lru_cache(maxsize=8_192)
def read(text: str) -> Template:
    """`text` taken apart and checked. Texts are few and seen often, so this is remembered."""
    codes = read_template(text)
    names = _undeclared(text)
    first = codes[0] if codes else None
    whole = first is not None and not first.block and not text[: first.start].strip() and not text[first.end :].strip()
    found = [(path, code) for code in codes for path in paths(code, ROOTS | LOCALS)]
    free = not any(code.block or guarded(code.tokens) for code in codes)
    return Template(
        source=text,
        expression=first.source if first and whole else None,
        path=found[0][0] if whole and found and found[0][0].whole else None,
        required=tuple(path for path, _ in found) if free else (),
        names=names,
        steps=frozenset(_named_steps(codes)),
    )


@lru_cache(maxsize=8_192)
def read_condition(expression: str) -> Template:
    """A `when`: one expression, its braces optional."""
    template = read(expression if has_code(expression) else f"{{{{ {expression} }}}}")
    if template.expression is None:
        raise ExpressionFailed(
            f"{quote(expression)} is text, not a condition; write one expression, such as `a == 'b'`"
        )
    return template


def render(template: str, scope: Mapping[str, Any]) -> str:
    """`template` as text, also if it is a single expression."""
    if not has_code(template):
        return template
    return _text(read(template), scope)


def _text(template: Template, scope: Mapping[str, Any]) -> str:
    for path in template.required:
        _look_up(path, scope)
    return str(_run(template, scope, native=False))


def _below(part: str | int, evaluator: Evaluator, scope: Mapping[str, Any]) -> JsonValue:
    try:
        return evaluator(scope)
    except ExpressionFailed as error:
        step = f"[{part}]" if isinstance(part, int) else part
        rest = error.path or ""
        error.path = step + (rest if not rest or rest.startswith("[") else f".{rest}")
        raise


def _value(template: Template, scope: Mapping[str, Any]) -> JsonValue:
    if template.path is not None:
        return cast("JsonValue", _look_up(template.path, scope))
    for path in template.required:
        _look_up(path, scope)
    value = _run(template, scope, native=True)
    if value is None:
        _run(template, scope, native=False)  # the native way takes what is undefined for null; the textual way names it
    return _as_json(value, template.source)


def _named_steps(codes: tuple[Code, ...]) -> Iterable[str]:
    for code in codes:
        for path in paths(code, _STEPS):
            if len(path.parts) < 2 or not isinstance(path.parts[1], str):
                raise ExpressionFailed(
                    f"{quote(code.source)} picks a step by a computed name; write it out, as in `steps.NAME.output`"
                )
            if len(path.parts) > 2 and path.parts[2] not in STEP_FIELDS:
                raise ExpressionFailed(
                    f"`{path}`: a step has output, status and error; did you mean `steps.{path.parts[1]}.output."
                    f"{path.parts[2]}`?"
                )
            yield path.parts[1]


def _look_up(path: Path, scope: Mapping[str, Any]) -> Any:
    value: Any = scope
    for depth, part in enumerate(path.parts):
        match value:
            case dict() | Mapping() if part in value:  # `dict` first: asking an abstract class takes longer
                value = value[part]
            case list() | tuple() if isinstance(part, int) and part < len(value):
                value = value[part]
            case _:
                raise ExpressionFailed(_missing(path, depth, value))
    return value


def _missing(path: Path, depth: int, value: object) -> str:
    name = Path(path.parts[: depth + 1], whole=True)
    holder = Path(path.parts[:depth], whole=True) if depth else None
    match value:
        case Mapping() if value:
            there = f"there {'is' if len(value) == 1 else 'are'} {quote(', '.join(map(str, value)))}"
        case list() | tuple():
            there = f"`{holder}` has {len(value)} items"
        case _:
            there = f"`{holder}` is {_kind(value)}"
    return f"`{name}` is undefined; {there} (write `| default(…)` if it may be absent)"


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case _:
            return "empty"


def _run(template: Template, scope: Mapping[str, Any], *, native: bool) -> Any:
    """What minijinja makes of `template`; its errors as ours."""
    _meter.spent = 0
    source = template.source
    environment = _environment(_fuel(source))
    try:
        if native:
            return environment.eval_expr(cast("str", template.expression), **scope)
        return environment.render_str(source, **scope)
    except TemplateError as error:
        raise ExpressionFailed(_explain(error, source)) from None  # its text would quote the values of the scope
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ExpressionFailed(f"{quote(source)}: {error}") from error


def _undeclared(source: str) -> frozenset[str]:
    """Names that `source` takes from its scope; parsing it finds its syntax errors."""
    environment = _environment(0)
    try:
        environment.render_str(source)  # without fuel: it is parsed and not run
    except TemplateError as error:
        if error.kind == "SyntaxError":
            raise ExpressionFailed(_explain(error, source)) from None
    return frozenset(environment.undeclared_variables_in_str(source)) - FUNCTIONS


def _explain(error: TemplateError, source: str) -> str:
    match error.kind:
        case "OutOfFuel":
            return f"{quote(source)} ran out of fuel: it takes more than {_fuel(source):,} instructions"
        case "UndefinedError":
            return f"{error.detail or 'something'} in {quote(source)} (write `| default(…)` if it may be absent)"
        case "SyntaxError":
            return f"syntax error in {quote(source)}: {error.detail}"
        case _:
            return f"{quote(source)}: {error.detail or error.message}"


def _fuel(source: str) -> int:
    """Less for a longer template, so that text within a loop cannot fill the memory."""
    return FUEL // (1 + len(source) // _FUEL_STEP_CHARS)


@lru_cache(maxsize=128)
def _environment(fuel: int, undefined: Literal["strict", "chainable"] = "strict") -> Environment:
    made = Environment(undefined_behavior=undefined, fuel=fuel, finalizer=_emit, debug=True, keep_trailing_newline=True)
    for name in _BUILT_IN_FILTERS - FILTERS:
        made.remove_filter(name)
    for name in _BUILT_IN_FUNCTIONS:
        made.remove_global(name)
    made.add_filter("join", _join)
    made.add_filter("replace", _replace)
    made.add_filter("tojson", _to_json)
    return made


_BUILT_IN_FUNCTIONS: Final = ("debug", "dict", "namespace", "cycler", "joiner", "lipsum", "randrange", "now")
_BUILT_IN_FILTERS: Final = words(
    "attr batch center chain dateformat datetimeformat e escape filesizeformat format indent pluralize pprint random "
    "safe slice spaceless striptags timeformat urlize wordcount wordwrap zip"
)


class _Meter(threading.local):
    """Bytes that the present evaluation has produced."""

    spent: int = 0

    def charge(self, amount: int) -> None:
        self.spent += amount
        if self.spent > MAX_OUTPUT_BYTES:
            raise ExpressionFailed(f"the result is larger than {MAX_OUTPUT_BYTES:,} bytes")


_meter: Final = _Meter()


def _emit(value: object) -> str:
    text = value if isinstance(value, str) else _to_json(value, charge=False)
    _meter.charge(len(text))
    return text


def _to_json(value: object, indent: int | None = None, *, charge: bool = True) -> str:
    try:
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, indent=None if indent is None else min(max(indent, 0), 8)
        )
    except (TypeError, ValueError) as error:
        raise ExpressionFailed(f"no JSON value: {error}") from error
    if charge:
        _meter.charge(len(text))
    return text


def _join(value: Iterable[object], separator: str = "", attribute: str | None = None) -> str:
    items = (item if attribute is None else cast("Mapping[str, object]", item)[attribute] for item in value)
    parts: list[str] = []
    for item in items:
        part = item if isinstance(item, str) else _to_json(item, charge=False)
        _meter.charge(len(part) + len(separator))
        parts.append(part)
    return separator.join(parts)


def _replace(value: str, old: str, new: str) -> str:
    _meter.charge(len(value) + value.count(old) * len(new))
    return value.replace(old, new)


def _as_json(value: object, source: str) -> JsonValue:
    """`value`, checked to be JSON and of bearable size."""
    try:
        return _copy_json(value, 0)
    except ExpressionFailed as error:
        raise ExpressionFailed(f"{quote(source)}: {error.message}") from error


def _copy_json(value: object, depth: int) -> JsonValue:
    _meter.charge(8)
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            _meter.charge(len(value))
            return str(value)
        case list() | tuple() if depth < _MAX_DEPTH:
            return [_copy_json(item, depth + 1) for item in value]
        case dict() if depth < _MAX_DEPTH:
            return {_key(key): _copy_json(item, depth + 1) for key, item in value.items()}
        case _:
            raise ExpressionFailed(f"{quote(value)} is no JSON value")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ExpressionFailed(f"{quote(key)} cannot be the name of a field; names are text")
    _meter.charge(len(key))
    return key
