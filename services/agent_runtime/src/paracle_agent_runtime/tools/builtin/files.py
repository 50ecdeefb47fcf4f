"""Builtin functions that list, read and search files in granted folders. They never write."""

from __future__ import annotations

import asyncio
import email
import email.policy
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from pydantic import Field, JsonValue

from paracle_agent_runtime.tools import rooted
from paracle_agent_runtime.tools.builtin.arguments import Arguments
from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.errors import InputInvalid, PayloadTooLarge, quote
from paracle_domain.messages import JsonObject
from paracle_domain.strict_json import whole_text

_BYTES_PER_CHAR: Final = 4
_FOLDER_CHARS: Final = 8_000_000
_FILES: Final = 100_000
_DEPTH: Final = 50
_SEARCH_BYTES: Final = 64 << 20
_LINE: Final = 500
_MAIL: Final = re.compile(r"\A(?:[A-Za-z][A-Za-z0-9-]*:[^\n]*\n(?:[ \t][^\n]*\n)*){2,}", re.MULTILINE)
_MAIL_FIELDS: Final = ("from", "to", "date", "subject")


class _Read(Arguments):
    path: str = Field(min_length=1, max_length=4_096)
    max_chars: int = Field(default=20_000, ge=1, le=1_000_000)


class _List(Arguments):
    path: str = Field(default=".", min_length=1, max_length=4_096)
    pattern: str = Field(default="*", min_length=1, max_length=200)
    recursive: bool = False
    max_files: int = Field(default=200, ge=1, le=10_000)


class _Folder(_List):
    max_chars: int = Field(default=4_000, ge=1, le=100_000, description="of each file's text")


class _Search(_List):
    text: str = Field(min_length=1, max_length=1_000, description="what a line must hold, as it is")
    recursive: bool = True
    ignore_case: bool = False
    max_matches: int = Field(default=100, ge=1, le=1_000)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file: its name below the folder that was asked for, and its real path below the root."""

    name: str
    path: Path
    root: Path

    def shown(self) -> JsonValue:
        """Its name and size."""
        with rooted.open_file(self.root, self.path) as file:
            return {"name": self.name, "size_bytes": os.fstat(file.fileno()).st_size}

    def read(self, limit: int) -> tuple[bytes, int]:
        """The first bytes, and how many there are."""
        with rooted.open_file(self.root, self.path) as file:
            return file.read(limit), os.fstat(file.fileno()).st_size


async def list_files(arguments: JsonObject, grants: Grants) -> JsonValue:
    """Names and sizes of the files of a folder whose names match `pattern`, in order of name."""
    asked = _List.take(arguments)
    found = await asyncio.to_thread(_matching, asked, grants)
    return {
        "files": await asyncio.to_thread(lambda: [one.shown() for one in found[: asked.max_files]]),
        "total": len(found),
        "truncated": len(found) > asked.max_files,
    }


async def read_text(arguments: JsonObject, grants: Grants) -> JsonValue:
    """The text of one file, at most `max_chars` of it, and the charset that it was read as."""
    asked = _Read.take(arguments)
    path = grants.path(asked.path)
    if not path.is_file():
        raise InputInvalid(f"{quote(asked.path)} is no file", path="path")
    found = _Found(whole_text(path.name), path, grants.bound)
    return {"name": found.name, **await asyncio.to_thread(_text_of, found, asked.max_chars)}


async def read_folder(arguments: JsonObject, grants: Grants) -> JsonValue:
    """All matching files of a folder, in order of name: text, size, and the headers of those that are mails."""
    asked = _Folder.take(arguments)
    found = await asyncio.to_thread(_matching, asked, grants)
    files = await asyncio.to_thread(_entries, found[: asked.max_files], asked.max_chars)
    return {"files": list(files), "total": len(found), "truncated": len(found) > len(files)}


async def search_files(arguments: JsonObject, grants: Grants) -> JsonValue:
    """The lines of a folder's files that hold `text`, each with its file and number."""
    asked = _Search.take(arguments)
    found = await asyncio.to_thread(_matching, asked, grants)
    return await asyncio.to_thread(_search, found[: asked.max_files], asked, truncated=len(found) > asked.max_files)


def _matching(asked: _List, grants: Grants) -> list[_Found]:
    """Files only; a link that leads out of the granted folders, or to a folder, is not among them."""
    top, root = grants.path(asked.path), grants.bound
    if not top.is_dir():
        raise InputInvalid(f"{quote(asked.path)} is no folder", path="path")
    found = []
    for path in _walk(root, top, depth=_DEPTH if asked.recursive else 0):
        if not fnmatch(path.name, asked.pattern):
            continue
        real = path.resolve() if path.is_symlink() else path
        if real.is_file() and grants.inside(real):
            found.append(_Found(whole_text(str(path.relative_to(top))), real, root))
        if len(found) > _FILES:
            raise PayloadTooLarge(f"{quote(asked.path)} holds more than {_FILES:,} files that match", path="path")
    return sorted(found, key=lambda one: one.name)


def _walk(root: Path, top: Path, *, depth: int) -> Iterator[Path]:
    """What lies in `top`, and in its folders `depth` levels down; links to folders are not followed."""
    with rooted.folder(root, top) as handle, os.scandir(handle) as entries:
        for entry in entries:
            yield top / entry.name
            if depth and entry.is_dir(follow_symlinks=False):
                yield from _walk(root, top / entry.name, depth=depth - 1)


def _search(files: list[_Found], asked: _Search, *, truncated: bool) -> JsonObject:
    wanted = asked.text.casefold() if asked.ignore_case else asked.text
    matches: list[JsonValue] = []
    left = _SEARCH_BYTES
    for one in files:
        raw, size = one.read(left)
        text, _ = _decode(raw, cut=size > len(raw))
        for number, line in enumerate(text.splitlines(), 1):
            if wanted not in (line.casefold() if asked.ignore_case else line):
                continue
            if len(matches) == asked.max_matches:
                return {"matches": matches, "truncated": True}
            matches.append({"file": one.name, "line": number, "text": whole_text(line[:_LINE])})
        left -= len(raw)
        if left <= 0:
            return {"matches": matches, "truncated": True}
    return {"matches": matches, "truncated": truncated}


def _entries(found: list[_Found], max_chars: int) -> list[JsonObject]:
    """As many as memory bears: a result is held, stored and sent as a whole."""
    entries: list[JsonObject] = []
    left = _FOLDER_CHARS
    for one in found:
        entry = _entry(one, max_chars)
        left -= len(str(entry["text"]))
        if left < 0:
            break
        entries.append(entry)
    return entries


def _entry(found: _Found, max_chars: int) -> JsonObject:
    raw, size, cut = _read(found, max_chars)
    text, charset = _decode(raw, cut=cut)
    headers: JsonObject = {}
    if _MAIL.match(text):
        with suppress(Exception):  # the parser raises whatever it likes at what was made to break it: then it is text
            headers, text = _mail(raw, text)
    return {
        "name": found.name,
        **({"subject": headers.get("subject", ""), "headers": headers} if headers else {}),
        **_shown(text, charset, max_chars, size, cut=cut),
    }


def _text_of(found: _Found, max_chars: int) -> JsonObject:
    raw, size, cut = _read(found, max_chars)
    text, charset = _decode(raw, cut=cut)
    return _shown(text, charset, max_chars, size, cut=cut)


def _shown(text: str, charset: str, max_chars: int, size: int, *, cut: bool) -> JsonObject:
    return {
        "text": whole_text(text[:max_chars]),
        "charset": charset,
        "size_bytes": size,
        "truncated": cut or len(text) > max_chars,
        "empty": not cut and not text.strip(),
    }


def _read(found: _Found, max_chars: int) -> tuple[bytes, int, bool]:
    """As many bytes as `max_chars` characters can have (and a mail's headers); how many there are; whether more."""
    limit = max_chars * _BYTES_PER_CHAR + 65_536
    raw, size = found.read(limit + 1)
    return raw[:limit], size, len(raw) > limit


def _decode(raw: bytes, *, cut: bool) -> tuple[str, str]:
    """`raw` as text. What is no UTF-8 is Windows-1252, or Latin-1, which every byte string is."""
    whole = raw[: _last_whole(raw)] if cut else raw
    for charset in ("utf-8-sig", "cp1252"):
        try:
            return whole.decode(charset).replace("\r\n", "\n"), charset.removesuffix("-sig")
        except UnicodeDecodeError:
            continue
    return whole.decode("latin-1").replace("\r\n", "\n"), "latin-1"


def _last_whole(raw: bytes) -> int:
    """Where the last character that may be cut in half begins."""
    for back in range(1, min(_BYTES_PER_CHAR, len(raw)) + 1):
        if raw[-back] & 0xC0 != 0x80:
            return len(raw) - back
    return len(raw)


def _mail(raw: bytes, text: str) -> tuple[JsonObject, str]:
    """Headers and body of a mail; `raw` decides, since a mail says its own charset, and `text` helps where it lies."""
    message = email.message_from_bytes(raw, _class=EmailMessage, policy=email.policy.default)
    headers: JsonObject = {name: whole_text(str(message[name])) for name in _MAIL_FIELDS if message[name] is not None}
    if not headers:
        return {}, text
    body = message.get_body(preferencelist=("plain", "html"))
    try:
        content = str(body.get_content()) if body is not None else ""
    except (LookupError, ValueError):  # a charset that nobody knows
        content = ""
    if (not content or "\N{REPLACEMENT CHARACTER}" in content) and not message.is_multipart():
        content = text.partition("\n\n")[2]
    return headers, content
