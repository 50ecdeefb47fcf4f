"""Attacks by commands that tools run: on real processes, each kept in, stopped, or refused, and told why."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tool_bench import SECRET, Bench

from paracle_agent_runtime.tools.sandbox import processes
from paracle_agent_runtime.tools.toolbox import ToolEnd
from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import Forbidden
from paracle_domain.task.inputs import Outcome

BWRAP = shutil.which("bwrap")
RUN = {"execute": {"memory_mb": 256, "processes": 16, "output_bytes": 20_000, "scratch_mb": 8}}
WAYS: dict[str, dict[str, Any]] = {
    "bubblewrap": {},
    "unsandboxed": {"unsandboxed": True, "bubblewrap": "/nowhere/bwrap"},
}
MARK = "PARACLE_ATTACK_MARK"


@pytest.fixture(params=["bubblewrap", "unsandboxed"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Both ways to run a command."""
    if request.param == "bubblewrap" and BWRAP is None:
        pytest.skip("bubblewrap (bwrap) is not installed here, so the sandbox was not attacked")
    made = Bench(tmp_path, **WAYS[request.param])
    yield made
    await made.http.aclose()
    assert made.bugs == []


@pytest.fixture
async def walled(tmp_path: Path) -> AsyncIterator[Bench]:
    """Within bubblewrap only."""
    if BWRAP is None:
        pytest.skip("bubblewrap (bwrap) is not installed here, so the sandbox was not attacked")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "a.txt").write_text("hello")
    (tmp_path / "private.txt").write_text(SECRET)
    made = Bench(tmp_path)
    yield made
    await made.http.aclose()
    assert made.bugs == []


async def shell(bench: Bench, command: str, *args: str, **more: Any) -> ToolEnd:
    permissions = more.pop("permissions", RUN)
    return await bench.granted("shell", {"command": command, "args": list(args)}, permissions, **more)


async def python(bench: Bench, code: str, **more: Any) -> ToolEnd:
    return await bench.granted("python", {"code": code, **more.pop("arguments", {})}, RUN, **more)


def said(end: ToolEnd) -> str:
    assert end.error is None, end.error
    assert isinstance(end.output, dict)
    return f"{end.output['stdout']}{end.output['stderr']}"


def children() -> list[int]:
    """The processes that a test has begun, and all below them; servers of other tests are none of them."""
    begun = [pid for pid in processes._children(os.getpid()) if pid not in OTHERS]
    living = [pid for pid in begun if not processes._is_zombie(pid)]
    return [*living, *(below for pid in begun for below in processes.family(pid))]


OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def _know_others() -> None:
    OTHERS.clear()
    OTHERS.update(processes._children(os.getpid()))


def _everyone() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  # bare numbers


def _is_marked(pid: int) -> bool:
    try:
        return MARK.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


async def test_commands_run(bench: Bench):
    end = await bench.granted("shell", {"command": 'cat; echo "$1"; exit 3', "args": ["b"], "stdin": "a\n"}, RUN)
    assert end.output == {"exit_code": 3, "stdout": "a\nb\n", "stderr": ""}
    code = "import sys; print(sys.argv[1:], sys.stdin.read(), file=sys.stderr)"
    end = await bench.granted("python", {"code": code, "args": ["x"], "stdin": "y"}, RUN)
    assert end.output == {"exit_code": 0, "stdout": "", "stderr": "['x'] y\n"}
    assert (await shell(bench, "kill -9 $$")).output == {"exit_code": 137, "stdout": "", "stderr": ""}


@pytest.mark.parametrize(
    "text",
    [
        "$(id)",
        "`id`",
        "; id",
        "| id",
        "&& id",
        "\n id",
        "'; id; '",
        '"; id; "',
        "${IFS}id",
        "-rf",
        "--help",
        "*",
        "$1",
        "\\",
    ],
)
async def test_arguments_are_never_a_part_of_the_script(bench: Bench, text: str):
    end = await bench.granted("shell", {"args": [text]}, RUN, command='printf "%s" "$1"')
    assert end.output == {"exit_code": 0, "stdout": text, "stderr": ""}


async def test_arguments_cannot_overrule_what_the_manifest_fixes(bench: Bench):
    end = await bench.granted("shell", {"command": "echo theirs"}, RUN, command="echo ours")
    assert said(end) == "ours\n"
    refused = await bench.granted("python", {"args": ["a\0b"]}, RUN, code="1")
    assert refused.error is not None
    assert refused.error.code == "input_schema_mismatch"


async def test_without_the_permission_nothing_runs(bench: Bench):
    for function, arguments in (("shell", {"command": "true"}), ("python", {"code": "1"})):
        end = await bench.granted(function, arguments, {"hosts": ["a"], "paths": ["."], "secrets": ["KEY"]})
        assert end.error is not None
        assert (end.error.code, end.error.path) == ("forbidden", "permissions.execute")


# They end at some hundred processes: where the user is root, as in a container, nothing but the watch holds them.
BOMBS = {
    "fork bomb in sh": ("shell", "f() { [ $1 -gt 7 ] || f $(($1+1)) | f $(($1+1)); sleep 60; }; f 0", ("processes",)),
    "fork bomb in Python": ("python", "import os,time\nfor _ in range(8): os.fork()\ntime.sleep(60)", ("processes",)),
    "many sleepers": ("shell", "for i in $(seq 200); do sleep 60 & done; sleep 60", ("processes",)),
    "memory of many": (
        "python",
        "import os,time\nfor i in range(8): os.fork() or (bytearray(90 << 20), time.sleep(60))\ntime.sleep(60)",
        ("memory_mb", "processes"),
    ),
    "huge output": ("shell", "head -c 100000000 /dev/zero", ("output_bytes",)),
    "endless output": ("shell", "yes", ("output_bytes",)),
    "endless errors": ("shell", "yes >&2", ("output_bytes",)),
    "output from the background": ("shell", "(yes &) ; sleep 60", ("output_bytes",)),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_bombs_are_stopped_and_named(bench: Bench, name: str):
    function, text, limits = BOMBS[name]
    argument = "command" if function == "shell" else "code"
    end = await bench.granted(function, {argument: f"{text}\n# {MARK}"}, RUN)
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("limit_exceeded", Outcome.UNKNOWN)
    assert any(f"{limit} = " in end.error.message for limit in limits), end.error.message
    assert children() == []


async def test_a_process_that_takes_too_much_memory_gets_none(bench: Bench):
    end = await python(bench, "try: bytearray(1 << 30)\nexcept MemoryError: print('none')")
    assert said(end) == "none\n"


async def test_files_and_descriptors_are_bounded(bench: Bench):
    assert "File too large" in said(await shell(bench, "head -c 20000000 /dev/zero > f || true")) or BWRAP
    end = await python(
        bench, "a=[]\ntry:\n  while 1: a.append(open('/dev/null'))\nexcept OSError as e: print(e.strerror)"
    )
    assert said(end) == "Too many open files\n"


@pytest.mark.parametrize(
    "command",
    [
        "while :; do :; done",
        "sleep 1000",
        "trap '' TERM INT HUP; sleep 1000",
        "sleep 1000 & sleep 1000 & wait",
        "setsid sleep 1000 & sleep 1000",
        "nohup sleep 1000 >/dev/null 2>&1 & sleep 1000",
        "(setsid sh -c 'sleep 1000 & sleep 1000' &) ; sleep 1000",
        "exec sleep 1000 0<&- 1>&- 2>&-",
    ],
)
async def test_no_process_outlives_its_time(bench: Bench, command: str):
    end = await shell(bench, command, MARK, timeout_s=0.7)
    assert end.error is not None
    assert "did not answer within timeout_s" in end.error.message
    assert children() == []


@pytest.mark.parametrize(
    "command", ["sleep 1000 & echo done", "setsid sleep 1000 & echo done", "nohup sleep 1000 & echo done"]
)
async def test_no_process_outlives_its_command(bench: Bench, command: str):
    assert "done" in said(await shell(bench, command))
    assert children() == []


async def test_a_cancelled_call_leaves_no_process(bench: Bench, tmp_path: Path):
    call = asyncio.create_task(shell(bench, "setsid sleep 1000 & sleep 1000", MARK))
    await eventually(_some_sleeper)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert children() == []


def _some_sleeper() -> bool:
    return any("sleep" in _name(pid) for pid in children())


def _name(pid: int) -> str:
    """The name of a process; none if it has ended meanwhile, as those do that only start others."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


KILLED = """
import asyncio, json, sys
from pathlib import Path
from tool_bench import Bench
async def main():
    bench = Bench(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    call = bench.granted("shell", {"command": sys.argv[3], "args": [sys.argv[4]]}, {"execute": {}}, timeout_s=60)
    await call
asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["bubblewrap", "unsandboxed"])
async def test_processes_go_with_a_runtime_that_is_killed(tmp_path: Path, way: str):
    if way == "bubblewrap" and BWRAP is None:
        pytest.skip("bubblewrap (bwrap) is not installed here, so the sandbox was not attacked")
    command = f"setsid sleep 1000 & exec sh -c 'sleep 1000; sleep 1' {MARK}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "support")}
    runtime = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, str(tmp_path), json.dumps(WAYS[way]), command, "x"), env=environment
    )
    await eventually(_marked_runs)
    family = processes.family(runtime.pid)
    runtime.send_signal(signal.SIGKILL)
    await runtime.wait()
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))


def _marked_runs() -> bool:
    return any(_is_marked(pid) for pid in _everyone())


@pytest.mark.parametrize(
    "code",
    [
        "import os; print(dict(os.environ))",
        "print(open('/proc/self/environ').read())",
        "print(open('/proc/1/environ').read())",
        "import os; print(open(f'/proc/{os.getppid()}/environ').read())",
        "import glob; print([open(p,'rb').read() for p in glob.glob('/proc/*/environ')])",
        "import glob; print([open(p,'rb').read() for p in glob.glob('/proc/*/cmdline')])",
        "import os; print([open(f'/dev/fd/{n}').read() for n in range(3, 50) if os.path.exists(f'/dev/fd/{n}')])",
        "import subprocess; print(subprocess.run(['env'], capture_output=True).stdout)",
    ],
)
async def test_no_environment_is_to_be_seen(bench: Bench, code: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARACLE_SECRET_KEY", SECRET)
    end = await python(bench, code)
    assert SECRET not in repr(end)
    assert "PARACLE_SECRET" not in repr(end)


@pytest.mark.parametrize(
    "command",
    [
        "cat /etc/shadow",
        "ls /etc/ssh",
        "ls /home",
        "cat /proc/1/environ",
        "ls /proc/self",
        "ls /sys",
        "ls /run",
        "ls /var",
        "cat /files/private.txt",
        "cat /files/in/../private.txt",
        "ls /files/vault",
        "echo x > /files/in/new",
        "echo x > /files/new",
        "rm /files/in/a.txt",
        "echo x > /usr/bin/x",
        "echo x > /x",
        "echo x > /dev/shm/x",
        "head -c 20000000 /dev/zero > /tmp/big",
        "mount -t tmpfs x /tmp",
        "unshare -Ur true",
        "chroot /files",
        "mknod /tmp/sda b 8 0",
        "nsenter -t 1 -m true",
    ],
)
async def test_the_sandbox_holds(walled: Bench, command: str):
    permissions = {**RUN, "paths": ["in"], "write_paths": ["out"]}
    end = await shell(walled, f"{command} || exit 9", permissions=permissions)
    assert isinstance(end.output, dict)
    assert end.output["exit_code"] in {9, 137}, end.output
    assert SECRET not in repr(end)


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)",
        "import socket; socket.create_connection(('169.254.169.254', 80), 2)",
        "import socket; s=socket.socket(socket.AF_UNIX); s.connect('\\0paracle-attack-' + sys.argv[1])",
        "import socket; socket.getaddrinfo('example.org', 80)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    ],
)
async def test_there_is_no_network_in_the_sandbox(walled: Bench, code: str):
    heard = []
    server = await asyncio.start_server(lambda *_: heard.append(1), "127.0.0.1", 0)
    port = str(server.sockets[0].getsockname()[1])
    hidden = await asyncio.start_unix_server(lambda *_: heard.append(1), f"\0paracle-attack-{port}")
    arguments = {"args": [port]}
    end = await python(walled, f"import sys\ntry:\n  {code}\nexcept OSError: print('shut')", arguments=arguments)
    assert said(end) == "shut\n"
    assert heard == []
    for one in (server, hidden):
        one.close()
        await one.wait_closed()


async def test_granted_folders_are_there(walled: Bench, tmp_path: Path):
    permissions = {**RUN, "paths": ["in", "gone"], "write_paths": ["out"]}
    end = await shell(walled, "cp /files/in/a.txt /files/out/b.txt; ls /files", permissions=permissions)
    assert said(end) == "in\nout\n"
    assert (tmp_path / "out" / "b.txt").read_text() == "hello"


async def test_granted_folders_are_where_the_variable_says(bench: Bench, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("hello")
    assert said(await shell(bench, 'cat "$FILES/in/a.txt"', permissions={**RUN, "paths": ["in"]})) == "hello"


async def test_bubblewrap_is_used_where_it_works_whatever_is_allowed_elsewhere(walled: Bench, tmp_path: Path):
    end = await shell(Bench(tmp_path, unsandboxed=True), "ls $FILES; ls /proc/self")
    assert "/proc/self" in said(end)
    assert "private.txt" not in said(end)


async def test_links_in_granted_folders_lead_nowhere(walled: Bench, tmp_path: Path):
    (tmp_path / "in" / "link").symlink_to(tmp_path / "private.txt")
    (tmp_path / "in" / "up").symlink_to("..")
    permissions = {**RUN, "paths": ["in"]}
    end = await shell(walled, "cat /files/in/link /files/in/up/private.txt; ls /files/in/up/", permissions=permissions)
    assert SECRET not in repr(end)


async def test_no_bubblewrap_no_command(tmp_path: Path):
    end = await shell(Bench(tmp_path, bubblewrap="/nowhere/bwrap"), "true")
    assert end.error is not None
    assert end.error.code == "forbidden"
    assert "is not installed" in end.error.message
    assert "PARACLE_UNSANDBOXED_EXECUTION=true" in end.error.message
    assert end.outcome is Outcome.NOT_DONE


@pytest.mark.parametrize(
    ("body", "within_s", "why"),
    [("echo no namespaces >&2; exit 1", 60.0, "no namespaces"), ("sleep 600", 0.3, "in time")],
)
async def test_a_bubblewrap_that_does_not_work_is_not_used(
    tmp_path: Path, body: str, within_s: float, why: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("paracle_agent_runtime.tools.sandbox.bubblewrap._PROBE_S", within_s)
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    end = await shell(Bench(tmp_path, bubblewrap=str(program)), "true")
    assert end.error is not None
    assert end.error.code == Forbidden.code
    assert "bubblewrap does not work here" in end.error.message
    assert why in end.error.message
