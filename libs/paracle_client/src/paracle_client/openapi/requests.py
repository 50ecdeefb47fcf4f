"""What an operation takes: its parameters and its body, as one schema of arguments and the places that they fill."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from paracle_client.openapi.document import Document, Inexpressible, mapping, names, objects
from paracle_client.openapi.schemas import SchemaReader

_KEY: Final = re.compile(r"(x-)?idempotency-?(key|token)", re.IGNORECASE)
_NOT_PARAMETERS: Final = frozenset({"accept", "content-type", "authorization"})
_PLAIN_BODY: Final = frozenset({"type", "properties", "required", "description", "title", "additionalProperties"})
_COMPOUND: Final = frozenset({"array", "object"})
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(slots=True)
class Arguments:
    """The arguments of a tool, and where each goes."""

    properties: dict[str, Any] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, Any] = field(default_factory=dict)
    key_header: str | None = None
    body: str | None = None
    body_type: str = "json"

    def add(self, name: str, place: str, schema: dict[str, Any], *, required: bool) -> str:
        """Take an argument in, under a name that is free and that a place in a URL can have."""
        argument = re.sub(r"\W", "_", name, flags=re.ASCII) or place
        argument = f"_{argument}" if argument[0].isdigit() else argument
        if argument in self.properties:
            argument = f"{place}_{argument}"
        while argument in self.properties:
            argument += "_"
        self.definitions.update(schema.pop("$defs", {}))
        self.properties[argument] = schema
        if required:
            self.required.append(argument)
        return argument

    def schema(self) -> dict[str, Any]:
        """The schema of all arguments."""
        found: dict[str, Any] = {"type": "object", "properties": self.properties}
        if self.required:
            found["required"] = self.required
        found["additionalProperties"] = False
        if self.definitions:
            found["$defs"] = self.definitions
        return found


def read_arguments(
    document: Document, item: dict[str, Any], operation: dict[str, Any], path: str, method: str
) -> Arguments:
    """The arguments of `operation`, which stands below the path `item`.

    Raises
    ------
    Inexpressible
        If it needs something that the HTTP backend cannot send.
    """
    arguments = Arguments()
    for parameter in _parameters(document, item, operation, path):
        _place(document, parameter, arguments, path)
    if "requestBody" in operation:
        _body(document, document.follow(operation["requestBody"], path), arguments, path, method)
    return arguments


def _parameters(document: Document, item: dict[str, Any], operation: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """Those of the path and of the operation, which overrule the former."""
    found = {}
    for holder in (item, operation):
        for one in objects(holder.get("parameters")):
            parameter = document.follow(one, f"{path}.parameters")
            found[str(parameter.get("name")), str(parameter.get("in"))] = parameter
    return list(found.values())


def _place(document: Document, parameter: dict[str, Any], arguments: Arguments, path: str) -> None:
    name, where = str(parameter.get("name")), str(parameter.get("in"))
    here = f"{path}.parameters[{name}]"
    required = parameter.get("required") is True or where == "path"
    if where == "header" and name.lower() in _NOT_PARAMETERS:
        return
    if where == "header" and _KEY.fullmatch(name):
        arguments.key_header = name
        return
    schema = SchemaReader(document, "request", here).read(parameter.get("schema", {}))
    why = _unsendable(parameter, where, schema)
    if why is not None:
        if required:
            raise Inexpressible(here, f"{why}, and is required")
        document.note(here, f"{why}; it is left out")
        return
    if "description" in parameter:
        schema["description"] = str(parameter["description"])
    argument = arguments.add(name, where, schema, required=required)
    if where == "path":
        arguments.places[name] = argument
    else:
        (arguments.query if where == "query" else arguments.headers)[name] = argument


def _unsendable(parameter: dict[str, Any], where: str, schema: dict[str, Any]) -> str | None:
    """Why the HTTP backend cannot send `parameter`; `None` if it can."""
    kinds = schema.get("type")
    compound = _COMPOUND & {*(kinds if isinstance(kinds, list) else [kinds])}
    style = parameter.get("style", "form" if where == "query" else "simple")
    if where not in {"path", "query", "header"}:
        return f"is a parameter in {where}, which tools cannot send"
    if "content" in parameter:
        return "has a media type of its own"
    if style != ("form" if where == "query" else "simple"):
        return f"has the style {style}"
    if "object" in compound or (compound and where != "query"):
        return f"is an {min(compound)} in a {where}"
    if compound and parameter.get("explode", True) is not True:
        return "is a list that is joined with commas"
    return None


def _body(document: Document, body: dict[str, Any], arguments: Arguments, path: str, method: str) -> None:
    here = f"{path}.requestBody"
    required = body.get("required") is True
    media = _media(mapping(body.get("content")))
    if media is None or method == "get":
        known = ", ".join(mapping(body.get("content"))) or "nothing"
        why = "a GET with a body" if method == "get" else f"takes {known}; tools send JSON and forms"
        if required:
            raise Inexpressible(here, why)
        document.note(here, f"{why}; it is left out")
        return
    kind, content = media
    arguments.body_type = "form" if kind == _FORM else "json"
    schema = SchemaReader(document, "request", here).read(content.get("schema", {}))
    if _is_flat(schema, arguments, required=required):
        arguments.definitions.update(schema.get("$defs", {}))
        arguments.properties.update(schema["properties"])
        arguments.required += names(schema.get("required"))
        return
    if "description" in body:
        schema.setdefault("description", str(body["description"]))
    arguments.body = arguments.add("body", "request", schema, required=required)


def _media(content: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The first kind of content that the HTTP backend can send: JSON, else a form."""
    kinds = {name.partition(";")[0].strip().lower(): mapping(value) for name, value in content.items()}
    best = [kind for kind in kinds if is_json(kind)] + [kind for kind in kinds if kind == _FORM]
    return (best[0], kinds[best[0]]) if best else None


def is_json(kind: str) -> bool:
    """Whether the media type `kind` is JSON's."""
    return kind == "application/json" or kind.endswith("+json") or kind == "*/*"


def _is_flat(schema: dict[str, Any], arguments: Arguments, *, required: bool) -> bool:
    """Whether the fields of the body can be arguments themselves, beside the parameters."""
    fields = schema.get("properties")
    return (
        schema.get("type") == "object"
        and isinstance(fields, dict)
        and bool(fields)
        and {*schema} <= _PLAIN_BODY | {"$defs"}
        and not schema.get("additionalProperties", False)
        and not {*fields} & {*arguments.properties}
        and (required or not schema.get("required"))
    )
