"""Builtin functions that read files in granted folders. They never write."""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
from contextlib import suppress
from email.message import EmailMessage
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from pydantic import Field, JsonValue

from paracle_agent_runtime.tools.builtin.arguments import Arguments
from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.errors import InputInvalid, ToolFailed, quote
from paracle_domain.messages import JsonObject
from paracle_domain.strict_json import whole_text

_BYTES_PER_CHAR: Final = 4
_FOLDER_CHARS: Final = 8_000_000
_MAIL: Final = re.compile(r"\A(?:[A-Za-z][A-Za-z0-9-]*:[^\n]*\n(?:[ \t][^\n]*\n)*){2,}", re.MULTILINE)
_MAIL_FIELDS: Final = ("from", "to", "date", "subject")


class _Read(Arguments):
    path: str = Field(min_length=1, max_length=4_096)
    max_chars: int = Field(default=20_000, ge=1, le=1_000_000)


class _List(Arguments):
    path: str = Field(default=".", min_length=1, max_length=4_096)
    pattern: str = Field(default="*", min_length=1, max_length=200)
    max_files: int = Field(default=200, ge=1, le=10_000)


class _Folder(_List):
    max_chars: int = Field(default=4_000, ge=1, le=100_000, description="of each file's text")


async def list_files(arguments: JsonObject, grants: Grants) -> JsonValue:
    """Names and sizes of the files of a folder whose names match `pattern`, in order of name."""
    asked = _List.take(arguments)
    folder = _folder(asked, grants)
    found = await asyncio.to_thread(_matching, folder, asked.pattern, grants)
    return {
        "files": await asyncio.to_thread(_sizes, found[: asked.max_files]),
        "total": len(found),
        "truncated": len(found) > asked.max_files,
    }


async def read_text(arguments: JsonObject, grants: Grants) -> JsonValue:
    """The text of one file, at most `max_chars` of it, and the charset that it was read as."""
    asked = _Read.take(arguments)
    path = grants.path(asked.path)
    if not path.is_file():
        raise InputInvalid(f"{quote(asked.path)} is no file", path="path")
    return {"name": _name(path), **await asyncio.to_thread(_text_of, path, asked.max_chars)}


async def read_folder(arguments: JsonObject, grants: Grants) -> JsonValue:
    """All matching files of a folder, in order of name: text, size, and the headers of those that are mails."""
    asked = _Folder.take(arguments)
    folder = _folder(asked, grants)
    found = await asyncio.to_thread(_matching, folder, asked.pattern, grants)
    files = await asyncio.to_thread(_entries, found[: asked.max_files], asked.max_chars)
    return {"files": list(files), "total": len(found), "truncated": len(found) > len(files)}


def _sizes(paths: list[Path]) -> JsonValue:
    return [{"name": _name(path), "size_bytes": path.stat().st_size} for path in paths]


def _name(path: Path) -> str:
    """A file's name; one that is not in UTF-8 cannot be said as it is."""
    return whole_text(path.name)


def _folder(asked: _List, grants: Grants) -> Path:
    folder = grants.path(asked.path)
    if not folder.is_dir():
        raise InputInvalid(f"{quote(asked.path)} is no folder", path="path")
    return folder


def _matching(folder: Path, pattern: str, grants: Grants) -> list[Path]:
    """Files only; a link that leads out of the granted folders is not among them."""
    inside = grants.inside
    return sorted(
        (path for path in folder.iterdir() if fnmatch(path.name, pattern) and path.is_file() and inside(path)),
        key=lambda path: path.name,
    )


def _entries(paths: list[Path], max_chars: int) -> list[JsonObject]:
    """As many as memory bears: a result is held, stored and sent as a whole."""
    entries: list[JsonObject] = []
    left = _FOLDER_CHARS
    for path in paths:
        entry = _entry(path, max_chars)
        left -= len(str(entry["text"]))
        if left < 0:
            break
        entries.append(entry)
    return entries


def _entry(path: Path, max_chars: int) -> JsonObject:
    raw, cut = _read(path, max_chars)
    text, charset = _decode(raw, cut=cut)
    headers: JsonObject = {}
    if _MAIL.match(text):
        with suppress(Exception):  # the parser raises whatever it likes at what was made to break it: then it is text
            headers, text = _mail(raw, text)
    return {
        "name": _name(path),
        **({"subject": headers.get("subject", ""), "headers": headers} if headers else {}),
        **_shown(text, charset, max_chars, path.stat().st_size, cut=cut),
    }


def _text_of(path: Path, max_chars: int) -> JsonObject:
    raw, cut = _read(path, max_chars)
    text, charset = _decode(raw, cut=cut)
    return _shown(text, charset, max_chars, path.stat().st_size, cut=cut)


def _shown(text: str, charset: str, max_chars: int, size: int, *, cut: bool) -> JsonObject:
    return {
        "text": whole_text(text[:max_chars]),
        "charset": charset,
        "size_bytes": size,
        "truncated": cut or len(text) > max_chars,
        "empty": not cut and not text.strip(),
    }


def _read(path: Path, max_chars: int) -> tuple[bytes, bool]:
    """As many bytes as `max_chars` characters can have (and a mail's headers); whether there are more."""
    limit = max_chars * _BYTES_PER_CHAR + 65_536
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise ToolFailed(f"{quote(_name(path))} cannot be read: {error.strerror}", path="path") from error
    return raw[:limit], len(raw) > limit


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
