"""From a Python function to a tool: its types are the schemas, its docstring the description."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from paracle_client.worker.threads import Thread
from paracle_domain.errors import (
    InputInvalid,
    ParacleError,
    SpecInvalid,
    ToolFailed,
    ToolUnavailable,
    from_validation,
    quote,
)
from paracle_domain.tool.calls import SERVICE, ToolCall

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")

type EffectName = Literal["none", "idempotent", "at_most_once"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function as a tool: how it is called, and what its manifest says."""

    name: str
    description: str
    effect: EffectName
    timeout_s: float
    concurrency: int | None
    call: Callable[..., Any]
    arguments: type[BaseModel]
    result: TypeAdapter[Any]
    told: tuple[str, ...]
    probe: str | None = None
    what: str = "tool"
    service: str = SERVICE
    # Others may come from clients of Paracle that it uses, and say nothing of what it has done itself.
    meant: tuple[type[ParacleError], ...] = (InputInvalid, ToolFailed, ToolUnavailable)

    @property
    def manifest(self) -> dict[str, Any]:
        """The Tool that `paracle apply` takes."""
        spec: dict[str, Any] = {
            "description": self.description,
            "input": _plain(self.arguments.model_json_schema()),
            "output": self.result.json_schema(mode="serialization"),
            "backend": {"type": "nats", "tool": self.name},
            "permissions": {"workers": [self.name]},
            "effect": self.effect,
            "timeout_s": self.timeout_s,
        }
        if self.probe is not None:
            spec["probe"] = {"tool": self.probe}
        return {"apiVersion": "paracle/v1", "kind": "Tool", "metadata": {"name": self.name}, "spec": spec}

    async def answer(self, body: bytes, call: ToolCall, thread: Thread) -> bytes:
        """The result of calling it with the arguments in `body`, as JSON.

        A function that is no coroutine runs in `thread`, where nothing can stop it.

        Raises
        ------
        InputInvalid
            If the arguments are not what its types say.
        """
        try:
            read = self.arguments.model_validate_json(body or b"{}")
        except ValidationError as error:
            wrong = from_validation(error, f"tool {self.name!r}", root="arguments")
            raise InputInvalid(wrong.message, path=wrong.path, problems=wrong.problems) from error
        given: dict[str, Any] = {name: getattr(read, name) for name in type(read).model_fields}
        given |= dict.fromkeys(self.told, call)
        if inspect.iscoroutinefunction(self.call):
            found = await self.call(**given)
        else:
            found = await thread.run(partial(self.call, **given))
        return self.result.dump_json(found)


def function(
    call: Callable[..., Any],
    *,
    name: str | None,
    effect: EffectName,
    timeout_s: float,
    concurrency: int | None,
    probe: str | None = None,
) -> Function:
    """`call` as a tool.

    Raises
    ------
    SpecInvalid
        If it can be none: no docstring, an argument without a type or a name, a type that is no JSON.
    """
    named = name or call.__name__
    if not _NAME.fullmatch(named):
        message = f"{quote(named)} is no name of a tool: a letter, then up to 62 of a-z, 0-9, _ and -; give a `name`"
        raise SpecInvalid(message, path=named)
    description = inspect.getdoc(call)
    if not description:
        raise SpecInvalid(f"tool {named!r} has no docstring, and models and people need to know what it does")
    hints = get_type_hints(call, include_extras=True)
    told = tuple(one for one, hint in hints.items() if hint is ToolCall and one != "return")
    try:
        arguments = _arguments(call, named, hints, told)
        result = TypeAdapter(hints.get("return", Any))
        made = Function(named, description, effect, timeout_s, concurrency, call, arguments, result, told, probe)
        made.manifest  # noqa: B018  # so that a type without a schema is an error here and not when it is printed
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise SpecInvalid(f"tool {named!r} has a type that JSON cannot say: {error.message}") from error
    return made


def _arguments(call: Callable[..., Any], named: str, hints: dict[str, Any], told: tuple[str, ...]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(call).parameters.items():
        if name in told:
            continue
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise SpecInvalid(f"tool {named!r}: argument {name!r} has no name of its own (*args, **kwargs, /)")
        if name not in hints:
            raise SpecInvalid(f"tool {named!r}: argument {name!r} has no type")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    made: type[BaseModel] = create_model(named, __config__=ConfigDict(extra="forbid"), **fields)
    return made


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` without the titles that pydantic makes of names: models pay for every word."""
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    bare = {name: {key: value for key, value in one.items() if key != "title"} for name, one in properties.items()}
    return {key: value for key, value in schema.items() if key != "title"} | ({"properties": bare} if bare else {})
