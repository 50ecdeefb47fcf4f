"""What users type, turned into data: inputs, labels and files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import JsonValue

from paracle_domain.errors import Finding, InvalidInput, MalformedMessage, NotFound, ParacleError, quote
from paracle_domain.messages import JsonObject
from paracle_domain.strict_json import parse_json

STDIN: Final = "-"
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_JOINED: Final = "manifests"
_PLACE: Final = re.compile(rf"\b{_JOINED}(?:#(?P<document>\d+)|:(?P<line>\d+):(?P<column>\d+))")

InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        help="key=text, key:=JSON or key=@file, may be repeated; or @file.json or a JSON object for all",
    ),
]
LabelOption = Annotated[list[str] | None, typer.Option("--label", "-l", help="key=value; may be repeated")]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="idempotency key: the same key starts the run once, however often it is sent"),
]


def parse_input(items: Sequence[str], option: str = "--input") -> JsonValue:
    """The input that `--input` options (or others like it, `option`) give.

    `key=text`, `key:=JSON`, `key=@file` (a file's text), `key:=@file` (a file's JSON) each set a field; a lone
    `@file` is the whole input as JSON, and so is a lone JSON object.
    """
    if len(items) == 1 and items[0].startswith("@"):
        return _json(read_text(Path(items[0][1:])), items[0][1:])
    if len(items) == 1 and items[0].lstrip().startswith("{"):
        return _json(items[0], option)
    fields: JsonObject = {}
    for item in items:
        key, value = _field(item, option)
        if key in fields:
            raise InvalidInput(f"{key!r} is given twice; give it once", path=option)
        fields[key] = value
    return fields


def read_value(text: str, option: str) -> JsonValue:
    """The JSON that an option gives, or the file that `@file` names."""
    return _json(read_text(Path(text[1:])) if text.startswith("@") else text, option)


def _field(item: str, option: str) -> tuple[str, JsonValue]:
    found = re.match(r"(?P<key>[^=:@][^=:]*)(?P<json>:?)=(?P<value>.*)", item, re.DOTALL)
    if found is None:
        message = f"{quote(item)} is none of key=text, key:=JSON and key=@file, nor @file.json or a JSON object for all"
        raise InvalidInput(message, path=option)
    key, value = found["key"], found["value"]
    text = read_text(Path(value[1:])) if value.startswith("@") else value
    return key, _json(text, f"{option} {key}") if found["json"] else text


def _json(text: str, where: str) -> JsonValue:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise MalformedMessage(f"not JSON: {error}", path=where) from error
    return value


def parse_labels(items: Sequence[str]) -> dict[str, str]:
    """The labels that `--label key=value` options give."""
    labels: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise InvalidInput(f"{quote(item)} is not key=value", path="--label")
        if labels.setdefault(key, value) != value:
            raise InvalidInput(f"no run has two values of label {quote(key)}; give one", path="--label")
    return labels


def read_text(path: Path) -> str:
    """The text of a file.

    Raises
    ------
    NotFound
        If it cannot be read.
    MalformedMessage
        If it is not UTF-8; the message says where.
    """
    try:
        return _decode(path.read_bytes(), str(path))
    except OSError as error:
        raise NotFound(f"cannot be read: {error.strerror}", path=str(path)) from error


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte 0x{content[error.start]:02x} in line {line}; save it as UTF-8"
        raise MalformedMessage(message, path=name) from error


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a bundle: its documents and lines come after those of the files before it."""

    name: str
    text: str
    first_line: int
    first_document: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """Manifests of several files as one text, applied all or none, since they refer to each other."""

    text: str
    source: str
    parts: tuple[Part, ...]

    def localize(self, error: ParacleError) -> ParacleError:
        """`error` with places in the whole text turned into places in its files."""
        if len(self.parts) == 1:
            return error
        problems = [Finding(path=self._there(one.path), message=self._there(one.message)) for one in error.problems]
        path = None if error.path is None else self._there(error.path)
        return type(error)(self._there(error.message), path=path, problems=problems, retry_after_s=error.retry_after_s)

    def _there(self, text: str) -> str:
        return _PLACE.sub(self._place, text)

    def _place(self, found: re.Match[str]) -> str:
        if found["document"] is not None:
            document = int(found["document"])
            part = self._part(lambda one: one.first_document <= document)
            return f"{part.name}#{document - part.first_document + 1}"
        line = int(found["line"])
        part = self._part(lambda one: one.first_line <= line)
        return f"{part.name}:{line - part.first_line + 1}:{found['column']}"

    def _part(self, begins_before: Callable[[Part], bool]) -> Part:
        return [part for part in self.parts if begins_before(part)][-1]


def bundle(paths: Sequence[str]) -> Bundle:
    """The manifests in `paths`: files, folders (their `.yaml`, `.yml` and `.json`, also deeper) or `-`."""
    return join({name: text for path in paths for name, text in _texts(path)})


def join(texts: dict[str, str]) -> Bundle:
    """`texts` by name as one text of YAML documents; those without any are left out, unless none has one."""
    texts = {name: text for name, text in texts.items() if count_documents(text)} or texts
    if len(texts) == 1:
        ((name, text),) = texts.items()
        return Bundle(text, name, (Part(name, text, 1, 1),))
    whole, parts, document = "", [], 1
    for name, text in texts.items():
        whole += _between(whole, text)
        parts.append(Part(name, text, whole.count("\n") + 1, document))
        whole += text if text.endswith("\n") else f"{text}\n"
        document += count_documents(text)
    return Bundle(whole, _JOINED, tuple(parts))


def _between(before: str, text: str) -> str:
    """What ends the documents before: `...`, and `---` where the next file does not bring its own start."""
    if not before:
        return ""
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    return "...\n" if first.startswith(("---", "%")) else "...\n---\n"


def count_documents(text: str) -> int:
    """How many documents of `text` have anything in them."""
    chunks = re.split(r"^(?:---|\.\.\.)(?=\s|$)", text, flags=re.MULTILINE)
    return sum(1 for chunk in chunks if any(_says_something(line) for line in chunk.splitlines()))


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#") and not line.startswith("%")


def _texts(path: str) -> list[tuple[str, str]]:
    if path == STDIN:
        return [("stdin", _decode(sys.stdin.buffer.read(), "stdin"))]
    place = Path(path)
    if not place.is_dir():
        return [(path, read_text(place))]
    files = sorted(one for one in place.rglob("*") if one.suffix in _SUFFIXES and one.is_file())
    if not files:
        raise NotFound("has no .yaml, .yml or .json file", path=path)
    return [(str(one), read_text(one)) for one in files]
