"""Functions that ship with the agent runtime, by the name that a manifest's `backend.function` gives.

A function takes its arguments (those of the call, overruled by the manifest's `options`) and what the tool may touch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from pydantic import JsonValue

from paracle_agent_runtime.tools.builtin import files, queries, values, writing
from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.messages import JsonObject

type Builtin = Callable[[JsonObject, Grants], Awaitable[JsonValue]]

BUILTINS: Final[dict[str, Builtin]] = {
    "noop": values.noop,
    "sleep": values.sleep,
    "now": values.now,
    "calculate": values.calculate,
    "json_query": queries.json_query,
    "csv_query": queries.csv_query,
    "list_files": files.list_files,
    "read_text": files.read_text,
    "read_folder": files.read_folder,
    "search_files": files.search_files,
    "write_text": writing.write_text,
    "append_text": writing.append_text,
}
