"""Tools that were imported from an OpenAPI document, called against the server that it describes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tool_bench import SECRET, Bench

from paracle_client.openapi import convert
from paracle_domain.task.inputs import Outcome

PET = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
JSON = "application/json"
PETS = {
    "openapi": "3.1.0",
    "servers": [{"url": "/v1"}],
    "security": [{"key": []}],
    "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    "paths": {
        "/pets/{pet-id}": {
            "parameters": [{"name": "pet-id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "operationId": "getPet",
                "parameters": [{"name": "tags[]", "in": "query", "schema": {"type": "array"}}],
                "responses": {"200": {"content": {JSON: {"schema": PET}}}},
            },
            "put": {
                "operationId": "putPet",
                "requestBody": {"required": True, "content": {JSON: {"schema": PET}}},
                "responses": {"204": {"description": "done"}},
            },
        },
        "/pets": {
            "post": {
                "operationId": "addPets",
                "parameters": [{"name": "Idempotency-Key", "in": "header"}],
                "requestBody": {"content": {JSON: {"schema": {"type": "array", "items": PET}}}},
            }
        },
    },
}


@pytest.fixture
async def pets() -> AsyncIterator[tuple[TestServer, list[Any]]]:
    seen: list[Any] = []

    async def take(request: web.Request) -> web.StreamResponse:
        headers = (request.headers.get("Authorization"), request.headers.get("Idempotency-Key"))
        seen.append((request.method, str(request.rel_url), await request.text(), *headers))
        return web.json_response({"name": "Rex"}) if request.method == "GET" else web.Response(status=204)

    app = web.Application()
    app.router.add_route("*", "/v1/{rest:.*}", take)
    running = TestServer(app)
    async with running:
        yield running, seen


async def test_imported_tools_speak_as_the_document_says(tmp_path: Path, pets: tuple[TestServer, list[Any]]):
    server, seen = pets
    found = convert(PETS, str(server.make_url("/openapi.json")))
    tools: dict[str, Any] = {manifest["metadata"]["name"]: manifest["spec"] for manifest in found.manifests}  # type: ignore[index,call-overload,misc]
    bench = Bench(tmp_path, environment={"PARACLE_SECRET_KEY": SECRET})

    async def call(name: str, arguments: dict[str, Any], key: str | None = None) -> Any:
        permissions = {**tools[name]["permissions"], "private_networks": True}
        return await bench.call(arguments, key=key, **{**tools[name], "permissions": permissions})

    assert (await call("get-pet", {"pet_id": "a/b", "tags__": ["x", "y"]})).output == {"name": "Rex"}
    assert (await call("put-pet", {"pet_id": "1", "name": "Rex"}, "eff_1")).error is None
    assert (await call("add-pets", {"body": [{"name": "Rex"}]}, "eff_2")).error is None
    bearer = f"Bearer {SECRET}"
    assert seen == [
        ("GET", "/v1/pets/a%2Fb?tags%5B%5D=x&tags%5B%5D=y", "", bearer, None),
        ("PUT", "/v1/pets/1", '{"name": "Rex"}', bearer, "eff_1"),
        ("POST", "/v1/pets", '[{"name": "Rex"}]', bearer, "eff_2"),
    ]
    wrong = await call("put-pet", {"pet_id": "1"}, "eff_3")
    assert (wrong.error.code, wrong.outcome) == ("input_schema_mismatch", Outcome.NOT_DONE)
    await bench.http.aclose()
