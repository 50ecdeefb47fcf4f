"""Every way to go wrong is a problem document that says what to do, and leaks nothing."""

import json

import pytest
from api_fakes import RUN

from paracle_domain.errors import (
    BY_CODE,
    Conflict,
    Finding,
    NotFound,
    ParacleError,
    RateLimited,
    SpecInvalid,
    from_problem,
)
from paracle_domain.registry import ApplyManifests, GetSpec, ListSpecs
from paracle_domain.run.commands import StartRun

START = "/v1/workflows/triage/runs"
JSON = {"Content-Type": "application/json"}


def problem(response, status, code):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:paracle:error:{code}")
    assert body["detail"]
    return body


@pytest.mark.parametrize("kind", [kind for code, kind in BY_CODE.items() if kind is not ParacleError])
async def test_every_error_of_a_service_arrives_as_it_was_raised(client, world, kind):
    raised = kind("what was wrong", path="spec.steps[2]", problems=[Finding(path="a", message="b")])
    world.bus.answers[ListSpecs] = raised
    body = problem(await client.get("/v1/agents"), kind.http_status, kind.code)
    again = from_problem(body)
    assert (type(again), again.message, again.path, again.problems) == (
        kind,
        raised.message,
        raised.path,
        raised.problems,
    )


async def test_retry_after_is_a_header_too(client, world):
    world.bus.answers[ListSpecs] = RateLimited("slower", retry_after_s=1.2)
    response = await client.get("/v1/agents")
    assert problem(response, 429, "rate_limited")["retry_after_s"] == 1.2
    assert response.headers["retry-after"] == "2"


async def test_a_bug_tells_nothing_but_the_request_id(client, world, caplog):
    world.bus.answers[ListSpecs] = RuntimeError("password=hunter2")
    response = await client.get("/v1/agents", headers={"X-Request-Id": "abc-123"})
    body = problem(response, 500, "internal")
    assert "hunter2" not in response.text
    assert "abc-123" in body["detail"]
    assert "hunter2" in caplog.text


async def test_unknown_paths(client):
    assert "/docs" in problem(await client.get("/v1/nothing"), 404, "not_found")["detail"]
    problem(await client.get("/v1/agents/"), 404, "not_found")


async def test_a_parameter_is_named_as_its_caller_knows_it(client):
    told = problem(await client.get("/v1/runs/x"), 422, "invalid_input")
    assert told["path"] == "path.run_id"
    assert told["detail"].startswith("run_id: is no id, such as run_")


async def test_wrong_methods_name_the_right_ones(client):
    response = await client.delete("/v1/manifests")
    assert "POST" in problem(response, 405, "invalid_input")["detail"]
    assert response.headers["allow"] == "POST"
    assert (await client.post("/v1/agents/triage")).headers["allow"] == "GET, DELETE"  # of two routes


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/runs?limit=0", "query.limit"),
        ("/v1/runs?limit=many", "query.limit"),
        ("/v1/runs?status=failed&status=lost", "query.status[1]"),
        ("/v1/runs?created_after=2026-01-01T00:00:00", "query.created_after"),
        ("/v1/runs?parent=nope", "query.parent"),
        ("/v1/agents/NOPE", "path.name"),
        ("/v1/agents/a?revision=0", "query.revision"),
        ("/v1/runs/nope", "path.run_id"),
        (f"/v1/runs/{RUN}/events?after=-1", "query.after"),
    ],
)
async def test_bad_parameters_name_themselves_and_reach_no_service(client, world, target, path):
    body = problem(await client.get(target), 422, "invalid_input")
    assert body["path"] == path
    assert body["problems"][0]["path"] == path
    assert world.bus.asked == []


@pytest.mark.parametrize("given", ["label=team", "label=team:a&label=team:b", f"label=team:{'x' * 201}"])
async def test_bad_labels_are_named(client, world, given):
    body = problem(await client.get(f"/v1/runs?{given}"), 422, "invalid_input")
    assert body["path"] == "query.label"
    assert world.bus.asked == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"input": }', "line 1 column 11"),
        (b'{"input": "\xff"}', "byte 0xff at offset 11"),
        (b'{"input": NaN}', "line 1 column"),
        (b'{"input": 1e999}', "too large"),
        (b'{"input": {"a": [-1e999]}}', "too large"),
        (b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}", "recursion"),
        (b'{"input": ' + b"[" * 100 + b"]" * 100 + b"}", "more than 100 levels"),
        (b'{"input": "\\ud800"}', "line 1"),
        (b"\x00", "line 1 column 1"),
    ],
)
async def test_what_is_no_json_is_refused_with_its_position(client, world, body, expected):
    assert expected in problem(await client.post(START, content=body, headers=JSON), 400, "malformed_message")["detail"]
    assert world.bus.commanded == []


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (f"/v1/runs/{RUN}/events?after={2**31}", "query.after"),
        (f"/v1/runs/{RUN}/audit?after={2**63}", "query.after"),
        (f"/v1/agents/a?revision={2**31}", "query.revision"),
        (f"/v1/agents/a/revisions?before={2**31}", "query.before"),
        ("/v1/runs?workflow=%00", "query.workflow"),
    ],
)
async def test_what_no_database_column_could_hold_is_refused_here(client, world, url, path):
    assert problem(await client.get(url), 422, "invalid_input")["path"] == path
    assert world.bus.asked == []


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"inptu": 1}, "inptu"),
        ({"labels": {"team": 1}}, "labels.team"),
        ({"labels": []}, "labels"),
        ({"labels": {str(n): "x" for n in range(51)}}, "labels"),
        ({"revision": 0}, "revision"),
        ([], ""),
    ],
)
async def test_json_of_another_shape_names_the_field(client, world, value, path):
    body = problem(await client.post(START, json=value), 422, "invalid_input")
    assert body["path"] == path
    assert world.bus.commanded == []


async def test_an_agent_takes_no_revision(client):
    problem(await client.post("/v1/agents/triage/runs", json={"revision": 2}), 422, "invalid_input")


@pytest.mark.parametrize("target", [START, "/v1/manifests"])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_above_the_limit_is_refused_with_both_sizes(client, world, target, announced):
    size = 5_000_000

    async def chunks():
        for _ in range(5):
            yield b" " * (size // 5)

    media = {"Content-Type": "application/json"}
    response = await client.post(target, content=b" " * size if announced else chunks(), headers=media)
    detail = problem(response, 413, "payload_too_large")["detail"]
    assert "4,194,304 bytes" in detail
    assert ("5,000,000 bytes" in detail) is announced
    assert world.bus.asked == world.bus.commanded == []


async def test_a_body_just_within_the_limit_is_taken(client, world):
    body = json.dumps({"input": "x" * (4 * 1024 * 1024 - 13)}).encode()
    assert len(body) == 4 * 1024 * 1024
    assert (await client.post(START, content=body, headers=JSON)).status_code == 202


@pytest.mark.parametrize(
    ("target", "media"),
    [(START, "application/x-www-form-urlencoded"), (START, "text/plain"), ("/v1/manifests", "image/png")],
)
async def test_other_content_types_are_refused_with_those_that_are_taken(client, target, media):
    response = await client.post(target, content=b"{}", headers={"Content-Type": media})
    assert "Content-Type: application/" in problem(response, 415, "invalid_input")["detail"]


async def test_manifests_that_are_not_utf8(client, world):
    response = await client.post("/v1/manifests", content=b"kind: \xe9", headers={"Content-Type": "application/yaml"})
    assert "offset 6" in problem(response, 400, "malformed_message")["detail"]
    assert world.bus.asked == []


async def test_a_manifest_that_cannot_run_keeps_every_finding(client, world):
    findings = [Finding(path="triage.yaml:Workflow/triage.spec.steps[1].needs[0]", message="no such step")]
    world.bus.answers[ApplyManifests] = SpecInvalid.many("triage.yaml", findings)
    body = problem(await client.post("/v1/manifests", content=b"kind: Workflow"), 422, "spec_invalid")
    assert body["problems"] == [finding.model_dump() for finding in findings]


async def test_a_key_that_was_used_otherwise_is_a_conflict(client, world):
    world.bus.answers[StartRun] = Conflict("that id started another run")
    problem(await client.post(START, json={}, headers={"Idempotency-Key": "k"}), 409, "conflict")


async def test_a_workflow_that_does_not_exist(client, world):
    world.bus.answers[StartRun] = NotFound("there is no workflow 'triage'")
    problem(await client.post(START, json={}), 404, "not_found")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.5:8080", "", "[", "localhost@evil.example"]
)
async def test_a_name_that_is_not_this_machine_is_refused(client, world, host):
    problem(await client.get("/v1/agents", headers={"Host": host}), 421, "forbidden")
    assert world.bus.asked == []


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080"])
async def test_names_of_this_machine_are_taken(client, world, host):
    world.bus.answers[GetSpec] = NotFound("no such agent")
    problem(await client.get("/v1/agents/a", headers={"Host": host}), 404, "not_found")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_pages_of_other_origins_are_refused(client, world, headers):
    response = await client.post("/v1/manifests", content=b"kind: Tool", headers=headers)
    problem(response, 403, "forbidden")
    assert world.bus.asked == []


async def test_problems_have_safe_headers_and_an_id(client):
    response = await client.get("/v1/nothing")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert response.json()["instance"].endswith(response.headers["x-request-id"])
