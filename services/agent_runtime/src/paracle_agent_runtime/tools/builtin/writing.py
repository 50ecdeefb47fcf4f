"""Builtin functions that write files, in folders that `permissions.write_paths` grants."""

from __future__ import annotations

import asyncio
from typing import Final

from pydantic import Field, JsonValue

from paracle_agent_runtime.tools import rooted
from paracle_agent_runtime.tools.builtin.arguments import Arguments
from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.messages import JsonObject
from paracle_domain.strict_json import whole_text

_FILE_BYTES: Final = 64 << 20


class _Append(Arguments):
    path: str = Field(min_length=1, max_length=4_096)
    text: str = Field(max_length=1_000_000)


class _Write(_Append):
    overwrite: bool = False


async def write_text(arguments: JsonObject, grants: Grants) -> JsonValue:
    """Write one file as a whole, in UTF-8; missing folders are made, an existing file is kept unless `overwrite`."""
    asked = _Write.take(arguments)
    path, content = grants.writable(asked.path), whole_text(asked.text).encode()
    await asyncio.to_thread(rooted.replace_file, grants.bound, path, content, overwrite=asked.overwrite)
    return {"name": whole_text(path.name), "size_bytes": len(content)}


async def append_text(arguments: JsonObject, grants: Grants) -> JsonValue:
    """Add to the end of one file, which may be new."""
    asked = _Append.take(arguments)
    path, content = grants.writable(asked.path), whole_text(asked.text).encode()
    size = await asyncio.to_thread(rooted.append_file, grants.bound, path, content, most=_FILE_BYTES)
    return {"name": whole_text(path.name), "size_bytes": size}
