"""Which tools to call next: those whose arguments the conversation holds, each call once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from paracle_domain.inference.chat import NamedTool, ToolCallPart, ToolDefinition
from paracle_domain.inference.request import Complete
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.sandbox.classify import name_words
from paracle_provider_gateway.sandbox.fields import lookup, same_field
from paracle_provider_gateway.sandbox.reading import Matter, Reading, Record, leaves
from paracle_provider_gateway.sandbox.strings import FOUND_AS
from paracle_provider_gateway.sandbox.synthesis import Synthesis

_AT_ONCE: Final = 16
_ROUNDS: Final = 4
_CHANGING: Final = frozenset(
    {
        "send",
        "delete",
        "remove",
        "create",
        "update",
        "write",
        "post",
        "put",
        "refund",
        "pay",
        "cancel",
        "notify",
        "book",
    }
)
_ASKING: Final = frozenset(
    {"query", "q", "question", "search", "text", "prompt", "input", "message", "content", "topic"}
)
_WITHIN: Final = frozenset({"folder", "directory", "dir", "root"})
_PATH_NAMES: Final = frozenset({"path", "file", "filename", "filepath"})
_PATH: Final = re.compile(
    r"(?<![\w/:.])(?:\.{0,2}/)?(?:[\w-]+/)*[\w-]+\.[A-Za-z]{1,5}(?![\w/])|(?<![\w/:])[\w.-]*(?:/[\w.-]+)+/?"
)
_IDENTIFIER: Final = re.compile(r"(?<![\w-])[A-Za-z]{1,10}[-_#]?\d+(?![\w-])")
_NUMBER: Final = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")


def next_calls(request: Complete, reading: Reading) -> list[ToolCallPart]:
    """The calls to make now; empty once everything that can be asked has been."""
    if not request.tools or request.tool_choice == "none":
        return []
    made = {_signature(call.name, call.arguments) for call in reading.calls}
    if _rounds(request) >= _ROUNDS:
        return []
    offered = _offered(request)
    found: list[tuple[str, JsonObject]] = []
    for tool in offered:
        for arguments in _argument_sets(tool, reading, forced=_forced(request) and not made):
            if (signature := _signature(tool.name, arguments)) not in made:
                made.add(signature)
                found.append((tool.name, arguments))
    return [
        ToolCallPart(id=f"{request.call_id}.{number}", name=name, arguments=arguments)
        for number, (name, arguments) in enumerate(found[:_AT_ONCE], start=len(reading.calls))
    ]


def _offered(request: Complete) -> Sequence[ToolDefinition]:
    if isinstance(request.tool_choice, NamedTool):
        return [tool for tool in request.tools if tool.name == request.tool_choice.name]
    return request.tools


def _forced(request: Complete) -> bool:
    return request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)


def _rounds(request: Complete) -> int:
    return sum(1 for message in request.messages if message.tool_calls)


def _signature(name: str, arguments: JsonObject) -> str:
    return f"{name} {json.dumps(arguments, sort_keys=True)}"


def _argument_sets(tool: ToolDefinition, reading: Reading, *, forced: bool) -> Iterator[JsonObject]:
    """Arguments for each independent thing that `tool` can be asked about."""
    if not forced and not _welcome(tool, reading):
        return
    properties = _properties(tool)
    required = [name for name in _names(tool.input_schema.get("required")) if name in properties]
    maker = Synthesis(tool.input_schema)
    if not required:
        optional = {name: found[0] for name in properties if (found := _named(maker, tool, name, reading))}
        yield optional
        return
    key = max(required, key=lambda name: len(_candidates(maker, tool, name, reading)))
    for candidate in _candidates(maker, tool, key, reading) or ([None] if forced else []):
        arguments = _complete(maker, tool, reading, key, candidate, forced=forced)
        if arguments is not None and maker.valid(arguments, tool.input_schema):
            yield arguments


def _complete(
    maker: Synthesis, tool: ToolDefinition, reading: Reading, key: str, candidate: Any, *, forced: bool
) -> JsonObject | None:
    """All arguments of the call about `candidate`; `None` if a required one cannot be found."""
    properties = _properties(tool)
    required = _names(tool.input_schema.get("required"))
    about = _matter_of(candidate, key, reading)
    found: JsonObject = {} if candidate is None else {key: candidate}
    for name in properties:
        if name in found:
            continue
        schema = properties[name]
        own = next(lookup(about.record, name, partial(_fits, maker, schema)), None)
        known = own if own is not None else next(iter(_candidates(maker, tool, name, reading)), None)
        if known is not None and (name in required or own is not None or _asks(name, properties[name])):
            found[name] = known
        elif name in required:
            if not forced and not _made_up(properties[name]):
                return None
            found[name] = maker.value(properties[name], about, name)
    return found


def _welcome(tool: ToolDefinition, reading: Reading) -> bool:
    """Whether calling `tool` is in order: one that changes something only if the conversation speaks of it."""
    words = name_words(tool.name)
    if not words & _CHANGING:
        return True
    said = f"{reading.instructions}\n{reading.request}".casefold()
    return any(word in said for word in words & _CHANGING)


def _candidates(maker: Synthesis, tool: ToolDefinition, name: str, reading: Reading) -> list[Any]:
    """Values for the argument `name`: from fields of such a name, or else by what its values look like."""
    named = _named(maker, tool, name, reading)
    if named:
        return named
    schema = _properties(tool)[name]
    return _distinct(value for value in _looking_like(tool, name, schema, reading) if maker.valid(value, schema))


def _named(maker: Synthesis, tool: ToolDefinition, name: str, reading: Reading) -> list[Any]:
    schema = _properties(tool)[name]
    found = (
        value
        for document in reading.documents
        for key, value in leaves(document)
        if value not in (None, "") and same_field(name, key) and maker.valid(value, schema)
    )
    return _distinct(found)


def _looking_like(tool: ToolDefinition, name: str, schema: Any, reading: Reading) -> Iterator[Any]:
    flat = schema if isinstance(schema, dict) else {}
    kind, words, text = flat.get("type"), name_words(name), reading.request
    if "enum" in flat or "const" in flat or kind == "boolean":
        yield Synthesis(flat).value(flat, reading.matter, name)
    elif kind in {"integer", "number"}:
        yield from (float(n) if "." in n else int(n) for n in _NUMBER.findall(text))
    elif flat.get("format") in FOUND_AS:
        yield from FOUND_AS[flat["format"]].findall(text)
    elif words & (_WITHIN | _PATH_NAMES):
        yield from _paths(text, reading, folders=bool(words & _WITHIN or name_words(tool.name) & {"list", *_WITHIN}))
    elif words & {"url", "uri", "link"}:
        yield from FOUND_AS["uri"].findall(text)
    elif words & {"email"}:
        yield from FOUND_AS["email"].findall(text)
    elif words & {"id", "identifier", "number", "key"}:
        yield from _IDENTIFIER.findall(text)
    elif words & _ASKING:
        yield reading.matter.words.strip() or text


def _paths(text: str, reading: Reading, *, folders: bool) -> Iterator[str]:
    texts = [
        text,
        *(value for document in reading.documents for _, value in leaves(document) if isinstance(value, str)),
    ]
    found = [path for one in texts if len(one) < 10_000 for path in _PATH.findall(one)]
    for path in found:
        is_file = re.search(r"\.[A-Za-z]{1,5}$", path) is not None
        if is_file != folders:
            yield path


def _matter_of(candidate: Any, key: str, reading: Reading) -> Matter:
    """The record that `candidate` is from; the whole conversation if it is from none."""
    for record in reading.records:
        if candidate is not None and any(found == candidate for found in lookup(record, key, lambda _: True)):
            return Matter.of(record)
    return reading.matter


def _made_up(schema: Any) -> bool:
    """Whether a value may be made up: there is a choice to make, or something to retell, but nothing to know."""
    return isinstance(schema, dict) and (
        bool(schema.keys() & {"enum", "const", "default"}) or schema.get("type") == "boolean"
    )


def _fits(maker: Synthesis, schema: JsonObject, value: Any) -> bool:
    return maker.valid(value, schema)


def _asks(name: str, schema: Any) -> bool:
    return bool(name_words(name) & _ASKING) and isinstance(schema, dict) and schema.get("type") == "string"


def _properties(tool: ToolDefinition) -> Record:
    found = tool.input_schema.get("properties")
    return found if isinstance(found, dict) else {}


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _distinct(values: Iterator[Any]) -> list[Any]:
    return list({json.dumps(value): value for value in values}.values())
