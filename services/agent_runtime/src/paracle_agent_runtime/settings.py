"""Settings of the agent runtime, from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_settings import NoDecode

from paracle_agent_runtime.tools.mcp.servers import McpServer
from paracle_chassis.settings import Seconds, ServiceSettings
from paracle_domain.errors import quote
from paracle_domain.subjects import DEFAULT_POOL
from paracle_domain.workflow.spec import PoolName

_POOL: Final = TypeAdapter(PoolName)
_SIZE: Final = TypeAdapter(Annotated[int, Field(ge=1, le=100_000)])


def read_pools(value: object) -> object:
    """`agents,gpu=4` taken apart: the size of each pool, `None` where none is given."""
    if not isinstance(value, str):
        return value
    found: dict[str, int | None] = {}
    for part in value.split(","):
        name, sign, size = (text.strip() for text in part.partition("="))
        try:
            _ = _POOL.validate_python(name)
        except ValidationError:
            raise ValueError(f"{quote(name)} is no name of a pool: a to z first, then also 0 to 9, _ and -") from None
        try:
            found[name] = _SIZE.validate_python(size) if sign else None
        except ValidationError:
            raise ValueError(f"{quote(size)} is no size of pool {name}: a number from 1 to 100000") from None
    return found


class Settings(ServiceSettings):
    """What the agent runtime needs besides what every service has."""

    pools: Annotated[dict[str, int | None], NoDecode, BeforeValidator(read_pools)] = Field(
        default={DEFAULT_POOL: None},
        title="Pools",
        description="Worker pools that this replica serves, by commas, each with the most tasks at once: agents,gpu=4.",
    )
    task_concurrency: int = Field(
        20_000,
        ge=1,
        le=100_000,
        title="Concurrency",
        description="Most tasks at once of a pool for which PARACLE_POOLS gives no number.",
    )
    memory_ceiling_mb: int | None = Field(
        None,
        ge=64,
        title="Memory ceiling",
        description="MiB in use by this process above which it takes no new tasks; without it, there is no bound.",
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
    worker_beat_s: Seconds = Field(
        2.0, gt=0, title="Heartbeat", description="Seconds between two signs of life of a replica."
    )
    worker_lease_s: Seconds = Field(
        7.0, gt=0, title="Lease", description="Seconds without a sign of life after which a replica's tasks are free."
    )

    @property
    def pool_sizes(self) -> dict[str, int]:
        """Most tasks at once, of each pool."""
        return {name: size or self.task_concurrency for name, size in self.pools.items()}
