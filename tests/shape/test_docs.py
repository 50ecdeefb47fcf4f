"""What the documents show has to be there: files, targets, commands, decisions."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.shape.repository import ROOT, text, tracked
from typer.exceptions import TyperException
from typer.main import get_command

from paracle_client.cli.app import app, spelled_out
from paracle_domain.errors import BY_CODE
from paracle_domain.subjects import Subject

DOCUMENTS = [path for path in tracked() if path.suffix == ".md"]
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))
STATUS = re.compile(r"^Status: (accepted|proposed|superseded by ADR \d{4})$", re.MULTILINE)


def _shown_commands(name: str) -> list[list[str]]:
    """Calls of `name` in code, as words: in fenced or indented blocks, and between backticks."""
    code = "\n".join(
        block.strip("`")
        for path in DOCUMENTS
        for block in re.findall(r"```\w*\n.*?```|`[^`\n]+`|^ {4}\S.*$", text(path), re.DOTALL | re.MULTILINE)
    )
    return [line.split() for line in re.findall(rf"^\s*(?:\$ )?{name} +(.+)$", code, re.MULTILINE)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text(path))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert not [link for link in local if not (path.parent / link).exists()]


@pytest.mark.parametrize("path", ADRS[1:], ids=lambda path: path.name)
def test_a_decision_has_a_number_a_status_and_its_parts(path: Path) -> None:
    content = text(path)
    assert content.startswith(f"# ADR {path.name[:4]}: ")
    assert STATUS.search(content)
    assert re.findall(r"^## (.+)$", content, re.MULTILINE) == ["Why", "Decision", "What follows"]


def test_decisions_are_numbered_on_and_listed() -> None:
    assert [path.name[:4] for path in ADRS] == [f"{index:04}" for index in range(len(ADRS))]
    index = text(ROOT / "docs" / "README.md")
    assert not [path.name for path in ADRS if f"adr/{path.name}" not in index]


def test_shown_targets_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", text(ROOT / "Makefile"), re.MULTILINE))
    shown: set[str] = set()
    for words in _shown_commands("make"):
        shown.update(itertools.takewhile(re.compile(r"[a-z][a-z0-9-]*").fullmatch, words))
    assert {"demo", "test"} <= shown
    assert shown <= targets


def test_every_target_says_what_it_does() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.+)$", text(ROOT / "Makefile"), re.MULTILINE)
    assert phony is not None
    assert not [name for name in phony.group(1).split() if not re.search(rf"^  {name} ", told, re.MULTILINE)]


def _parse(arguments: list[str]) -> None:
    """Read `arguments` as `paracle` does, down to the command that they name; nothing is carried out."""
    command: Any = get_command(app)
    context, rest = None, arguments
    name = "paracle"
    while True:
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


def test_shown_commands_can_be_given() -> None:
    shown = {" ".join(words) for words in _shown_commands("(?:.venv/bin/)?paracle")}
    assert len(shown) > 100
    wrong = {}
    for line in sorted(shown):
        words = spelled_out(shlex.split(line, comments=True))
        given = list(itertools.takewhile(lambda word: word[0] not in "|&>[", words))
        if given == ["--install-completion"]:  # which would do it
            continue
        try:
            _parse(given)
        except TyperException as error:
            if type(error).__name__ != "MissingParameter":  # prose names commands without all that they want
                wrong[line] = str(error)
    assert wrong == {}
    for unknown in (["runs", "lss"], ["runs", "ls", "--statu", "failed"], ["dlq", "show", "a", "b"]):
        with pytest.raises(TyperException):
            _parse(unknown)


def test_shown_subjects_are_of_the_contract() -> None:
    shown = {name for path in DOCUMENTS for name in re.findall(r"paracle\.v1\.default\.[\w.*]*[\w*]", text(path))}
    assert shown
    for name in shown:
        Subject.parse(name.replace("*", "any"))


def test_shown_error_codes_are_there() -> None:
    shown = {code for path in DOCUMENTS for code in re.findall(r"code `(\w+)`", text(path))}
    assert shown <= set(BY_CODE)
