"""What an expression may say: its tokens, the rules that keep it bounded and pure, and the paths that it names.

minijinja evaluates (`expressions.py`); this module reads the same text beforehand. Its fuel bounds loops but neither
memory nor what a method of a Python value does, so whatever could grow without bound or change a value is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, override

from paracle_domain.errors import ExpressionFailed, quote

MAX_TEMPLATE_CHARS: Final = 65_536
MAX_JOINING_OPERATORS: Final = 64

BLOCKS: Final = frozenset({"for", "endfor", "if", "elif", "else", "endif"})
FUNCTIONS: Final = frozenset({"range"})


def words(text: str) -> frozenset[str]:
    """The words of `text`, as a set of names."""
    return frozenset(text.split())


METHODS: Final = words(
    "items keys values get upper lower strip lstrip rstrip split splitlines startswith endswith title capitalize "
    "count find isdigit"
)
FILTERS: Final = words(
    "abs bool capitalize count d default dictsort first float groupby int items join last length lines list lower map "
    "max min reject rejectattr replace reverse round select selectattr sort split string sum title tojson trim "
    "truncate unique upper urlencode"
)
_KEYWORDS: Final = words("and or not in is if else elif for true false none True False None")
_ARITHMETIC: Final = words("+ - * / // % **")
_SEPARATORS: Final = words("~ , : = == != < > <= >=")
_OPEN: Final = words("( [ {")
_SHUT: Final = words(") ] }")
_TO_NUMBER: Final = words("int float length count abs round")
_GUARDS: Final = frozenset({"and", "or", "is", "if", "for", "default", "d"})

_OPENINGS: Final = re.compile(r"\{\{|\{%|\{#")
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>\d[\w.]*)
      | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<op>\*\*|//|==|!=|<=|>=|[-+*/%~|.,:()\[\]{}<>=])
    )""",
    re.VERBOSE | re.DOTALL,
)
_CLOSE: Final = {"{{": re.compile(r"\s*[-+]?\}\}"), "{%": re.compile(r"\s*[-+]?%\}")}

type TokenKind = Literal["name", "number", "string", "op"]


class Token(NamedTuple):
    kind: TokenKind
    text: str


class Path(NamedTuple):
    """A place in the scope that an expression names: `("steps", "a", "output")`; list places are integers."""

    parts: tuple[str | int, ...]
    whole: bool
    """Whether the path is all that the expression consists of."""

    @override
    def __str__(self) -> str:
        root, *rest = self.parts
        return str(root) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)


@dataclass(frozen=True, slots=True)
class Code:
    """One `{{ … }}` (`block` is false) or `{% … %}` of a template, and where it stands."""

    source: str
    tokens: tuple[Token, ...]
    block: bool
    start: int
    end: int


def read_template(text: str) -> tuple[Code, ...]:
    """The code parts of `text`, in order.

    Raises
    ------
    ExpressionFailed
        If a part is not closed, has characters that mean nothing, breaks a rule, or `text` is too long.
    """
    if len(text) > MAX_TEMPLATE_CHARS:
        raise ExpressionFailed(f"a template of {len(text):,} characters; at most {MAX_TEMPLATE_CHARS:,} are allowed")
    found = []
    at = 0
    while opening := _OPENINGS.search(text, at):
        if opening.group() == "{#":
            at = text.find("#}", opening.end()) + 2
            if at == 1:
                raise ExpressionFailed(f"comment opened at {quote(text[opening.start() :])} is not closed with `#}}`")
            continue
        code = _read_code(text, opening.start(), opening.group())
        check_rules(code)
        found.append(code)
        at = code.end
    return tuple(found)


def _read_code(text: str, start: int, opening: str) -> Code:
    tokens: list[Token] = []
    body = at = start + 3 if text[start + 2 : start + 3] in {"-", "+"} else start + 2
    braces = 0
    while True:
        closing = _CLOSE[opening].match(text, at)
        if closing and braces == 0:
            return Code(text[body:at].strip(), tuple(tokens), opening == "{%", start, closing.end())
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionFailed(_unreadable(text, start, at, opening))
        token = Token(match.lastgroup, match.group(match.lastgroup))  # type: ignore[arg-type]  # the groups' names are the kinds
        braces += {"{": 1, "}": -1}.get(token.text, 0)
        tokens.append(token)
        at = match.end()


def _unreadable(text: str, start: int, at: int, opening: str) -> str:
    rest = text[at:].lstrip()
    if not rest:
        return f"{quote(text[start:])} is not closed with `{'}}' if opening == '{{' else '%}'}`"
    return f"syntax error: unexpected {quote(rest[:20])} in {quote(text[start : at + 20])}"


def check_rules(code: Code) -> None:
    """Refuse what could grow without bound or has an effect; see the module."""
    tokens = code.tokens
    if code.block and (not tokens or tokens[0].text not in BLOCKS):
        tag = tokens[0].text if tokens else ""
        raise ExpressionFailed(f"`{{% {tag} %}}` is not available; the statements are {', '.join(sorted(BLOCKS))}")
    operators = [token.text for token in tokens if token.kind == "op"]
    if operators.count("~") + operators.count("+") > MAX_JOINING_OPERATORS:
        raise ExpressionFailed(
            f"{quote(code.source)} is too long: at most {MAX_JOINING_OPERATORS} of `~` and `+` in one expression;"
            " split it over several steps"
        )
    for index, token in enumerate(tokens):
        if token == ("op", "*") and not _numeric(_span(tokens, index)):
            raise ExpressionFailed(
                f"`*` in {quote(code.source)} could repeat text or a list without bound; let all that stands beside"
                " it be numbers, as in `(input.n | int) * 2`"
            )
        if token.text == "(" and token.kind == "op" and index:
            _check_call(tokens, index, first=1 if code.block else 0)
        if token.text == "|" and token.kind == "op":
            _check_filter(tokens[index + 1 : index + 2])
        if token.kind == "name" and token.text in FUNCTIONS and not _is_field(tokens, index):
            _check_called(tokens, index)


def _span(tokens: Sequence[Token], index: int) -> Sequence[Token]:
    """The arithmetic around the operator at `index`: up to what ends an operand on either side."""
    start = end = index
    depth = 0
    while start > 0 and not (depth == 0 and _bounds(tokens[start - 1], _OPEN)):
        depth += _depth(tokens[start - 1], inward=_SHUT, outward=_OPEN)
        start -= 1
    while end + 1 < len(tokens) and not (depth == 0 and _bounds(tokens[end + 1], _SHUT)):
        depth += _depth(tokens[end + 1], inward=_OPEN, outward=_SHUT)
        end += 1
    return tokens[start : end + 1]


def _depth(token: Token, *, inward: frozenset[str], outward: frozenset[str]) -> int:
    return int(token.kind == "op" and token.text in inward) - int(token.kind == "op" and token.text in outward)


def _bounds(token: Token, brackets: frozenset[str]) -> bool:
    if token.kind == "name":
        return token.text in _KEYWORDS
    return token.kind == "op" and (token.text in brackets or token.text in _SEPARATORS)


def _numeric(tokens: Sequence[Token]) -> bool:
    """Whether arithmetic is of numbers only, by what is written: literals, and what a filter makes a number."""
    terms: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += _depth(token, inward=_OPEN, outward=_SHUT)
        if depth == 0 and token.kind == "op" and token.text in _ARITHMETIC:
            terms.append([])
        else:
            terms[-1].append(token)
    return all(_is_number(term) for term in terms if term)


def _is_number(term: Sequence[Token]) -> bool:
    if len(term) == 1:
        return term[0].kind == "number"
    if term[-1] == ("op", ")"):
        opened = _opening(term)
        if opened == 0:
            return _numeric(term[1:-1])
        term = term[:opened]
    return len(term) > 2 and term[-2] == ("op", "|") and term[-1].text in _TO_NUMBER


def _opening(term: Sequence[Token]) -> int:
    """Where the bracket opens that the last token closes: at 0 if nowhere else."""
    depth = 0
    for index in range(len(term) - 1, 0, -1):
        depth += _depth(term[index], inward=_SHUT, outward=_OPEN)
        if depth == 0:
            return index
    return 0


def _check_call(tokens: Sequence[Token], index: int, first: int) -> None:
    """Whether what stands before the `(` at `index` may be called."""
    before = tokens[index - 1]
    if before.text in {")", "]"} or before.kind in {"string", "number"}:
        raise ExpressionFailed("only functions, filters and text methods can be called, and only by their name")
    if before.kind != "name" or before.text in _KEYWORDS or index - 1 < first:
        return
    sign = tokens[index - 2].text if index >= 2 else ""
    if sign in {"|", "is"} or (sign == "not" and index >= 3 and tokens[index - 3].text == "is"):
        return
    if sign == ".":
        _check_name(before.text, METHODS, "method")
    else:
        _check_name(before.text, FUNCTIONS, "function")


def _check_called(tokens: Sequence[Token], index: int) -> None:
    if tokens[index + 1 : index + 2] != (("op", "("),):
        name = tokens[index].text
        raise ExpressionFailed(f"`{name}` is a function, not a value; call it, as in `{name}(3)`")


def _check_filter(following: Sequence[Token]) -> None:
    if following and following[0].kind == "name":
        _check_name(following[0].text, FILTERS, "filter")


def _check_name(name: str, known: frozenset[str], what: str) -> None:
    if name not in known:
        raise ExpressionFailed(f"{what} {name!r} is not available; available: {', '.join(sorted(known))}")


def guarded(tokens: Sequence[Token]) -> bool:
    """Whether the expression says itself what holds where something is absent."""
    return any(token.kind == "name" and token.text in _GUARDS for token in tokens)


def paths(code: Code, roots: frozenset[str]) -> Iterator[Path]:
    """Every path in `code` that begins with one of `roots`, as far as it is written out."""
    tokens = code.tokens
    for index, token in enumerate(tokens):
        if token.kind != "name" or token.text not in roots or _is_field(tokens, index):
            continue
        parts, end = _follow(tokens, index)
        yield Path(tuple(parts), whole=index == 0 and end == len(tokens) and not code.block)


def _is_field(tokens: Sequence[Token], index: int) -> bool:
    """Whether the name at `index` is a field (`x.input`) or the name of an argument (`input=1`)."""
    after_dot = index > 0 and tokens[index - 1] == ("op", ".")
    return after_dot or tokens[index + 1 : index + 2] == (("op", "="),)


def _follow(tokens: Sequence[Token], index: int) -> tuple[list[str | int], int]:
    """The parts of the path that begins at `index`, and the index after it."""
    parts: list[str | int] = [tokens[index].text]
    at = index + 1
    while (step := _next_part(tokens, at)) is not None:
        part, width = step
        parts.append(part)
        at += width
    return parts, at


def _next_part(tokens: Sequence[Token], at: int) -> tuple[str | int, int] | None:
    match tokens[at : at + 3]:
        case (("op", "."), ("name", name), ("op", "(")):
            return None
        case (("op", "."), ("name" | "number", name), *_):
            return (int(name) if name.isdigit() else name), 2
        case (("op", "["), ("string", text), ("op", "]")) if "\\" not in text:
            return text[1:-1], 3
        case (("op", "["), ("number", number), ("op", "]")) if number.isdigit():
            return int(number), 3
        case _:
            return None
