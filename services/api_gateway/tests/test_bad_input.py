"""Whatever stands in a parameter or a field, the answer says what is wrong with it: it is never a bug."""

import json
from itertools import product
from typing import Any

from api_fakes import RUN

from paracle_api_gateway.app import create_routes
from paracle_api_gateway.openapi import document
from paracle_domain.errors import NotFound

EARLIEST, LATEST = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"  # UTC has no years for them
TEXTS = ["", "\0", "a\0b", "0", "-1", str(2**63), str(2**200), "nan", "x" * 5_000, EARLIEST, LATEST, "2026-11-26T09:30"]
VALUES: list[Any] = [
    *TEXTS,
    None,
    True,
    -1,
    0.5,
    2**200,
    float("nan"),
    "\ud800",
    [],
    {},
    [{}],
    {"\0": "\0"},
    {"a": {"a": []}},
]
DOCUMENT = document(create_routes())
STREAM = "get_task_output"  # what it takes it follows


class Nothing(dict[type, object]):
    """Answers of services that know nothing of what they are asked."""

    def __missing__(self, kind: type) -> NotFound:
        return NotFound("there is no such thing")


OPERATIONS: list[tuple[str, str, dict[str, Any]]] = [
    (path, method, one)
    for path, some in DOCUMENT["paths"].items()
    for method, one in some.items()
    if path.startswith("/v1/") and one["operationId"] != STREAM
]


def example(parameter: dict[str, Any]) -> str:
    """What fits a parameter in a path."""
    found = [*parameter.get("examples", ()), *parameter["schema"].get("examples", ())]
    return found[0] if found else f"{parameter['schema']['pattern'][1:5]}01JDZ7T6C4W2V9M3N5K8Q0XHRB"


def here(path: str, operation: dict[str, Any]) -> str:
    given = {one["name"]: example(one) for one in operation.get("parameters", ()) if one["in"] == "path"}
    return path.format(**given)


def fields(operation: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body, each with its schema, those of objects in it by their path."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    schemas = DOCUMENT["components"]["schemas"]

    def below(schema: dict[str, Any]) -> dict[str, Any]:
        found = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        return {name: below(one) for name, one in found.get("properties", {}).items()}

    return {} if content is None else below(content["schema"])


def bodies(known: dict[str, Any], value: Any) -> list[dict[str, Any]]:
    """Bodies of which one field is `value`."""
    found: list[dict[str, Any]] = []
    for name, inner in known.items():
        found += [{name: value}, *({name: body} for body in bodies(inner, value))]
    return found


def whole(body: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """`body` with what is required besides, so that the field is the only thing wrong."""
    required = {"reason": "because", "decision": "approve", "digest": "d", "outcome": "done", "from_step": "pay"}
    known = fields(operation)
    filters = {"filter": {"workflow": "triage"}} if "filter" in known else {}
    every = {"all": True} if "all" in known else {}
    return {**filters, **every, **{key: value for key, value in required.items() if key in known}, **body}


async def test_no_parameter_is_a_bug(client, world):
    world.bus.answers = Nothing()
    for path, method, operation in OPERATIONS:
        names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
        for name, text in product(names, TEXTS):
            response = await client.request(method, here(path, operation), params={name: text})
            assert response.status_code < 500, (method, path, name, text, response.text)


async def test_no_field_is_a_bug(client, world):
    world.bus.answers = Nothing()
    headers = {"Content-Type": "application/json"}
    for (path, method, operation), value in product(OPERATIONS, VALUES):
        for body in bodies(fields(operation), value):
            text = json.dumps(whole(body, operation))
            response = await client.request(method, here(path, operation), content=text, headers=headers)
            assert response.status_code < 500, (method, path, body, response.text)


async def test_no_operation_takes_a_parameter_that_there_is_not(client, world):
    world.bus.answers = Nothing()
    for path, method, operation in OPERATIONS:
        response = await client.request(method, here(path, operation), params={"limitt": "1"})
        problem = response.json()
        assert (response.status_code, problem["path"]) == (422, "query.limitt"), (method, path, response.text)
    assert world.bus.asked == []
    response = await client.get("/v1/runs", params={"statu": "failed"})
    assert response.json()["detail"] == "there is no parameter 'statu'; did you mean 'status' or 'stuck'?"


async def test_a_parameter_that_counts_once_is_not_given_twice(client, world):
    world.bus.answers = Nothing()
    for path, method, operation in OPERATIONS:
        for one in (one for one in operation.get("parameters", ()) if one["in"] == "query"):
            several = {item.get("type") for item in (one["schema"], *one["schema"].get("anyOf", ()))} >= {"array"}
            response = await client.request(method, here(path, operation), params=[(one["name"], "")] * 2)
            assert (f"'{one['name']}' is given 2 times; it counts once" in response.text) is not several, (path, one)


async def test_what_belongs_in_a_header_or_the_path_is_no_parameter(client, world):
    """A key that is not heeded would let a run be started twice."""
    world.bus.answers = Nothing()
    for path, method, operation in OPERATIONS:
        given = operation.get("parameters", ())
        for name in {one["name"] for one in given} - {one["name"] for one in given if one["in"] == "query"}:
            response = await client.request(method, here(path, operation), params={name: "k"})
            assert (response.status_code, response.json()["path"]) == (422, f"query.{name}"), (method, path, name)
    assert world.bus.asked == []


async def test_a_field_that_there_is_not_is_told_with_what_was_meant(client):
    response = await client.post("/v1/workflows/triage/runs", json={"lables": {}})
    problem = response.json()
    assert (response.status_code, problem["path"]) == (422, "lables")
    assert problem["detail"] == "request body: there is no such field; did you mean 'labels'?"


async def test_whoever_looks_after_the_process_may_ask_as_it_likes(client):
    assert (await client.get("/livez", params={"probe": "1"})).status_code == 200


async def test_a_header_that_counts_once_is_not_given_twice(client, world):
    """One of two keys would count, and the other would promise what is not kept."""
    world.bus.answers = Nothing()
    found = 0
    for path, method, operation in OPERATIONS:
        single = (one for one in operation.get("parameters", ()) if one["in"] == "header" and one["name"] != "accept")
        for one in single:
            found += 1
            headers = [(one["name"], "a"), (one["name"].lower(), "b")]
            response = await client.request(method, here(path, operation), headers=headers)
            problem = response.json()
            assert (response.status_code, problem["path"]) == (422, f"header.{one['name']}"), (path, response.text)
            assert problem["detail"] == f"'{one['name']}' is given 2 times; it counts once"
    assert found
    assert world.bus.asked == []
    assert "counts once" not in (await client.get(f"/v1/runs/{RUN}/events", headers=[("accept", "a/b")] * 2)).text
