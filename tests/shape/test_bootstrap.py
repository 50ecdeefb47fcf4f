"""Which Python `scripts/bootstrap` takes, and what it takes for one that was built for speed."""

from __future__ import annotations

import os
import runpy
import subprocess
from pathlib import Path

import pytest
from tests.shape.repository import ROOT

PYENV = "'--prefix=/opt/pyenv/3.12.1' '--enable-shared' 'LDFLAGS=-L/opt/pyenv/3.12.1/lib'"
IMAGE = "'--build=x86_64-linux-gnu' '--enable-loadable-sqlite-extensions' '--enable-optimizations' '--with-lto'"
DEBIAN = "'--enable-shared' '--prefix=/usr' '--with-computed-gotos' '--without-ensurepip' '--with-system-expat'"
USED = "-fprofile-use -fprofile-correction"


@pytest.mark.parametrize(
    ("arguments", "flags", "fast"),
    [
        (PYENV, USED, False),
        (IMAGE, USED, True),
        (DEBIAN, "", True),
        (None, None, True),
        ("'--with-pydebug'", USED, False),
    ],
)
def test_how_a_python_was_built(arguments: str | None, flags: str | None, fast: bool) -> None:
    assert runpy.run_path(str(ROOT / "scripts/interpreter"))["by_profile"](arguments, flags) is fast


class Machine:
    """Interpreters that say of themselves what they are, in the order in which they are found."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: list[str] = []

    def has(self, name: str, version: str, *, fast: bool = False, pip: bool = True) -> str:
        path = self._folder / name
        old = int(version < "3.12")
        path.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *"(3, 12)"*) exit {old};; *print*) echo {version};; '
            f"scripts/interpreter) exit {int(not fast)};; *import*) exit {int(not pip)};; esac\n"
        )
        path.chmod(0o755)
        self._found.append(str(path))
        return str(path)

    def ask(self, question: str, **environment: str) -> tuple[str, str]:
        """What a part of the script prints, and what it complains of."""
        found = "".join(f"{one}\n" for one in ("", *self._found, str(self._folder / "nothing")))
        script = f"source scripts/bootstrap; candidates() {{ printf '%s' '{found}'; }}; {question}"
        told = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        return told.stdout.strip(), told.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_first_that_is_new_enough_is_taken(machine: Machine) -> None:
    assert machine.ask("find_python") == ("", "")
    machine.has("a", "3.11")
    first = machine.has("b", "3.12")
    machine.has("c", "3.12")
    assert machine.ask("find_python") == (first, "")


def test_of_one_version_the_fast_one_is_taken(machine: Machine) -> None:
    machine.has("a", "3.11", fast=True)
    machine.has("b", "3.12")
    machine.has("c", "3.13", fast=True)
    fast = machine.has("d", "3.12", fast=True)
    assert machine.ask("find_python") == (fast, "")


def test_the_version_that_is_preferred_is_not_given_up_for_speed(machine: Machine) -> None:
    first = machine.has("a", "3.12")
    machine.has("b", "3.13", fast=True)
    assert machine.ask("find_python") == (first, "")


def test_a_named_one_that_is_too_old_is_told(machine: Machine) -> None:
    named = machine.has("a", "3.11")
    told = machine.ask("find_python", PARACLE_PYTHON=named)
    assert told[0] == ""
    assert f"PARACLE_PYTHON={named} is no Python 3.12 or newer" in told[1]


def test_who_cannot_install_leaves_it_to_another(machine: Machine) -> None:
    chosen = machine.has("a", "3.12", fast=True, pip=False)
    other = machine.has("b", "3.11")
    assert machine.ask(f"find_installer '{chosen}'") == (other, "")
    assert machine.ask(f"find_installer '{other}'") == (other, "")
    assert machine.ask("find_installer ''") == (other, "")
