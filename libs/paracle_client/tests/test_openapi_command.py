"""`paracle import openapi`, as it is typed."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from paracle_client.cli import main
from paracle_client.cli.import_commands import parse
from paracle_domain.errors import SpecInvalid

YAML = """
openapi: 3.0.3
servers: [{url: "https://pets.example"}]
paths:
  /pets:
    get:
      operationId: pets
      parameters: [{name: sold, in: query, schema: {type: string, enum: [yes, no, 2020-01-01]}}]
      responses: {200: {description: ok}}
"""


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr("sys.argv", ["paracle", "import", "openapi", *argv])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_file_becomes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "pets.yaml").write_text(YAML)
    assert run(monkeypatch, str(tmp_path / "pets.yaml"), "--out", str(tmp_path / "tools.yaml")) == 0
    [tool] = yaml.safe_load_all((tmp_path / "tools.yaml").read_text())
    assert tool["spec"]["input"]["properties"]["sold"]["enum"] == ["yes", "no", "2020-01-01"]
    assert capsys.readouterr().err == "1 tool, 0 notes\n"


def test_standard_input_becomes_standard_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(YAML.replace("https:", "ftp:").encode())))
    assert run(monkeypatch, "-", "--server", "https://other.example") == 0
    assert "url: https://other.example/pets" in capsys.readouterr().out


@pytest.fixture
def served() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/openapi.yaml" else 404)
            self.end_headers()
            self.wfile.write(YAML.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_fetched(served: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert run(monkeypatch, f"{served}/openapi.yaml") == 0
    assert "kind: Tool" in capsys.readouterr().out
    monkeypatch.setattr("paracle_client.cli.import_commands.MAX_BYTES", 10)
    assert run(monkeypatch, f"{served}/openapi.yaml") == 1
    assert "has more than 10 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/nowhere/pets.yaml"], "cannot be read"),
        (["{served}/ghost"], "answered 404"),
        (["http://127.0.0.1:1/x"], "cannot be fetched"),
        (["{file}", "--server", "pets.example"], "begins with http://"),
        (["{file}", "--out", "/nowhere/tools.yaml"], "cannot be written"),
        (["{empty}"], "no operation became a tool"),
    ],
)
def test_what_cannot_be_done_is_told(
    argv: list[str],
    message: str,
    served: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "pets.yaml").write_text(YAML)
    (tmp_path / "empty.yaml").write_text("openapi: 3.1.0\n")
    places = {"served": served, "file": str(tmp_path / "pets.yaml"), "empty": str(tmp_path / "empty.yaml")}
    assert run(monkeypatch, *(word.format(**places) for word in argv)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: &a [*a]",
        "[" * 3_000,
        "\x00",
        "a: &a [x]\n"
        + "".join(f"{c}: &{c} [*{p},*{p},*{p},*{p}]\n" for p, c in zip("abcdefghijklm", "bcdefghijklmn", strict=True)),
    ],
)
def test_text_that_is_no_document_is_refused(text: str):
    with pytest.raises(SpecInvalid):
        parse(text, "pets.yaml")


def test_tags_make_texts():
    assert parse("a: !!timestamp 2020-01-01\n1: .5", "x") == {"a": "2020-01-01", "1": 0.5}
