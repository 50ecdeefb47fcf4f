"""A page that tells the API's operations, made from the OpenAPI document: no script, nothing from elsewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font:14px/1.4 ui-monospace,monospace}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:.5rem;border:1px solid #8886}"
    "nav a{margin-right:.8rem;white-space:nowrap}h2{margin:2rem 0 0}"
    "details{overflow-x:auto}summary{cursor:pointer;padding:.25rem 0}details>:not(summary){margin-left:1.2rem}"
    "td,th{padding:.1rem .8rem .1rem 0;text-align:left;vertical-align:top;font-size:14px}"
)
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_ANY: Final = "any JSON"

type Json = dict[str, Any]


def router() -> APIRouter:
    """The route; it is not part of the document that it shows."""
    routes = APIRouter()
    routes.get("/docs", include_in_schema=False, response_class=HTMLResponse)(docs)
    routes.get("/", include_in_schema=False, response_class=HTMLResponse)(docs)
    return routes


async def docs(request: Request) -> HTMLResponse:
    """The operations of this API."""
    text = page(request.app.openapi(), str(request.base_url).rstrip("/"))
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})


def page(document: Json, url: str) -> str:
    """The HTML page of an OpenAPI `document` of the API at `url`."""
    info, schemas = document["info"], document["components"]["schemas"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    parts = {tag["name"]: f"<p>{_prose(tag['description'])}" for tag in document["tags"]}
    problems: dict[str, str] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts[operation["tags"][0]] += _operation(method, path, operation, schemas, url)
            problems |= {code: told["description"] for code, told in operation["responses"].items() if code >= "400"}
    listed = "".join(f"<h2 id={_anchor(name)}>{escape(name)}</h2>{text}" for name, text in parts.items())
    links = " ".join(f"<a href=#{_anchor(name)}>{escape(name)}</a>" for name in (*parts, "problems"))
    told = "".join(_row(code, description) for code, description in sorted(problems.items()))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p>{_prose(info['description'])}</p>"
        f"<p>For tools: <a href=openapi.json>openapi.json</a></p><nav>{links}</nav>{listed}"
        f"<h2 id=problems>problems</h2><table>{told}</table></html>"
    )


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _operation(method: str, path: str, operation: Json, schemas: Json, url: str) -> str:
    """An operation: its line, and what is shown of it when that is opened."""
    rows = "".join((*_parameters(operation, schemas), *_fields(operation, schemas), *_answers(operation)))
    failures = ", ".join(code for code in operation["responses"] if code >= "400")
    problems = f"<p>Problems: {failures}" if failures else ""
    return (
        f"<details id={operation['operationId']}><summary><code><b>{method.upper()}</b> {escape(path)}</code> "
        f"{escape(operation['summary'])}</summary><p>{_prose(operation.get('description', ''))}"
        f"<pre>{escape(_call(method, url + path, operation, schemas))}</pre><table>{rows}</table>{problems}</details>"
    )


def _parameters(operation: Json, schemas: Json) -> Iterator[str]:
    for one in operation.get("parameters", ()):
        where = f"{one['in']}{', required' if one.get('required') else ''}"
        yield _row(one["name"], where, _type(one["schema"], schemas), one.get("description", ""))


def _fields(operation: Json, schemas: Json) -> Iterator[str]:
    """The fields of the body; one that is no JSON has none."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(content["schema"], schemas)
        if "properties" not in schema:
            yield _row("body", "required", kind, schema.get("description", ""))
        for name, field in schema.get("properties", {}).items():
            needed = ", required" if name in schema.get("required", ()) else ""
            told = field.get("description") or _resolved(field, schemas).get("description", "")
            yield _row(name, f"body{needed}", _type(field, schemas), f"{told}{_default(field)}")


def _default(field: Json) -> str:
    """What a field is if it is not given, where that is something simple."""
    value = field.get("default")
    return "" if isinstance(value, dict | list | None) or value == "" else f" (default {json.dumps(value)})"


def _answers(operation: Json) -> Iterator[str]:
    for status, told in operation["responses"].items():
        if status < "400":
            yield _row(status, "answer", ", ".join(told.get("content", ())), told["description"])


def _call(method: str, url: str, operation: Json, schemas: Json) -> str:
    """How curl asks for it, with examples for what has to be given."""
    query = []
    for one in operation.get("parameters", ()):
        if one.get("required"):
            example = str(_example(one["schema"], one["name"].upper()))
            url = url.replace(f"{{{one['name']}}}", example)
            query += [f"{one['name']}={example}"] if one["in"] == "query" else []
    words = ["curl", *([] if method == "get" else ["-X", method.upper()]), "?".join((url, *query[:1]))]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        words += ["-H", f"Content-Type: {kind}", *_body(_resolved(content["schema"], schemas))]
    return shlex.join(words)


def _body(schema: Json) -> list[str]:
    if "properties" not in schema:
        return ["--data-binary", "@manifests.yaml"]
    needed = schema.get("required", ())
    shown = {name: field for name, field in schema["properties"].items() if name in needed or "examples" in field}
    body = _example(schema, {name: _example(field, "…") for name, field in shown.items()})
    return ["-d", json.dumps(body, ensure_ascii=False)]


def _example(schema: Json, otherwise: Any) -> Any:
    return next(iter((*schema.get("examples", ()), *schema.get("enum", ()))), otherwise)


def _resolved(schema: Json, schemas: Mapping[str, Json]) -> Json:
    """`schema` itself, or the one that it refers to."""
    found: Json = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _type(schema: Json, schemas: Mapping[str, Json]) -> str:
    """What a value is, in a word or two."""
    target = _resolved(schema, schemas)
    if "enum" in target:
        return " | ".join(map(str, target["enum"]))
    if "anyOf" in target:
        return " or ".join(_type(one, schemas) for one in target["anyOf"] if one.get("type") != "null")
    if target.get("type") == "array":
        return f"list of {_type(target.get('items', {}), schemas)}"
    if "properties" in target:
        return str(target.get("title", "object"))
    return str(target.get("type", target.get("const", _ANY)))


def _row(name: str, *cells: str) -> str:
    return f"<tr><td><code>{escape(name)}</code></td>" + "".join(f"<td>{_prose(cell)}</td>" for cell in cells) + "</tr>"


def _prose(text: str) -> str:
    """Text in which what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
