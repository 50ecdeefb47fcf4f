"""Which MCP servers there are: the operator says so, by name. No manifest can start a command or name an address."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class McpServer(BaseModel):
    """A server to start (`command`, spoken to over its standard input and output) or to connect to (`url`).

    A value `${NAME}` in `env` or `headers` is that secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str | None = Field(default=None, pattern=r"^https?://")
    headers: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) == bool(self.url):
            message = "an MCP server has either a command or a url"
            raise ValueError(message)
        return self
