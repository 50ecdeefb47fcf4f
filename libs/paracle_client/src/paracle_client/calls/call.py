"""What a call is, and how what is given to it is said."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any, Literal
from urllib.parse import quote

from paracle_domain.dead_letters import DeadLetterFilter
from paracle_domain.ids import new_id
from paracle_domain.inference.ledger import UsageFilter
from paracle_domain.messages import Message
from paracle_domain.task.effects import EffectFilter


@dataclass(frozen=True, slots=True)
class Call[R: Message]:
    """One request. All of them may be sent again: starts, forks and signals carry an idempotency key."""

    method: str
    path: str
    answer: type[R]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    text: str | None = None
    patience_s: float | None = None

    @property
    def query(self) -> dict[str, Any]:
        """The parameters that were given."""
        return {name: value for name, value in self.params.items() if value is not None}


def as_method[M: Callable[..., Any]](method: M, call: Callable[..., Call[Any]]) -> M:
    """`method` of a client, named, signed and documented as the `call` that it makes."""
    signature = inspect.signature(call)
    oneself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    made = signature.replace(
        parameters=[oneself, *signature.parameters.values()],
        return_annotation=signature.return_annotation.removeprefix("Call[").removesuffix("]"),
    )
    update_wrapper(method, call)
    method.__signature__ = made  # type: ignore[attr-defined]  # what `inspect` and `help` look at
    return method


def chosen(which: DeadLetterFilter | EffectFilter | UsageFilter | None) -> dict[str, Any]:
    """What of a filter was given."""
    return {} if which is None else which.model_dump(mode="json", exclude_none=True)


def keyed(key: str | None, kind: Literal["msg", "run"] = "msg") -> dict[str, str]:
    """The key of the caller, or one of its own, so that sending it again does nothing twice.

    An empty key is sent as it is, and refused: whoever gives one believes to have one.
    """
    return {"idempotency-key": new_id(kind) if key is None else key}


def part_of(name: str) -> str:
    """`name` as one part of a path, whatever it holds."""
    return quote(name, safe="")
