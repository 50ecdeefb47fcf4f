"""What of a tool could never work is known before anybody calls it."""

from collections.abc import Mapping

import pytest

from paracle_domain.tool.spec import ToolSpec
from paracle_domain.tool.validation import BUILTINS, validate_tool


def found(backend: Mapping[str, object], **permissions: object) -> list[tuple[str, str]]:
    spec = ToolSpec.model_validate({"description": "d", "backend": backend, "permissions": permissions})
    return [(finding.path or "", finding.message) for finding in validate_tool(spec)]


def builtin(function: str, **permissions: object) -> list[tuple[str, str]]:
    return found({"type": "builtin", "function": function}, **permissions)


def test_a_function_that_there_is_not():
    [(path, message)] = builtin("shel")
    assert path == "spec.backend.function"
    assert message == "there is no builtin function 'shel'; did you mean 'shell'?"


@pytest.mark.parametrize("function", BUILTINS)
def test_a_function_gets_what_it_cannot_do_without(function: str):
    needed = BUILTINS[function]
    missing = [] if needed is None else [f"spec.permissions.{needed}"]
    assert [path for path, _ in builtin(function)] == missing
    everything = {"paths": ["a"], "write_paths": ["a"], "hosts": ["a.example"], "execute": {}}
    assert builtin(function, **everything) == []


def test_who_may_write_a_folder_may_read_it():
    assert builtin("read_text", write_paths=["a"]) == []


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://api.example/v1", ["api.example"]),
        ("https://API.example./v1", ["Api.Example"]),
        ("https://api.example/v1", ["api.example:443"]),
        ("http://api.example/v1", ["api.example:80"]),
        ("http://api.example:8080/v1", ["other", "api.example:8080"]),
        ("https://{region}.example/v1", []),
        ("https://[::1]/v1", []),
        ("https://münchen.example/v1", []),
        ("https://api.example:port/v1", []),
    ],
)
def test_a_url_whose_host_is_granted_or_known_only_later(url: str, hosts: list[str]):
    assert found({"type": "http", "url": url}, hosts=hosts) == []


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://api.example/v1/{id}", []),
        ("https://api.example/v1", ["example"]),
        ("https://api.example/v1", ["api.example:80"]),
        ("https://someone@api.example/v1", ["someone"]),
    ],
)
def test_a_url_whose_host_is_not_granted(url: str, hosts: list[str]):
    said = "has to name 'api.example', which the URL leads to"
    assert found({"type": "http", "url": url}, hosts=hosts) == [("spec.permissions.hosts", said)]


def test_secrets_are_granted_by_name():
    backend = {"type": "http", "url": "https://{x}", "headers": {"A": "Bearer ${TOKEN}", "B": "${KEY}${TOKEN}"}}
    assert found(backend, secrets=["KEY"]) == [("spec.permissions.secrets", "has to name TOKEN, which a header holds")]
    assert found(backend, secrets=["KEY", "TOKEN"]) == []


def test_workers_and_mcp_servers_are_granted_by_name():
    worker = {"type": "nats", "tool": "look_up"}
    said = "has to name 'look_up', which the backend asks"
    assert found(worker, workers=["other"]) == [("spec.permissions.workers", said)]
    assert found(worker, workers=["look_up"]) == []
    server = {"type": "mcp", "server": "files", "tool": "read", "digest": "0" * 64}
    said = "has to name 'files', which the backend asks"
    assert found(server) == [("spec.permissions.mcp_servers", said)]
    assert found(server, mcp_servers=["files"]) == []
