"""Names of providers that tenants set up, resolved to addresses that may be connected to."""

from __future__ import annotations

import socket
from typing import override

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from paracle_provider_gateway.hosts import HostRules


class CheckedResolver(AbstractResolver):
    """Resolves a name once for each connection, and refuses it if an address of it may not be connected to."""

    def __init__(self, provider: str, hosts: HostRules, inner: AbstractResolver | None = None) -> None:
        self._provider = provider
        self._hosts = hosts
        self._inner = inner or ThreadedResolver()

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for each in found:
            self._hosts.check_address(self._provider, host, port, each["host"])
        return found

    @override
    async def close(self) -> None:
        await self._inner.close()
