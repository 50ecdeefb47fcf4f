"""`paracle import openapi`: what becomes a tool, and what is told instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_client.openapi import Imported, convert
from paracle_domain.errors import SpecInvalid
from paracle_domain.manifest import parse_document

OWN = Path(__file__).parents[3] / "services" / "api_gateway" / "openapi.json"
PET = {
    "type": "object",
    "required": ["id", "name"],
    "properties": {
        "id": {"type": "integer", "readOnly": True},
        "name": {"type": "string"},
        "key": {"type": "string", "writeOnly": True},
        "parent": {"$ref": "#/components/schemas/Pet"},
    },
}
JSON = "application/json"


def document(operation: dict[str, Any], method: str = "get", path: str = "/pets", **more: Any) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "servers": [{"url": "https://pets.example/v1/"}],
        "paths": {path: {method: operation}},
        "components": {
            "schemas": {"Pet": PET},
            "securitySchemes": {
                "petKey": {"type": "apiKey", "in": "header", "name": "X-Key"},
                "inQuery": {"type": "apiKey", "in": "query", "name": "key"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "sid"},
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "1login": {"type": "oauth2", "flows": {}},
                "tls": {"type": "mutualTLS"},
            },
        },
        **more,
    }


def take(operation: dict[str, Any], method: str = "get", path: str = "/pets", **more: Any) -> Imported:
    return convert(document(operation, method, path, **more), "pets.yaml")


def only(found: Imported) -> Any:
    [manifest] = found.manifests
    return manifest["spec"]


def told(found: Imported) -> str:
    return "\n".join(f"{finding.path}: {finding.message}" for finding in found.findings)


def parameter(name: str, where: str, schema: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": where, "schema": schema or {"type": "string"}, **more}


def body(schema: Any, kind: str = JSON, **more: Any) -> dict[str, Any]:
    return {"requestBody": {"content": {kind: {"schema": schema}}, **more}}


def test_an_operation_is_a_tool():
    found = take(
        {
            "operationId": "findPets",
            "summary": "Find pets",
            "description": "By tag.",
            "parameters": [
                parameter("tag", "query", {"type": "array", "items": {"type": "string"}}, description="any of them"),
                parameter("X-Trace", "header", required=True),
                parameter("Accept", "header"),
            ],
            "responses": {
                "200": {
                    "content": {JSON: {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Pet"}}}}
                },
                "404": {"description": "none"},
            },
        }
    )
    [manifest] = found.manifests
    assert manifest["metadata"] == {"name": "find-pets", "annotations": {"openapi": "GET /pets"}}
    spec = only(found)
    assert spec["description"] == "Find pets\nBy tag."
    assert spec["backend"] == {
        "type": "http",
        "method": "GET",
        "url": "https://pets.example/v1/pets",
        "query": {"tag": "tag"},
        "header_arguments": {"X-Trace": "X_Trace"},
    }
    tag = {"type": "array", "items": {"type": "string"}, "description": "any of them"}
    assert spec["input"] == {
        "type": "object",
        "properties": {"tag": tag, "X_Trace": {"type": "string"}},
        "required": ["X_Trace"],
        "additionalProperties": False,
    }
    assert spec["output"]["items"]["required"] == ["id", "name"]
    assert "key" not in spec["output"]["items"]["properties"]
    assert spec["output"]["$defs"]["Pet"]["properties"]["parent"] == {"$ref": "#/$defs/Pet"}
    assert (spec["permissions"], spec["effect"]) == ({"hosts": ["pets.example"]}, "none")
    assert found.findings == ()


def test_fields_of_a_body_are_arguments_and_what_only_answers_hold_is_none():
    spec = only(take(body({"$ref": "#/components/schemas/Pet"}, required=True), "post"))
    assert {*spec["input"]["properties"]} == {"name", "key", "parent"}
    assert spec["input"]["required"] == ["name"]
    assert "body" not in spec["backend"]
    assert spec["effect"] == "at_most_once"


@pytest.mark.parametrize(
    ("schema", "more"),
    [
        ({"type": "array", "items": {}}, {}),
        ({"type": "object"}, {}),
        ({"type": "object", "properties": {"id": {}}}, {"parameters": [parameter("id", "query")]}),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "string"}}, {}),
        ({"oneOf": [{"type": "object", "properties": {"a": {}}}, {"type": "null"}]}, {}),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, {}),
        (True, {}),
    ],
)
def test_other_bodies_are_one_argument(schema: Any, more: dict[str, Any]):
    spec = only(take({**body(schema, description="what to send"), **more}, "post"))
    assert spec["backend"]["body"] == "body"
    assert spec["input"]["properties"]["body"]["description"] == "what to send"
    assert "required" not in spec["input"]


def test_forms_and_names_that_meet():
    operation = {
        "parameters": [
            parameter("id", "path"),
            parameter("id", "query"),
            parameter("2nd-id", "query"),
            parameter("body", "query"),
        ],
        **body({"type": "array"}, "application/x-www-form-urlencoded"),
    }
    spec = only(take(operation, "put", "/pets/{id}"))
    assert spec["backend"]["query"] == {"id": "query_id", "2nd-id": "_2nd_id", "body": "body"}
    assert (spec["backend"]["body"], spec["backend"]["body_type"]) == ("request_body", "form")
    assert spec["effect"] == "idempotent"


def test_a_key_of_idempotency_is_handed_over_by_the_runtime():
    spec = only(take({"parameters": [parameter("Idempotency-Key", "header", required=True)]}, "post"))
    assert (spec["effect"], spec["backend"]["idempotency_header"]) == ("idempotent", "Idempotency-Key")
    assert spec["input"]["properties"] == {}


@pytest.mark.parametrize(
    ("security", "headers", "secrets", "note"),
    [
        ([{"petKey": []}], {"X-Key": "${PET_KEY}"}, ["PET_KEY"], ""),
        ([{"cookie": []}], {"Cookie": "sid=${COOKIE}"}, ["COOKIE"], ""),
        ([{"basic": []}], {"Authorization": "Basic ${BASIC}"}, ["BASIC"], "user:password in Base64"),
        (
            [{"bearer": [], "petKey": []}],
            {"Authorization": "Bearer ${BEARER}", "X-Key": "${PET_KEY}"},
            ["BEARER", "PET_KEY"],
            "",
        ),
        ([{"1login": ["read"]}], {"Authorization": "Bearer ${SECRET_1LOGIN}"}, ["SECRET_1LOGIN"], "an access token"),
        ([{"inQuery": []}, {"petKey": []}], {"X-Key": "${PET_KEY}"}, ["PET_KEY"], ""),
        ([{}, {"petKey": []}], {"X-Key": "${PET_KEY}"}, ["PET_KEY"], ""),
        ([{"tls": []}, {}], {}, [], ""),
        ([], {}, [], ""),
    ],
)
def test_security_is_secrets_by_name(security: Any, headers: dict[str, str], secrets: list[str], note: str):
    found = take({"security": security})
    spec = only(found)
    assert spec["backend"].get("headers", {}) == headers
    assert spec["permissions"].get("secrets", []) == secrets
    assert note in told(found)


def test_the_documents_security_is_for_all():
    assert only(take({}, security=[{"petKey": []}]))["permissions"]["secrets"] == ["PET_KEY"]


@pytest.mark.parametrize(
    ("operation", "method", "path", "note"),
    [
        ({"security": [{"inQuery": []}]}, "get", "/", "tools send secrets in headers only; the operation is left out"),
        ({"security": [{"tls": []}]}, "get", "/", "is a scheme of type mutualTLS"),
        ({"security": [{"ghost": []}]}, "get", "/", "should be an object"),
        ({"parameters": [parameter("a", "cookie", required=True)]}, "get", "/", "is a parameter in cookie"),
        (
            {"parameters": [parameter("a", "path", {"type": "array"})]},
            "get",
            "/{a}",
            "is an array in a path, and is required",
        ),
        ({"parameters": [parameter("a", "path", style="matrix")]}, "get", "/{a}", "has the style matrix"),
        ({}, "get", "/{a}", "the path names {a}, which is no parameter"),
        ({"parameters": [{"$ref": "#/components/parameters/ghost"}]}, "get", "/", "leads nowhere"),
        ({"parameters": [{"$ref": "other.yaml#/a"}]}, "get", "/", "leads to another document; bundle them"),
        (
            body({}, "multipart/form-data", required=True),
            "post",
            "/",
            "takes multipart/form-data; tools send JSON and forms",
        ),
        (body({}, required=True), "get", "/", "a GET with a body"),
        ({"servers": [{"url": "/v2"}, {"url": "ftp://a"}, {"url": "https://{x}/"}]}, "get", "/", ""),
        (body({"$ref": "#/paths"}, required=True), "post", "/", ""),
        ({"parameters": [parameter("a b", "header", required=True)]}, "get", "/", "is no name of a header"),
    ],
)
def test_what_cannot_be_said_is_told_and_left_out(operation: Any, method: str, path: str, note: str):
    found = take(operation, method, path)
    if note:
        assert found.manifests == ()
        assert note in told(found)
        assert told(found).startswith(f"paths.{path}.{method}")


@pytest.mark.parametrize(
    ("operation", "note"),
    [
        (
            {"parameters": [parameter("a", "cookie")]},
            "is a parameter in cookie, which tools cannot send; it is left out",
        ),
        ({"parameters": [parameter("a", "query", {"type": "object"}, style="deepObject")]}, "has the style deepObject"),
        ({"parameters": [parameter("a", "query", {"type": ["object", "null"]})]}, "is an object in a query"),
        ({"parameters": [parameter("a", "query", {"type": "array"}, explode=False)]}, "joined with commas"),
        ({"parameters": [{"name": "a", "in": "query", "content": {JSON: {}}}]}, "has a media type of its own"),
        ({"responses": {"200": {"content": {"image/png": {}}}}}, "answers with image/png, which a tool gives as text"),
        (body({}), "a GET with a body; it is left out"),
    ],
)
def test_what_is_not_needed_is_told_and_left_out(operation: Any, note: str):
    found = take(operation)
    assert len(found.manifests) == 1
    assert note in told(found)


def test_documents_that_say_little_say_so():
    more: dict[str, Any] = {
        "webhooks": {"x": {}},
        "paths": {
            "/a": {"get": {"operationId": "same"}, "head": {}},
            "/b": {"delete": {"operationId": "same", "deprecated": True}},
            "/c": {"$ref": "#/ghost"},
            "/1": {"patch": {}},
            "/d": {"get": None},
        },
    }
    found = take({}, **more)
    names = [manifest["metadata"]["name"] for manifest in found.manifests]  # type: ignore[index,call-overload]
    assert names == ["same", "same-2", "patch-1", "get-d"]
    assert found.manifests[1]["spec"]["description"] == "Deprecated. DELETE /b"  # type: ignore[index,call-overload]
    for note in ("a webhook calls you", "tools cannot call HEAD", "there is a tool 'same' already", "leads nowhere"):
        assert note in told(found)


def test_servers():
    assert "names no server with an absolute address" in told(take({}, servers=[{"url": "/v1"}]))
    fetched = convert(document({}, servers=[{"url": "../v1"}]), "http://127.0.0.1:80/docs/openapi.json")
    assert only(fetched)["permissions"] == {"hosts": ["127.0.0.1:80"]}
    assert only(fetched)["backend"]["url"] == "http://127.0.0.1:80/v1/pets"
    assert "is no public host" in told(fetched)
    variables = {"url": "https://{where}.example/", "variables": {"where": {"default": "eu"}}}
    assert only(take({}, servers=[variables]))["permissions"] == {"hosts": ["eu.example"]}
    given = convert(document({"operationId": "x"}), "s", server="https://[2606:4700::1]/", prefix="pets-")
    assert only(given)["permissions"] == {"hosts": ["[2606:4700::1]"]}
    assert given.manifests[0]["metadata"]["name"] == "pets-x"  # type: ignore[index,call-overload]


def test_the_dialect_of_3_0_becomes_json_schema():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 1, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": False},
            "b": {"type": "string", "nullable": True, "enum": ["x"], "example": "x"},
            "c": {"nullable": True, "allOf": [{"$ref": "#/components/schemas/Pet"}]},
            "nullable": {"type": "string", "x-internal": 1},
        },
    }
    found = take(body(schema, required=True), "post", openapi="3.0.3")
    properties = only(found)["input"]["properties"]
    assert properties["a"] == {"type": "integer", "exclusiveMinimum": 1, "maximum": 9}
    assert properties["b"] == {"type": ["string", "null"], "enum": ["x", None]}
    assert properties["c"]["anyOf"][1] == {"type": "null"}
    assert properties["nullable"] == {"type": "string"}


def test_what_stands_beside_a_reference():
    schema = {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/components/schemas/Pet", "description": "mine"},
            "b": {"$ref": "#/components/schemas/Pet", "minProperties": 1},
        },
    }
    properties = only(take(body(schema, required=True), "post"))["input"]["properties"]
    assert properties["a"]["description"] == "mine"
    assert properties["b"]["allOf"][1] == {"minProperties": 1}


def test_answers_of_several_kinds_are_any_of_them():
    pet = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Pet"}}}}
    text: dict[str, Any] = {"content": {"text/plain; charset=utf-8": {}}}
    spec = only(take({"responses": {"200": pet, "201": text, "202": text, "default": pet}}))
    assert [one.get("type") for one in spec["output"]["anyOf"]] == ["object", ["string", "null"]]
    assert "Pet" in spec["output"]["$defs"]


def test_schemas_that_are_too_large_are_told():
    twice = {f"S{n}": {"allOf": [{"$ref": f"#/components/schemas/S{n + 1}"}] * 2} for n in range(30)} | {"S30": {}}
    big = take(body({"$ref": "#/components/schemas/S0"}, required=True), "post", components={"schemas": twice})
    assert "has more than 20,000 parts" in told(big)
    deep: Any = {}
    for _ in range(3_000):
        deep = {"items": deep}
    assert "nests too deep" in told(take(body(deep, required=True), "post"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "should be an object"),
        ({"swagger": "2.0"}, "convert it to OpenAPI 3"),
        ({"openapi": "4.0"}, "should be 3.x"),
    ],
)
def test_other_documents_are_refused(value: Any, message: str):
    with pytest.raises(SpecInvalid, match=message):
        convert(value, "pets.yaml")


SAID = """
get post parameters requestBody content application/json schema $ref #/paths #/components/schemas/Pet type object array
properties required name in query path security bearer responses 200 items allOf nullable readOnly enum servers url
https://a.example explode style
"""
WORDS = st.sampled_from(SAID.split())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


@given(
    st.dictionaries(WORDS, VALUES, max_size=6), st.sampled_from(["get", "post"]), st.sampled_from(["3.0.1", "3.1.0"])
)
def test_whatever_an_operation_says_it_is_a_tool_or_told(operation: dict[str, Any], method: str, version: str):
    found = take(operation, method, openapi=version)
    assert found.manifests or found.findings
    for manifest in found.manifests:
        parse_document(json.loads(json.dumps(manifest)), 1, "found")


def test_our_own_api_can_be_imported():
    found = convert(json.loads(OWN.read_text()), "openapi.json", server="https://paracle.example")
    assert len(found.manifests) > 30
    for number, manifest in enumerate(found.manifests):
        parse_document(manifest, number, "own")
