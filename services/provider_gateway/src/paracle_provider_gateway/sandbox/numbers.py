"""Numbers that fit a schema."""

from __future__ import annotations

import math
from fractions import Fraction

from paracle_domain.messages import JsonObject


def fit_integer(wanted: int, schema: JsonObject) -> int:
    """The integer next to `wanted` that `schema` allows; the lowest allowed one if its bounds leave no other."""
    step = max(1, math.ceil(_exact(schema, "multipleOf") or 1))
    least, most = _least(schema), _most(schema)
    low = None if least is None else math.ceil(least / step) * step
    high = None if most is None else math.floor(most / step) * step
    return int(_within(Fraction(round(Fraction(wanted, step)) * step), _fraction(low), _fraction(high)))


def fit_number(wanted: float, schema: JsonObject) -> float:
    """The number next to `wanted` that `schema` allows."""
    step = _exact(schema, "multipleOf")
    if step is not None:
        return float(fit_integer(round(wanted), {**schema, "multipleOf": math.ceil(step)}))
    low, high = _exact(schema, "minimum"), _exact(schema, "maximum")
    above, below = _exact(schema, "exclusiveMinimum"), _exact(schema, "exclusiveMaximum")
    if above is not None and (low is None or above >= low):
        low = (above + below) / 2 if below is not None else above + 1 if high is None else (above + high) / 2
    if below is not None and (high is None or below <= high):
        high = (below + low) / 2 if low is not None else below - 1
    found = float(_within(Fraction(wanted), low, high))
    return int(found) if found.is_integer() else found


def _least(schema: JsonObject) -> Fraction | None:
    """The lowest integer."""
    low, above = _exact(schema, "minimum"), _exact(schema, "exclusiveMinimum")
    bounds = [Fraction(math.ceil(low))] if low is not None else []
    bounds += [Fraction(math.floor(above) + 1)] if above is not None else []
    return max(bounds, default=None)


def _most(schema: JsonObject) -> Fraction | None:
    """The highest integer."""
    high, below = _exact(schema, "maximum"), _exact(schema, "exclusiveMaximum")
    bounds = [Fraction(math.floor(high))] if high is not None else []
    bounds += [Fraction(math.ceil(below) - 1)] if below is not None else []
    return min(bounds, default=None)


def _within(wanted: Fraction, low: Fraction | None, high: Fraction | None) -> Fraction:
    if high is not None:
        wanted = min(wanted, high)
    return wanted if low is None else max(wanted, low)


def _fraction(value: int | None) -> Fraction | None:
    return None if value is None else Fraction(value)


def _exact(schema: JsonObject, name: str) -> Fraction | None:
    value = schema.get(name)
    return Fraction(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
