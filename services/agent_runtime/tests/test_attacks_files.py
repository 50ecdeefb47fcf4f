"""Attacks on what file tools may read and write: on real files, each refused, and told why."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tool_bench import Bench

from paracle_agent_runtime.tools import rooted
from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.errors import Forbidden, NotFound, ToolFailed
from paracle_domain.tool.spec import Permissions

TREASURE = "the treasure"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """`open` may be read, `desk` read and written; `vault` and what lies beside the root is nobody's."""
    inside = tmp_path / "root"
    for name in ("open/deep", "desk", "vault"):
        (inside / name).mkdir(parents=True)
    (inside / "open" / "a.txt").write_text("harmless")
    (inside / "vault" / "gold.txt").write_text(TREASURE)
    (tmp_path / "beside.txt").write_text(TREASURE)
    for number, target in enumerate(
        [
            inside / "vault",
            inside / "vault" / "gold.txt",
            tmp_path / "beside.txt",
            Path("/etc/passwd"),
            Path("/dev/zero"),
        ]
    ):
        for folder in ("open", "desk"):
            (inside / folder / f"link{number}").symlink_to(target)
    (inside / "open" / "up").symlink_to("../..")
    (inside / "desk" / "up").symlink_to("../..")
    (inside / "desk" / "dangling").symlink_to(tmp_path / "new.txt")
    os.link(inside / "vault" / "gold.txt", inside / "desk" / "hard.txt")
    os.mkfifo(inside / "desk" / "pipe")
    yield inside
    assert (inside / "vault" / "gold.txt").read_text() == TREASURE
    assert (tmp_path / "beside.txt").read_text() == TREASURE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside.txt", "root"]
    assert [path.name for path in (inside / "vault").iterdir()] == ["gold.txt"]


ESCAPES = [
    "vault/gold.txt",
    "./vault/gold.txt",
    "../vault/gold.txt",
    "../beside.txt",
    "../../beside.txt",
    "open/../vault/gold.txt",
    "open/../../beside.txt",
    "open/deep/../../vault/gold.txt",
    "open/up/beside.txt",
    "open/up/root/vault/gold.txt",
    "open/link0/gold.txt",
    "open/link1",
    "open/link2",
    "open/link3",
    "open/link4",
    "desk/up/beside.txt",
    "desk/link0/gold.txt",
    "/etc/passwd",
    "/etc/../etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "/proc/self/root/etc/passwd",
    "/proc/self/cwd",
    "/dev/stdin",
    "~/.ssh/id_rsa",
    "open/a.txt\x00.png",
    "\x00",
    "..",
    "/",
    "....//....//beside.txt",
    "..\\beside.txt",
    "%2e%2e/beside.txt",
    "file:///etc/passwd",
    "open/" + "../" * 200 + "etc/passwd",
    "x" * 4_000,
    "desk/pipe",
    "desk/dangling",
]
READERS: list[tuple[str, dict[str, Any]]] = [
    ("read_text", {}),
    ("list_files", {}),
    ("read_folder", {"recursive": True}),
    ("search_files", {"text": "e"}),
    ("csv_query", {}),
]


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize(("function", "more"), READERS, ids=[name for name, _ in READERS])
async def test_nothing_outside_is_read(root: Path, path: str, function: str, more: dict[str, Any]):
    bench = Bench(root)
    end = await bench.granted(function, {"path": path, **more}, {"paths": ["open"], "write_paths": ["desk"]})
    assert end.error is not None
    assert end.error.code in {"forbidden", "not_found", "input_schema_mismatch", "tool_failed"}
    assert len(end.error.message) > 15
    assert TREASURE not in repr(end)
    assert bench.bugs == []


WRITES = [path for path in ESCAPES if path not in {"....//....//beside.txt", "..\\beside.txt", "%2e%2e/beside.txt"}]


@pytest.mark.parametrize("path", [path for path in WRITES if not path.startswith(("~", "x", "file:", "desk/pipe"))])
@pytest.mark.parametrize("function", ["write_text", "append_text"])
async def test_nothing_outside_is_written(root: Path, path: str, function: str):
    bench = Bench(root)
    end = await bench.granted(function, {"path": path, "text": "x"}, {"paths": ["open"], "write_paths": ["desk"]})
    assert end.error is not None
    assert end.error.code in {"forbidden", "not_found"}
    assert (root / "open" / "a.txt").read_text() == "harmless"
    assert bench.bugs == []


@pytest.mark.parametrize("path", ["open/a.txt", "open/new.txt", "open/deep/new/new.txt", "desk", "desk/.", "."])
@pytest.mark.parametrize("function", ["write_text", "append_text"])
async def test_reading_is_no_permission_to_write(root: Path, path: str, function: str):
    end = await Bench(root).granted(
        function, {"path": path, "text": "x"}, {"paths": ["open", "."], "write_paths": ["desk"]}
    )
    assert end.error is not None
    assert "permissions.write_paths: desk" in end.error.message


@pytest.mark.parametrize("grant", ["..", "/", "/etc", "../..", "open/up", "desk/link0/../..", "/proc/self"])
async def test_no_manifest_grants_more_than_the_files_root(root: Path, grant: str):
    for path in ("/etc/passwd", "../beside.txt", "passwd"):
        end = await Bench(root).granted("read_text", {"path": path}, {"paths": [grant]})
        assert end.error is not None
        wrote = await Bench(root).granted("write_text", {"path": "../new.txt", "text": "x"}, {"write_paths": [grant]})
        assert wrote.error is not None


async def test_a_file_with_another_name_elsewhere_is_not_added_to_and_not_written_through(root: Path):
    permissions = {"write_paths": ["desk"]}
    end = await Bench(root).granted("append_text", {"path": "desk/hard.txt", "text": "x"}, permissions)
    assert end.error is not None
    assert "several names (hard links)" in end.error.message
    arguments = {"path": "desk/hard.txt", "text": "mine", "overwrite": True}
    assert (await Bench(root).granted("write_text", arguments, permissions)).error is None
    assert (root / "desk" / "hard.txt").read_text() == "mine"


async def test_pipes_devices_and_sockets_are_no_files_and_hold_nobody_up(root: Path):
    permissions = {"write_paths": ["desk"]}
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(root / "desk")
        listener.bind("sock")
        os.chdir(here)
        for name in ("pipe", "sock"):
            read = await Bench(root).granted("read_text", {"path": f"desk/{name}"}, permissions)
            assert read.error is not None
            added = await Bench(root).granted("append_text", {"path": f"desk/{name}", "text": "x"}, permissions)
            assert added.error is not None
        listed: Any = (await Bench(root).granted("list_files", {"path": "desk"}, permissions)).output
        assert [file["name"] for file in listed["files"]] == ["hard.txt"]


async def test_files_and_appends_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paracle_agent_runtime.tools.builtin.writing._FILE_BYTES", 10)
    permissions = {"write_paths": ["desk"]}
    first = await Bench(root).granted("append_text", {"path": "desk/log", "text": "123456"}, permissions)
    assert first.output == {"name": "log", "size_bytes": 6}
    second = await Bench(root).granted("append_text", {"path": "desk/log", "text": "123456"}, permissions)
    assert second.error is not None
    assert second.error.code == "payload_too_large"
    assert (root / "desk" / "log").read_text() == "123456"
    kept = await Bench(root).granted("write_text", {"path": "desk/log", "text": "x"}, permissions)
    assert kept.error is not None
    assert "overwrite: true" in kept.error.message
    assert sorted(path.name for path in (root / "desk").iterdir() if path.name.startswith(".")) == []


async def test_a_folder_of_very_many_files_says_so(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paracle_agent_runtime.tools.builtin.files._FILES", 2)
    for number in range(3):
        (root / "open" / f"{number}.txt").write_text("x")
    end = await Bench(root).granted("list_files", {"path": "open"}, {"paths": ["open"]})
    assert end.error is not None
    assert end.error.code == "payload_too_large"


# ── swapped between check and use ────────────────────────────────────────────────────────────────────────────────────


def replace_by_link(path: Path, target: Path) -> None:
    path.rename(path.with_name(f"{path.name}.was"))
    path.symlink_to(target)


def test_a_file_that_became_a_link_is_not_opened(root: Path):
    replace_by_link(root / "open" / "a.txt", root / "vault" / "gold.txt")
    with pytest.raises(Forbidden, match="became a symbolic link"):
        rooted.open_file(root, root / "open" / "a.txt")


def test_a_folder_on_the_way_that_became_a_link_is_not_entered(root: Path):
    (root / "open" / "gold.txt").write_text("harmless")
    replace_by_link(root / "open", root / "vault")
    with pytest.raises(Forbidden, match="became a symbolic link"):
        rooted.open_file(root, root / "open" / "gold.txt")
    with pytest.raises(Forbidden), rooted.folder(root, root / "open"):
        pass


def test_nothing_is_written_through_a_folder_that_became_a_link(root: Path):
    replace_by_link(root / "desk", root / "vault")
    with pytest.raises(Forbidden):
        rooted.replace_file(root, root / "desk" / "gold.txt", b"x", overwrite=True)
    with pytest.raises(Forbidden):
        rooted.append_file(root, root / "desk" / "gold.txt", b"x", most=100)
    with pytest.raises(Forbidden):
        rooted.append_file(root, root / "open" / "link1", b"x", most=100)


def test_a_link_that_takes_the_place_of_what_is_replaced_is_replaced_itself(root: Path):
    rooted.replace_file(root, root / "desk" / "link1", b"mine", overwrite=True)
    assert not (root / "desk" / "link1").is_symlink()


def test_what_is_gone_or_no_folder_says_so(root: Path):
    with pytest.raises(NotFound):
        rooted.open_file(root, root / "open" / "ghost")
    with pytest.raises(NotFound):
        rooted.open_file(root, root / "open" / "a.txt" / "b")
    with pytest.raises(ToolFailed, match="no regular file"):
        rooted.open_file(root, root / "open" / "deep")


async def test_swapping_links_in_all_the_while_gains_nothing(root: Path):
    """One thread swaps a folder for a link and back; reading and writing either meet the folder or are refused."""
    (root / "open" / "gold.txt").write_text("harmless")
    (root / "open" / "gate").mkdir()
    (root / "open" / "gate" / "gold.txt").write_text("harmless")
    stop = threading.Event()

    def swap() -> None:
        gate, away = root / "open" / "gate", root / "open" / "away"
        while not stop.is_set():
            gate.rename(away)
            with suppress(FileExistsError):  # whoever writes may have made the folder anew
                gate.symlink_to(root / "vault")
                gate.unlink()
            while away.exists():
                shutil.rmtree(gate, ignore_errors=True)
                with suppress(OSError):
                    away.rename(gate)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        bench = Bench(root)
        for _ in range(200):
            for function in ("read_text", "read_folder"):
                path = "open/gate/gold.txt" if function == "read_text" else "open/gate"
                assert TREASURE not in repr(await bench.granted(function, {"path": path}, {"paths": ["open"]}))
            arguments = {"path": "open/gate/gold.txt", "text": "harmless", "overwrite": True}
            await bench.granted("write_text", arguments, {"write_paths": ["open"]})
            assert (root / "vault" / "gold.txt").read_text() == TREASURE
        assert bench.bugs == []
    finally:
        stop.set()
        thread.join()


PARTS = st.sampled_from(
    ["open", "desk", "vault", "deep", "gold.txt", "link0", "link1", "up", "..", ".", "", "~", "new", "\x00"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PARTS, min_size=1, max_size=8), st.booleans())
def test_whatever_a_path_is_made_of_it_stays_inside(root: Path, parts: list[str], absolute: bool):
    grants = Grants("t", Permissions(paths=("open",), write_paths=("desk",)), root, {})
    text = f"{root}/" * absolute + "/".join(parts)
    for find, folders in ((grants.path, ("open", "desk")), (grants.writable, ("desk",))):
        with suppress(Forbidden, NotFound):
            found = find(text)
            assert found == found.resolve()
            assert any(found.is_relative_to(root / folder) for folder in folders)


async def test_what_is_granted_can_be_read_written_and_searched(root: Path):
    bench = Bench(root)
    permissions = {"paths": ["open"], "write_paths": ["desk"]}
    (root / "desk" / "pipe").unlink()
    assert (await bench.granted("write_text", {"path": "desk/a/b.txt", "text": "One\ntwo\n"}, permissions)).output == {
        "name": "b.txt",
        "size_bytes": 8,
    }
    assert (await bench.granted("append_text", {"path": "a/b.txt", "text": "one"}, permissions)).error is None
    found: Any = await bench.granted("search_files", {"path": "desk", "text": "ONE", "ignore_case": True}, permissions)
    assert found.output == {
        "matches": [
            {"file": "a/b.txt", "line": 1, "text": "One"},
            {"file": "a/b.txt", "line": 3, "text": "one"},
        ],
        "truncated": False,
    }
    one: Any = await bench.granted("search_files", {"path": "desk", "text": "o", "max_matches": 1}, permissions)
    assert one.output["truncated"] is True
    listed: Any = await bench.granted("list_files", {"path": "desk", "recursive": True}, permissions)
    assert [file["name"] for file in listed.output["files"]] == ["a/b.txt", "hard.txt"]


async def test_a_search_stops_where_memory_ends(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paracle_agent_runtime.tools.builtin.files._SEARCH_BYTES", 4)
    end: Any = await Bench(root).granted("search_files", {"path": "open", "text": "a"}, {"paths": ["open"]})
    assert end.output == {"matches": [{"file": "a.txt", "line": 1, "text": "har"}], "truncated": True}
