"""Bad input gets a clear error where it comes in, by the command line and by REST, and nothing is stored of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.bad import BAD, GOOD, Bad
from tests.e2e.world import System, paracle

from paracle_client import AsyncClient
from paracle_client.calls.manifests import PLURALS
from paracle_domain.run.commands import RunStatus

YAML = {"content-type": "application/yaml"}
PROBLEM = "application/problem+json"
NOT_UTF8 = b"apiVersion: paracle/v1\nkind: Agent\nmetadata: {name: caf\xe9}\nspec: {}\n"
NUMBERS = "{% for i in range(input.n | int) %}{% for k in range(input.n | int) %}{{ i + k }}{% endfor %}{% endfor %}"
FOREVER = f"""
apiVersion: paracle/v1
kind: Workflow
metadata: {{name: forever}}
spec:
  steps: [{{id: a, agent: innocent, input: {{text: "{NUMBERS}"}}}}]
---
apiVersion: paracle/v1
kind: Agent
metadata: {{name: dizzy}}
spec: {{instructions: "{NUMBERS}"}}
"""
WORKFLOW = """
apiVersion: paracle/v1
kind: Workflow
metadata: {name: reading}
spec:
  input: {type: object, required: [text], properties: {text: {type: string}}}
  steps: [{id: a, agent: innocent, input: {text: "{{ input.text }}"}}]
"""


@pytest.fixture
async def rest(system: System) -> AsyncIterator[httpx2.AsyncClient]:
    """A bare HTTP client."""
    await asyncio.to_thread(system.apply, f"{GOOD}---{WORKFLOW}")
    async with httpx2.AsyncClient(base_url=system.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
async def unchanged(system: System, rest: httpx2.AsyncClient) -> AsyncIterator[None]:
    """Whatever the test does, it stores nothing."""
    async with system.client() as client:
        before = await stored(client)
        yield
        assert await stored(client) == before


async def stored(client: AsyncClient) -> Any:
    """Every manifest with its revision, and the newest runs."""
    specs = [(plural, one.name, one.revision) for plural in PLURALS for one in (await client.list(plural)).specs]
    return specs, [run.run_id for run in (await client.runs(limit=500)).runs]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
async def test_rest_refuses_bad_manifests(rest: httpx2.AsyncClient, bad: Bad) -> None:
    also_good = GOOD.replace("innocent", "bystander")
    answer = await rest.post("/v1/manifests", content=f"{also_good}---\n{bad.text}", headers=YAML)
    problem = assert_problem(answer, 422, bad.code)
    assert bad.path in problem["path"], problem
    assert bad.words in problem["detail"]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
async def test_the_command_line_refuses_bad_manifests(system: System, tmp_path: Path, bad: Bad) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(bad.text, encoding="utf-8")
    told = await asyncio.to_thread(paracle, "apply", "-f", str(file), url=system.url)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("error: ")
    assert "Traceback" not in told.stderr
    assert "bad.yaml" in told.stderr
    assert bad.path in told.stderr
    assert bad.words in told.stderr


@pytest.mark.usefixtures("unchanged")
async def test_manifests_that_are_not_utf8(system: System, rest: httpx2.AsyncClient, tmp_path: Path) -> None:
    problem = assert_problem(await rest.post("/v1/manifests", content=NOT_UTF8, headers=YAML), 400, "malformed_message")
    assert "UTF-8" in problem["detail"]
    file = tmp_path / "latin.yaml"
    file.write_bytes(NOT_UTF8)
    told = await asyncio.to_thread(paracle, "apply", "-f", str(file), url=system.url)
    assert told.returncode == 1
    assert "latin.yaml: not UTF-8: byte 0xe9 in line 3" in told.stderr


@pytest.mark.usefixtures("unchanged")
async def test_inputs_that_are_not_utf8(system: System, rest: httpx2.AsyncClient, tmp_path: Path) -> None:
    body = b'{"input": {"text": "caf\xe9"}}'
    answer = await rest.post("/v1/workflows/reading/runs", content=body, headers={"content-type": "application/json"})
    assert "UTF-8" in assert_problem(answer, 400, "malformed_message")["detail"]
    file = tmp_path / "latin.txt"
    file.write_bytes(b"caf\xe9")
    told = await asyncio.to_thread(paracle, "run", "reading", "-i", f"text=@{file}", url=system.url)
    assert told.returncode == 1
    assert "not UTF-8" in told.stderr


@pytest.mark.usefixtures("unchanged")
async def test_an_input_of_five_megabytes(system: System, rest: httpx2.AsyncClient, tmp_path: Path) -> None:
    text = "x" * 5_000_000
    answer = await rest.post("/v1/workflows/reading/runs", json={"input": {"text": text}})
    assert_problem(answer, 413, "payload_too_large")
    file = tmp_path / "large.txt"
    file.write_text(text, encoding="utf-8")
    told = await asyncio.to_thread(paracle, "run", "reading", "-i", f"text=@{file}", url=system.url)
    assert told.returncode == 1
    assert "4,194,304 bytes" in told.stderr


@pytest.mark.usefixtures("unchanged")
async def test_an_input_that_does_not_fit(system: System, rest: httpx2.AsyncClient) -> None:
    answer = await rest.post("/v1/workflows/reading/runs", json={"input": {"text": 7}})
    assert assert_problem(answer, 422, "input_schema_mismatch")["path"] == "input.text"
    told = await asyncio.to_thread(paracle, "run", "reading", "-i", "text:=7", url=system.url)
    assert told.returncode == 1
    assert "input.text" in told.stderr


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("path", ["/v1/workflows/nowhere/runs", "/v1/agents/nobody/runs"])
async def test_what_does_not_exist_cannot_be_run(rest: httpx2.AsyncClient, path: str) -> None:
    assert_problem(await rest.post(path, json={"input": {}}), 404, "not_found")


@pytest.mark.usefixtures("unchanged")
async def test_the_command_line_names_what_does_not_exist(system: System) -> None:
    for command in (["run", "nowhere"], ["invoke", "nobody", "hello"], ["explain", "nobody"]):
        told = await asyncio.to_thread(paracle, *command, url=system.url)
        assert told.returncode == 1
        assert command[1] in told.stderr
    unknown = await asyncio.to_thread(paracle, "events", "run_01JDZ7T6C4W2V9M3N5K8Q0XHRC", url=system.url)
    assert unknown.returncode == 1
    assert "there is no run" in unknown.stderr


@pytest.mark.parametrize(
    "start",
    [["run", "forever", "--input", "n=90000", "--watch"], ["invoke", "dizzy", '{"n": 90000}']],
    ids=["step", "agent"],
)
async def test_an_expression_that_its_input_makes_endless_fails_its_run(
    system: System, rest: httpx2.AsyncClient, start: list[str]
) -> None:
    """What an input does to an expression cannot be seen before: it runs out of fuel, and holds nobody up."""
    await asyncio.to_thread(system.apply, FOREVER)
    told = await asyncio.to_thread(paracle, *start, "-o", "json", url=system.url)
    assert told.returncode == 1
    assert "expression_failed" in told.stderr
    assert "ran out of fuel" in told.stderr
    run = json.loads(told.stdout)
    assert (run["run"]["status"], run["output"]) == (RunStatus.FAILED, None)
    assert run["error"]["path"]


def assert_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """`answer` is the problem `code`, as RFC 9457 has it."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    problem: dict[str, Any] = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"]
    return problem
