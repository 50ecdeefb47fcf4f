"""A page that lists the API's operations, made from the OpenAPI document: no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{font:14px ui-monospace,monospace}dt{margin-top:1.2rem}dd{margin-left:1.5rem}"
    "td,th{padding:.1rem .8rem .1rem 0;text-align:left;vertical-align:top;font-size:14px}"
)
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def router() -> APIRouter:
    """The route; it is not part of the document that it shows."""
    routes = APIRouter()
    routes.get("/docs", include_in_schema=False, response_class=HTMLResponse)(docs)
    routes.get("/", include_in_schema=False, response_class=HTMLResponse)(docs)
    return routes


async def docs(request: Request) -> HTMLResponse:
    """The operations of this API."""
    return HTMLResponse(page(request.app.openapi()), headers={"Content-Security-Policy": _POLICY})


def page(document: dict[str, Any]) -> str:
    """The HTML page of an OpenAPI `document`."""
    info = document["info"]
    listed = "".join(
        _operation(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])}</p>"
        f"<p>For tools: <a href=openapi.json>openapi.json</a></p><dl>{listed}</dl></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(_rows(operation))
    return (
        f"<dt><code><b>{method.upper()}</b> {escape(path)}</code> — {escape(operation['summary'])}"
        f"<dd>{escape(operation.get('description', ''))}<table>{rows}</table>"
    )


def _rows(operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        where = f"{parameter['in']}{', required' if parameter.get('required') else ''}"
        yield _row(parameter["name"], where, parameter.get("description", ""))
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield _row("body", kind, content["schema"].get("$ref", "text").rpartition("/")[2])
    for status, told in operation["responses"].items():
        yield _row(status, "answer", told["description"])


def _row(*cells: str) -> str:
    first, *others = (escape(cell) for cell in cells)
    return f"<tr><td><code>{first}</code></td>" + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"
