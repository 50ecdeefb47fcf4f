"""The API's own description: committed, complete, and readable without a network."""

import html
import json
import re
import shlex

from paracle_api_gateway.app import create_routes
from paracle_api_gateway.openapi import SNAPSHOT, document, text_of
from paracle_api_gateway.routes.budgets import BudgetRequest
from paracle_api_gateway.routes.runs import RunRequest


def test_the_committed_document_is_that_of_the_code():
    message = "run `python -m paracle_api_gateway.openapi --write` and commit what it writes"
    assert SNAPSHOT.read_text("utf-8") == text_of(create_routes()), message


def test_every_tag_is_described_and_used():
    described = {tag["name"] for tag in document(create_routes())["tags"]}
    assert described == {tag for _, operation in operations() for tag in operation["tags"]}


def operations():
    return [(path, one) for path, some in document(create_routes())["paths"].items() for one in some.values()]


def test_every_operation_says_what_it_does():
    names = [operation["operationId"] for _, operation in operations()]
    assert len(set(names)) == len(names)
    for path, operation in operations():
        assert operation["summary"], path
        assert operation["description"], path
        assert operation["tags"], path
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"]), path


def test_every_failure_is_documented_as_a_problem():
    for path, operation in operations():
        failures = [told for status, told in operation["responses"].items() if int(status) >= 400]
        if path.startswith("/v1/"):
            assert failures, path
            assert all(list(told["content"]) == ["application/problem+json"] for told in failures), path


def test_every_reference_leads_somewhere():
    text = json.dumps(document(create_routes()))
    known = document(create_routes())["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= set(known)


async def test_the_document_and_its_page_are_served(client):
    assert (await client.get("/openapi.json")).json() == json.loads(SNAPSHOT.read_text("utf-8"))
    page = await client.get("/docs")
    assert "/v1/workflows/{name}/runs" in page.text
    anchors = set(re.findall(r"(?:src|href)=['\"]?(?!openapi\.json)([^ >]+)", page.text))
    assert anchors <= {f"#{name}" for name in re.findall(r" id=([^ >]+)", page.text)}, "nothing from elsewhere"
    assert "<script" not in page.text


async def test_the_page_shows_how_each_operation_is_asked_for(client):
    page = (await client.get("/docs")).text
    shown = [shlex.split(html.unescape(call)) for call in re.findall(r"<pre>(.*?)</pre>", page)]
    assert len(shown) == len([*operations()])
    assert all("{" not in url for call in shown for url in call if url.startswith("http"))
    [started] = [call for call in shown if any(word.endswith("/v1/workflows/triage/runs") for word in call)]
    assert RunRequest.model_validate_json(started[-1]).input == {"text": "My invoice is wrong."}
    [limit] = [call for call in shown if "PUT" in call]
    assert BudgetRequest.model_validate_json(limit[-1]).of == "atlas"
    assert "project | user" in page, "the values of a field that has few"
