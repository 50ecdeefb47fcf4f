"""A nats-server with the users that we ship (`deploy/nats/users.conf`), and those of a second tenant."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, override

import nats
from nats.aio.client import Client

from paracle_chassis.frames import flushed
from paracle_embedded import NatsServer

USERS_FILE: Final = Path(__file__).parents[5] / "deploy" / "nats" / "users.conf"
PASSWORD: Final = "secret"
OTHER: Final = "acme"
"""The second tenant; the first one is `default`."""
_TENANT: Final = "    # The tenant `default`.\n"
_END: Final = "  ]\n}\n"


def users(extra: str = "") -> str:
    """The configuration, with a second tenant made as it says, and `extra` at its end."""
    text = USERS_FILE.read_text(encoding="utf-8")
    for name in ("NATS_PASSWORD", "NATS_TENANT_PASSWORD"):
        text = text.replace(f"${name}", PASSWORD)
    assert text.endswith(_END)
    first = text[text.index(_TENANT) : -len(_END)]
    return text.removesuffix(_END) + first.replace("default", OTHER) + _END + extra


class GuardedNats(NatsServer):
    """It takes nobody without a password, unless `extra` says so."""

    extra = ""

    @override
    def _config(self) -> str:
        return super()._config() + users(self.extra)

    @override
    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                return connection.recv(4096).startswith(b"INFO")
        except OSError:
            return False

    def url_of(self, user: str) -> str:
        """Where `user` connects."""
        return self.url.replace("nats://", f"nats://{user}:{PASSWORD}@")


@dataclass
class Guest:
    """Somebody who is connected as `user`, and what the server refused him."""

    user: str
    client: Client
    refused: list[str] = field(default_factory=list)

    async def may_hear(self, subject: str, queue: str = "") -> bool:
        """Whether he may listen to `subject`."""
        return not await self._refusals(f"SUB {subject} {queue} 9999\r\nUNSUB 9999\r\n")

    async def may_say(self, subject: str) -> bool:
        """Whether he may publish on `subject`."""
        return not await self._refusals(f"PUB {subject} 0\r\n\r\n")

    async def _refusals(self, command: str) -> list[str]:
        before = len(self.refused)
        await self.client._send_command(command.encode())  # noqa: SLF001  # nats-py closes what it is refused
        await flushed(self.client)
        return self.refused[before:]


@asynccontextmanager
async def guest(server: GuardedNats, user: str) -> AsyncIterator[Guest]:
    """Somebody who connects as `user`, with the inbox of that user."""
    refused: list[str] = []

    async def refuse(error: Exception) -> None:
        refused.append(str(error))

    url, inbox = server.url_of(user), f"_INBOX.{user}"
    client = await nats.connect(url, inbox_prefix=inbox, connect_timeout=30, error_cb=refuse)
    try:
        yield Guest(user, client, refused)
    finally:
        await client.close()
