"""Operations of an OpenAPI document as Tool manifests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from paracle_client.openapi.document import Document, Inexpressible, mapping, read_root
from paracle_client.openapi.requests import Arguments, is_json, read_arguments
from paracle_client.openapi.schemas import SchemaReader
from paracle_client.openapi.security import read_security
from paracle_domain.errors import Finding, SpecInvalid
from paracle_domain.manifest import API_VERSION, parse_document
from paracle_domain.messages import JsonObject

_METHODS: Final = ("get", "put", "post", "patch", "delete")
_OTHERS: Final = ("head", "options", "trace", "query")
_EFFECTS: Final = {"get": "none", "put": "idempotent", "delete": "idempotent"}
_DESCRIPTION: Final = 1_000
_NAME: Final = 63


@dataclass(frozen=True, slots=True)
class Imported:
    """Manifests of tools, and what could not be said in them."""

    manifests: tuple[JsonObject, ...]
    findings: tuple[Finding, ...]


def convert(value: Any, source: str, *, server: str | None = None, prefix: str = "") -> Imported:
    """A Tool for each operation of the OpenAPI document `value` that can be one.

    Parameters
    ----------
    value
        The document, as data.
    source
        What the document is called; its address, if it has one, to which servers may be relative.
    server
        The address to call instead of what the document says.
    prefix
        What the names of all tools begin with.

    Raises
    ------
    SpecInvalid
        If it is no OpenAPI 3 document.
    """
    document = read_root(value, source)
    manifests: dict[str, JsonObject] = {}
    for path, raw in mapping(document.root.get("paths")).items():
        try:
            item = document.follow(raw, f"paths.{path}")
        except Inexpressible as error:
            document.findings.append(error.finding)
            continue
        for method in _OTHERS:
            if method in item:
                document.note(f"paths.{path}.{method}", f"tools cannot call {method.upper()}; it is left out")
        for method in _METHODS:
            if method in item:
                _take(_Operation(document, path, method, item, server), manifests, prefix)
    if document.root.get("webhooks"):
        document.note("webhooks", "a webhook calls you, so it is no tool; a Trigger could be one")
    return Imported(tuple(manifests.values()), tuple(document.findings))


@dataclass(frozen=True, slots=True)
class _Operation:
    document: Document
    path: str
    method: str
    item: dict[str, Any]
    server: str | None

    @property
    def place(self) -> str:
        return f"paths.{self.path}.{self.method}"

    @property
    def spec(self) -> dict[str, Any]:
        return mapping(self.item[self.method])


def _take(operation: _Operation, manifests: dict[str, JsonObject], prefix: str) -> None:
    """Add the tool of `operation`, or tell why there is none."""
    document = operation.document
    try:
        name = _free_name(operation, manifests, prefix)
        manifest = _manifest(operation, name)
        parse_document(manifest, 1, operation.place)
    except Inexpressible as error:
        document.note(error.finding.path, f"{error.finding.message}; the operation is left out")
    except SpecInvalid as error:
        document.note(operation.place, f"{error.message}; the operation is left out")
    except RecursionError:
        document.note(operation.place, "it nests too deep; the operation is left out")
    else:
        manifests[name] = manifest


def _free_name(operation: _Operation, taken: dict[str, JsonObject], prefix: str) -> str:
    told = operation.spec.get("operationId") or f"{operation.method}-{operation.path}"
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", str(told)).lower()
    name = prefix + re.sub(r"[^a-z0-9_]+", "-", words).strip("-")
    name = (name if name[:1].isalpha() else f"op-{name}")[:_NAME].rstrip("-")
    free, number = name, 2
    while free in taken:
        free = f"{name[: _NAME - 4]}-{number}"
        number += 1
    if free != name:
        operation.document.note(operation.place, f"there is a tool {name!r} already, so this one is {free!r}")
    return free


def _manifest(operation: _Operation, name: str) -> JsonObject:
    document, spec, place = operation.document, operation.spec, operation.place
    server = operation.server or document.server([spec, operation.item, document.root], place)
    arguments = read_arguments(document, operation.item, spec, place, operation.method)
    signature = read_security(document, spec, place)
    backend: JsonObject = {
        "type": "http",
        "method": operation.method.upper(),
        "url": server.rstrip("/") + _url_path(operation, arguments),
        **({"headers": dict(signature.headers)} if signature.headers else {}),
        **({"query": dict(arguments.query)} if arguments.query else {}),
        **({"header_arguments": dict(arguments.headers)} if arguments.headers else {}),
        **({"body": arguments.body} if arguments.body else {}),
        **({"body_type": "form"} if arguments.body_type == "form" else {}),
        **({"idempotency_header": arguments.key_header} if arguments.key_header else {}),
    }
    output = _output(operation)
    return {
        "apiVersion": API_VERSION,
        "kind": "Tool",
        "metadata": {"name": name, "annotations": {"openapi": f"{operation.method.upper()} {operation.path}"}},
        "spec": {
            "description": _description(operation),
            "input": arguments.schema(),
            **({"output": output} if output else {}),
            "backend": backend,
            "permissions": {
                "hosts": [_host(document, server)],
                **({"secrets": list(signature.secrets)} if signature.secrets else {}),
            },
            "effect": "idempotent" if arguments.key_header else _EFFECTS.get(operation.method, "at_most_once"),
        },
    }


def _url_path(operation: _Operation, arguments: Arguments) -> str:
    path = operation.path
    for name, argument in arguments.places.items():
        path = path.replace(f"{{{name}}}", f"{{{argument}}}")
    nameless = [place for place in re.findall(r"\{([^}]*)\}", path) if place not in arguments.places.values()]
    if nameless:
        raise Inexpressible(operation.place, f"the path names {{{nameless[0]}}}, which is no parameter of it")
    return path


def _host(document: Document, server: str) -> str:
    parts = urlsplit(server)
    host = (parts.hostname or "").lower()
    shown = f"[{host}]" if ":" in host else host
    if host == "localhost" or _is_private(host):
        document.note("servers", f"{host} is no public host: add permissions.private_networks: true if it is meant")
    return f"{shown}:{parts.port}" if parts.port else shown


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return False


def _description(operation: _Operation) -> str:
    spec = operation.spec
    said = [str(spec[key]).strip() for key in ("summary", "description") if spec.get(key)]
    text = "\n".join(dict.fromkeys(said)) or f"{operation.method.upper()} {operation.path}"
    text = f"Deprecated. {text}" if spec.get("deprecated") is True else text
    return text if len(text) <= _DESCRIPTION else f"{text[: _DESCRIPTION - 1]}…"


def _output(operation: _Operation) -> dict[str, Any]:
    """The schema of what the tool gives: of any answer that says that it worked."""
    found: list[dict[str, Any]] = []
    for code, raw in mapping(operation.spec.get("responses")).items():
        place = f"{operation.place}.responses.{code}"
        if not code.startswith("2"):
            continue
        response = operation.document.follow(raw, place)
        schema = _answer(operation.document, mapping(response.get("content")), place)
        if schema not in found:
            found.append(schema)
    if len(found) < 2:
        return found[0] if found else {}
    definitions = {name: one for schema in found for name, one in schema.pop("$defs", {}).items()}
    return {"anyOf": found, **({"$defs": definitions} if definitions else {})}


def _answer(document: Document, content: dict[str, Any], place: str) -> dict[str, Any]:
    if not content:
        return {}
    kinds = {name.partition(";")[0].strip().lower(): mapping(value) for name, value in content.items()}
    best = next((kind for kind in kinds if is_json(kind)), None)
    if best is None:
        if not any(kind.startswith("text/") or kind.endswith(("/xml", "+xml")) for kind in kinds):
            document.note(place, f"answers with {', '.join(kinds)}, which a tool gives as text")
        return {"type": ["string", "null"]}
    return SchemaReader(document, "response", place).read(kinds[best].get("schema", {}))
