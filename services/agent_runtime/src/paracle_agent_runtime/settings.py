"""Settings of the agent runtime, from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from paracle_agent_runtime.tools.mcp.servers import McpServer
from paracle_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the agent runtime needs besides what every service has."""

    task_concurrency: int = Field(
        20_000, ge=1, le=100_000, title="Concurrency", description="Most tasks that one replica works on at once."
    )
    files_root: Path = Field(
        Path(),
        title="Files root",
        description="The folder that bounds what file tools may touch; relative paths in manifests start here.",
    )
    http_tool_body_limit: int = Field(
        1 << 20, ge=1, le=1 << 26, title="Body limit", description="Most bytes of a response to an HTTP tool."
    )
    bubblewrap: str = Field(
        "bwrap", min_length=1, title="Bubblewrap", description="The program that keeps commands of tools apart."
    )
    mcp_servers: dict[str, McpServer] = Field(
        default={}, title="MCP servers", description="Those that tools may ask, by name: JSON, each a command or a url."
    )
    sandbox_concurrency: int = Field(
        8, ge=1, le=1_000, title="Commands", description="Most commands of tools that one replica runs at once."
    )
    sandbox_memory_mb: int = Field(
        1_024, ge=64, title="Memory of commands", description="Most memory of one command, whatever its manifest says."
    )
    unsandboxed_execution: bool = Field(
        default=False,
        title="Unsandboxed execution",
        description="Run commands of tools also where bubblewrap does not work: they may do whatever this service may.",
    )
    worker_beat_s: float = Field(
        2.0, gt=0, title="Heartbeat", description="Seconds between two signs of life of a replica."
    )
    worker_lease_s: float = Field(
        7.0, gt=0, title="Lease", description="Seconds without a sign of life after which a replica's tasks are free."
    )
