"""Builtin functions that touch nothing: values in, values out."""

from __future__ import annotations

import ast
import asyncio
import math
import operator
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from pydantic import Field, JsonValue

from paracle_agent_runtime.tools.builtin.arguments import Arguments
from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.errors import InputInvalid, quote
from paracle_domain.messages import JsonObject

_SLEEP_MAX_S: Final = 3_600.0
_DIGITS_MAX: Final = 1_000

type Number = int | float


async def noop(arguments: JsonObject, _: Grants) -> JsonValue:
    """Its arguments, as they came."""
    return arguments


class _Sleep(Arguments):
    seconds: float = Field(ge=0, le=_SLEEP_MAX_S, allow_inf_nan=False)


async def sleep(arguments: JsonObject, _: Grants) -> JsonValue:
    """Wait for `seconds` (at most an hour, and no longer than the tool's timeout)."""
    seconds = _Sleep.take(arguments).seconds
    await asyncio.sleep(seconds)
    return {"slept_s": seconds}


class _Now(Arguments):
    pass


async def now(arguments: JsonObject, _: Grants) -> JsonValue:
    """The time, in UTC."""
    _Now.take(arguments)
    at = datetime.now(UTC)
    return {"utc": at.isoformat().replace("+00:00", "Z"), "unix_s": at.timestamp()}


class _Calculate(Arguments):
    expression: str = Field(min_length=1, max_length=1_000)


async def calculate(arguments: JsonObject, _: Grants) -> JsonValue:
    """The value of an arithmetic `expression`."""
    expression = _Calculate.take(arguments).expression
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        value = _value(tree.body)
        return {"value": _bounded(value)}
    except (SyntaxError, ArithmeticError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputInvalid(f"{quote(expression)} cannot be calculated: {error}", path="expression") from error


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        digits = abs(base).bit_length() * exponent * math.log10(2)
        if digits > _DIGITS_MAX:
            raise OverflowError(f"the result has more than {_DIGITS_MAX:,} digits")
    if base < 0 and not float(exponent).is_integer():
        raise ArithmeticError("the result is not a real number")
    result: Number = base**exponent
    return result


def _round(number: Number, digits: Number = 0) -> Number:
    """Python's, which takes hours for an integer and minus a billion digits."""
    return round(number, int(max(-_DIGITS_MAX, min(digits, _DIGITS_MAX))))


_BINARY: Final[dict[type[ast.operator], Callable[[Number, Number], Number]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_UNARY: Final[dict[type[ast.unaryop], Callable[[Number], Number]]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_NAMES: Final[dict[str, Number]] = {"pi": math.pi, "e": math.e}
_FUNCTIONS: Final[dict[str, Callable[..., Number]]] = {
    "abs": abs,
    "min": min,
    "max": max,
    "round": _round,
    "sqrt": math.sqrt,
    "log": math.log,
    "exp": math.exp,
    "floor": math.floor,
    "ceil": math.ceil,
}


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.BinOp(left, op, right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_value(left), _value(right)))
        case ast.UnaryOp(op, operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*[_value(arg) for arg in args]))
        case _:
            raise ValueError(f"{ast.unparse(node)} is no arithmetic")


def _bounded(value: Number) -> Number:
    if isinstance(value, int) and value.bit_length() > _DIGITS_MAX * 4:
        raise OverflowError(f"the result has more than {_DIGITS_MAX:,} digits")
    if isinstance(value, float) and not math.isfinite(value):
        raise OverflowError("the result is not a finite number")
    return value
