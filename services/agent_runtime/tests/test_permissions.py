"""What tools may touch: paths, hosts, secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tool_bench import Bench
from yarl import URL

from paracle_agent_runtime.app import log_bug
from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.errors import Forbidden, NotFound
from paracle_domain.tool.spec import Permissions


def grants(root: Path, **permissions: Any) -> Grants:
    return Grants("t", Permissions.model_validate(permissions), root, {"PARACLE_SECRET_KEY": "v", "HOME": "/root"})


@pytest.mark.parametrize(
    "path", ["private/key.txt", "mails/../private/key.txt", "/etc/passwd", "mails/leak.txt", "..", "../../etc", "a\0b"]
)
def test_paths_outside_the_granted_folders_are_refused(bench: Bench, tmp_path: Path, path: str):
    with pytest.raises(Forbidden):
        grants(tmp_path, paths=["mails"]).path(path)


def test_nothing_granted_nothing_readable(bench: Bench, tmp_path: Path):
    with pytest.raises(Forbidden, match=r"permissions\.paths: none"):
        grants(tmp_path).path("mails")


def test_a_manifest_cannot_grant_more_than_the_files_root(bench: Bench, tmp_path: Path):
    with pytest.raises(Forbidden):
        grants(tmp_path / "mails", paths=["/", "..", str(tmp_path)]).path(str(tmp_path / "private" / "key.txt"))


def test_paths_may_be_relative_to_the_root_or_to_a_granted_folder(bench: Bench, tmp_path: Path):
    granted = grants(tmp_path, paths=["mails"])
    assert granted.path("mails/a.txt") == granted.path("a.txt") == granted.path(str(tmp_path / "mails" / "a.txt"))
    with pytest.raises(NotFound):
        granted.path("mails/ghost.txt")


def test_a_metadata_service_can_be_granted_by_its_address_alone(tmp_path: Path):
    url = URL("http://169.254.169.254/latest")
    grants(tmp_path, hosts=["169.254.169.254:80"], private_networks=True).url(url)
    named = grants(tmp_path, hosts=["metadata.example", "10.0.0.1"], private_networks=True)
    with pytest.raises(Forbidden, match="metadata service"):
        named.address("metadata.example", "169.254.169.254")
    named.address("intranet.example", "10.0.0.1")


def test_a_host_that_is_none_matches_nothing(tmp_path: Path):
    for entry in ("[", "a:b:c", "", "*"):
        with pytest.raises(Forbidden):
            grants(tmp_path, hosts=[entry]).url(URL("http://api.example/"))


def test_what_a_broken_tool_said_is_logged_without_secrets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("PARACLE_SECRET_KEY", "hunter2secret")
    log_bug("t", ValueError("no hunter2secret here"))
    assert "ValueError: no [secret KEY] here" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://evil.example/", "http://api.example:81/", "ftp://api.example/", "http://127.0.0.1/"]
)
def test_hosts_that_are_not_granted_are_refused(tmp_path: Path, url: str):
    with pytest.raises(Forbidden):
        grants(tmp_path, hosts=["api.example:80", "127.0.0.1"]).url(URL(url))


def test_secrets_are_given_by_name_and_permission(tmp_path: Path):
    allowed = grants(tmp_path, secrets=["KEY", "GONE"])
    assert allowed.fill_secrets("Bearer ${KEY}") == "Bearer v"
    with pytest.raises(NotFound, match="PARACLE_SECRET_GONE"):
        allowed.secret("GONE")
    with pytest.raises(Forbidden, match="may not use secret HOME"):
        allowed.secret("HOME")
