"""A toolbox to try tools with: over a folder, with one secret."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp.abc import AbstractResolver
from memory_ports import NoUsage, NoWorkers

from paracle_agent_runtime.ports import Workers
from paracle_agent_runtime.schemas import Schemas
from paracle_agent_runtime.tools.http import HttpTools
from paracle_agent_runtime.tools.mcp.backend import McpTools
from paracle_agent_runtime.tools.sandbox.bubblewrap import Bubblewrap
from paracle_agent_runtime.tools.sandbox.commands import Commands
from paracle_agent_runtime.tools.toolbox import Toolbox, ToolEnd
from paracle_agent_runtime.tools.workers import Caller, WorkerTools
from paracle_domain.envelope import Context
from paracle_domain.ids import new_id
from paracle_domain.plan import PlannedTool
from paracle_domain.task.messages import Task
from paracle_domain.tool.spec import ToolSpec

NOW: Final = datetime(2026, 11, 26, 12, tzinfo=UTC)
SECRET: Final = "hunter2secret"


def planned(**spec: Any) -> PlannedTool:
    backend = spec.pop("backend", {"type": "builtin", "function": "noop"})
    return PlannedTool(
        name="t", revision=1, spec=ToolSpec.model_validate({"description": "d", "backend": backend, **spec})
    )


def caller() -> Caller:
    """A task of its own: nothing that is kept by plan is shared."""
    task = Task(
        task_id=new_id("task"),
        run_id=new_id("run"),
        step="s",
        attempt=1,
        plan=os.urandom(4).hex(),
        target_kind="tool",
        target="t",
        effect_scope="e",
    )
    return Caller(task, Context("acme", principal="ann"))


class Bench:
    """Calls tools, and keeps the names of those that broke."""

    def __init__(
        self,
        root: Path,
        resolver: AbstractResolver | None = None,
        *,
        bubblewrap: str | None = None,
        unsandboxed: bool = False,
        body_limit: int = 2_000,
        environment: Mapping[str, str] | None = None,
        workers: Workers | None = None,
        mcp: McpTools | None = None,
    ) -> None:
        self.bugs: list[str] = []
        self.http = HttpTools(body_limit=body_limit, resolver=resolver)
        self.box = Toolbox(
            schemas=Schemas(),
            http=self.http,
            mcp=mcp or McpTools({}, {}),
            workers=WorkerTools(workers or NoWorkers(), lambda: NOW),
            commands=Commands(Bubblewrap(bubblewrap), unsandboxed=unsandboxed),
            usage=NoUsage(),
            files_root=root,
            environment={"PARACLE_SECRET_KEY": SECRET} if environment is None else environment,
            log_bug=lambda name, _: self.bugs.append(name),
        )

    async def call(self, arguments: dict[str, Any], *, key: str | None = None, **spec: Any) -> ToolEnd:
        return await self.box.call(planned(**spec), arguments, caller(), key=key)

    async def builtin(self, function: str, arguments: dict[str, Any], *paths: str, **options: Any) -> ToolEnd:
        return await self.granted(function, arguments, {"paths": paths}, **options)

    async def granted(
        self, function: str, arguments: dict[str, Any], permissions: dict[str, Any], **options: Any
    ) -> ToolEnd:
        """Call a builtin function with these permissions."""
        key, timeout_s = options.pop("key", None), options.pop("timeout_s", 30.0)
        backend = {"type": "builtin", "function": function, "options": options}
        return await self.call(arguments, key=key, backend=backend, permissions=permissions, timeout_s=timeout_s)
