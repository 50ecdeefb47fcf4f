"""The embedded stack, with small services of the test's own in place of the real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import typer

from paracle_client import Stack, StackFailed
from paracle_client.cli.stack_commands import read_replicas, resolve_root, status_lines
from paracle_client.stack import SERVICES, Service, State, health
from paracle_client.stack import stack as stack_module
from paracle_client.stack.state import Member
from paracle_embedded import ProcessRef, spawn

WORKING = """
    import http.server, json, os, sys
    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(dict(os.environ)).encode())
        def log_message(self, *args):
            pass
    port = int(os.environ.get("PARACLE_API_PORT") or os.environ["PARACLE_HEALTH_PORT"])
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""
BROKEN = "import sys; print('the sky fell'); sys.exit(3)"
NEVER_READY = "import signal; print('thinking', flush=True); signal.pause()"


class Home:
    """A stack whose services are packages in a folder of the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, monkeypatch
        self.lines: list[str] = []
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        monkeypatch.setenv("PYTHONPATH", path)
        monkeypatch.syspath_prepend(str(folder))
        self.stack: Stack | None = None

    def services(self, **sources: str) -> None:
        for name, source in sources.items():
            package = self.folder / f"paracle_{name}"
            package.mkdir(exist_ok=True)
            (package / "__init__.py").touch()
            (package / "__main__.py").write_text(dedent(source), encoding="utf-8")
        self.patch.setattr(stack_module, "SERVICES", tuple(Service(name) for name in sources))

    def open(self, **options: Any) -> Stack:
        self.stack = Stack(self.folder / ".paracle", report=self.lines.append, **{"port": 0, **options})
        return self.stack


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(health, "_TIMEOUT_S", 60.0)  # whoever only stands still for a moment is ready
    one = Home(tmp_path, monkeypatch)
    yield one
    if one.stack is not None:
        one.stack.down()


def test_each_service_sees_only_what_is_for_it() -> None:
    given = {
        "PATH": "/bin", "PARACLE_LOG_LEVEL": "DEBUG", "AWS_SECRET_ACCESS_KEY": "x", "HTTPS_PROXY": "p",
        "OPENAI_API_KEY": "k", "MISTRAL_API_KEY": "k", "PARACLE_OPENAI_BASE_URL": "u", "PARACLE_SECRET_CRM": "s",
    }  # fmt: skip
    seen = {one.name: sorted(set(one.inherits(given)) - {"PATH", "PARACLE_LOG_LEVEL"}) for one in SERVICES}
    assert seen == {
        "registry": [],
        "orchestrator": [],
        "agent_runtime": ["HTTPS_PROXY", "PARACLE_SECRET_CRM"],
        "provider_gateway": ["HTTPS_PROXY", "MISTRAL_API_KEY", "OPENAI_API_KEY", "PARACLE_OPENAI_BASE_URL"],
        "observability": [],
        "api_gateway": [],
    }


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"paracle_nowhere is not installed; `make setup`"):
        _ = Service("nowhere").database


def test_state_survives_a_round_trip_and_is_written_whole(tmp_path: Path) -> None:
    state = State(
        {"registry": Member(ProcessRef(1, 2.5), 3), "api_gateway": Member(ProcessRef(4, 5.5), 6, 6)},
        "http://x",
        {"registry": 2},
    )
    state.save(tmp_path)
    assert State.load(tmp_path) == state
    assert [one.name for one in tmp_path.iterdir()] == ["state.json"]
    assert State.load(tmp_path / "absent") == State()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"members": {"registry": {}}}', '{"members": []}'])
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text, encoding="utf-8")
    with pytest.raises(StackFailed, match=r"state\.json is damaged"):
        Stack(tmp_path)


def test_a_stack_that_was_never_up(tmp_path: Path) -> None:
    stack = Stack(tmp_path / ".paracle")
    assert not stack.is_up
    assert {one.state for one in stack.status()} == {"down"}
    assert stack.down() is False
    with pytest.raises(StackFailed, match="never up"):
        _ = stack.url
    with pytest.raises(StackFailed, match="do not run"):
        stack.provision()
    with pytest.raises(StackFailed, match="there is no process 'oracle'; known: nats, postgres, registry"):
        stack.kill("oracle")


def test_the_nearest_stack_is_found_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert resolve_root(None) == Path(".paracle")
    (tmp_path / ".paracle").mkdir()
    State().save(tmp_path / ".paracle")
    assert resolve_root(None) == tmp_path / ".paracle"
    assert resolve_root(Path("x")) == Path("x")


@pytest.mark.connected
def test_up_down_and_all_between(home: Home) -> None:
    home.services(registry=WORKING, api_gateway=WORKING)
    stack = home.open(extra_env={"registry": {"EXTRA": "1"}})

    assert stack.up() is True
    assert home.lines[-1].endswith(stack.url)
    assert [line.split()[:2] for line in home.lines if line.startswith("  ")][-2:] in (
        [["registry", "ready"], ["api_gateway", "ready"]],
        [["api_gateway", "ready"], ["registry", "ready"]],
    )
    environment = asked(f"http://127.0.0.1:{stack._state.members['registry'].health_port}")
    assert environment["EXTRA"] == "1"
    assert environment["PARACLE_NATS_URL"] == stack.nats_url
    assert stack.postgres.password not in json.dumps(environment)
    assert Path(environment["PARACLE_FILES_ROOT"]) == home.folder

    pids = {one.name: one.pid for one in stack.status()}
    assert all(one.ready for one in stack.status())
    assert len(status_lines(stack.status())) == 5
    assert home.open().up() is False  # another handle finds it up, and leaves it as it is
    assert {one.name: one.pid for one in home.open().status()} == pids

    stack.kill("registry")
    assert [one.name for one in stack.status() if not one.ready] == ["registry"]
    assert home.open().up() is True  # starts what is missing, and only that
    again = {one.name: one.pid for one in stack.status()}
    assert [name for name in pids if pids[name] != again[name]] == ["registry"]

    stack.restart("nats")
    stack.kill("postgres")
    stack.start("postgres")
    assert all(one.ready for one in stack.status())
    url = stack.url
    assert stack.down() is True
    assert {one.state for one in stack.status()} == {"down"}

    home.lines.clear()
    same = home.open(port=None)
    assert same.up() is True
    assert same.url == url
    assert not any("provision" in line for line in home.lines)  # it is in place


@pytest.mark.connected
def test_what_is_set_after_the_start_is_told(home: Home) -> None:
    home.patch.setenv("PARACLE_LOG_LEVEL", "INFO")
    home.services(orchestrator=WORKING, api_gateway=WORKING)
    stack = home.open(replicas={"orchestrator": 2}, extra_env={"orchestrator-2": {"PARACLE_POOLS": "heavy"}})
    stack.up()
    assert stack.drift() == []
    home.patch.setenv("PARACLE_LOG_LEVEL", "DEBUG")
    home.patch.setenv("PARACLE_SECRET_CRM", "x")  # none of these services would see it
    others = home.open(port=1)
    assert others.up() is False
    assert others.drift()[:-1] == [
        f"  PARACLE_API_PORT is 1 here; api_gateway runs with {stack.url.rpartition(':')[2]}",
        "  PARACLE_LOG_LEVEL is DEBUG here; every service runs with INFO",
        "  PARACLE_POOLS is not set here; orchestrator-2 runs with heavy",
    ]
    stack.kill("orchestrator-2")
    assert home.open().up() is True
    assert [line for line in home.open().drift() if "POOLS" in line] == []
    home.open().down()
    assert home.open().drift() == [], "nothing runs that could differ"


@pytest.mark.connected
def test_replicas_are_started_remembered_and_stopped(home: Home) -> None:
    home.services(orchestrator=WORKING, api_gateway=WORKING)
    stack = home.open(replicas={"orchestrator": 3}, extra_env={"orchestrator-2": {"EXTRA": "second"}})
    stack.up()
    names = ["orchestrator", "orchestrator-2", "orchestrator-3"]
    assert [one.name for one in stack.status() if one.ready] == ["nats", "postgres", *names, "api_gateway"]
    members = stack._state.members
    assert [asked(f"http://127.0.0.1:{members[name].health_port}").get("EXTRA") for name in names] == [
        None, "second", None,
    ]  # fmt: skip
    assert len({stack.pid(name) for name in names}) == 3

    stack.kill("orchestrator-3")
    same = home.open()  # who does not say how many gets as many as there were
    assert same.up() is True
    assert [one.name for one in same.status() if one.ready][2:5] == names
    pid = same.pid("orchestrator-3")
    assert pid is not None
    gone = ProcessRef.of(pid)

    fewer = home.open(replicas={"orchestrator": 1})
    assert fewer.up() is True
    assert [one.name for one in fewer.status()] == ["nats", "postgres", "orchestrator", "api_gateway"]
    assert not gone.alive
    assert home.open().up() is False


@pytest.mark.parametrize(
    ("replicas", "message"),
    [
        ({"api_gateway": 2}, "'api_gateway' cannot have replicas; those that can are registry, orchestrator"),
        ({"postgres": 2}, "'postgres' cannot have replicas"),
        ({"orchestrator": 0}, "orchestrator cannot have 0 replicas; give a number from 1 to 32"),
        ({"orchestrator": 33}, "orchestrator cannot have 33 replicas"),
    ],
)
def test_replicas_that_cannot_be(tmp_path: Path, replicas: dict[str, int], message: str) -> None:
    with pytest.raises(StackFailed, match=message):
        Stack(tmp_path, replicas=replicas)


def test_replicas_on_the_command_line() -> None:
    assert read_replicas("orchestrator=2, agent_runtime=3,") == {"orchestrator": 2, "agent_runtime": 3}
    for wrong in ("orchestrator", "orchestrator=", "orchestrator=two", "=-1"):
        with pytest.raises(typer.BadParameter, match="is no number of replicas"):
            read_replicas(wrong)


@pytest.mark.connected
def test_a_service_that_ends_is_named_and_everything_is_stopped(home: Home) -> None:
    home.services(registry=WORKING, orchestrator=BROKEN)
    stack = home.open()
    with pytest.raises(StackFailed) as caught:
        stack.up()
    message = str(caught.value)
    assert message.startswith(
        "orchestrator ended with exit code 3 before it was ready\nlog: .paracle/logs/orchestrator.log"
    )
    assert "the sky fell" in message
    assert {one.state for one in stack.status()} == {"down"}


@pytest.mark.connected
def test_a_service_that_never_gets_ready_is_named(home: Home) -> None:
    home.services(api_gateway=WORKING)
    home.open().up()  # so that the time below is the service's alone
    home.open().down()
    home.services(registry=NEVER_READY)
    stack = home.open(ready_timeout_s=8.0)
    with pytest.raises(StackFailed, match=r"(?s)registry is not ready after 8 s \(.*refused.*thinking"):
        stack.up()
    assert {one.state for one in stack.status()} == {"down"}


@pytest.mark.connected
def test_the_api_is_started_again_where_it_was(home: Home) -> None:
    home.services(api_gateway=WORKING)
    stack = home.open(port=0)
    stack.up()
    url = stack.url
    stack.kill("api_gateway")
    stack.start("api_gateway")
    assert stack.url == url


@pytest.mark.connected
def test_a_port_that_is_taken(home: Home) -> None:
    home.services(api_gateway=WORKING)
    stack = home.open()
    stack.up()
    other = Stack(home.folder / "other", port=int(stack.url.rpartition(":")[2]))
    with pytest.raises(StackFailed, match="is taken; give another with --port"):
        other.up()
    assert not other.nats.data_dir.exists(), "nothing was started for it"


@pytest.fixture
def heeded() -> Iterator[None]:
    """Whoever starts the tests in the background of a shell has them ignore interrupts, and all that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.connected
@pytest.mark.usefixtures("heeded")
def test_interrupting_a_start_leaves_nothing_behind(home: Home) -> None:
    home.services(registry=NEVER_READY)
    code = "import sys; sys.argv = ['paracle', 'up', '--port', '0']; from paracle_client.cli import main; main()"
    home.open()
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, cwd=home.folder)
    assert child.stderr is not None
    for line in child.stderr:
        if b"provision" in line:
            child.send_signal(signal.SIGINT)
            break
    child.stderr.read()
    child.stderr.close()
    assert child.wait(60) != 0
    assert {one.state for one in home.open().status()} == {"down"}


@pytest.mark.connected
@pytest.mark.usefixtures("heeded")
def test_an_interrupt_while_a_service_is_started_leaves_it_not_behind(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.services(registry=NEVER_READY)
    started: list[ProcessRef] = []

    def interrupted(*arguments: Any, **options: Any) -> ProcessRef:
        ref = spawn(*arguments, **options)
        if options["log"].name == "registry.log":
            started.append(ref)
            signal.raise_signal(signal.SIGINT)
        return ref

    monkeypatch.setattr("paracle_client.stack.stack.spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        home.open().up()
    assert [ref.alive for ref in started] == [False]


def asked(url: str) -> dict[str, str]:
    import httpx2

    with httpx2.Client(trust_env=False, timeout=60) as client:
        found: dict[str, str] = client.get(url).json()
    return found
