"""Names of providers that tenants set up, resolved to addresses that may be connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, override

from aiohttp.abc import AbstractResolver, ResolveResult

from paracle_provider_gateway.hosts import HostRules

AT_ONCE: Final = 8
"""Look-ups of one tenant."""
THREADS: Final = 64
"""For the look-ups of all tenants."""

type LookUp = Callable[..., list[Any]]
"""`socket.getaddrinfo`."""


class Lookups(AbstractResolver):
    """The look-ups of one tenant, in `threads` that only tenants use.

    Whose name servers are asked is the tenant's choice, and a look-up that has begun cannot be ended: it counts until
    it is over, whoever still waits for it. So slow ones hold up their own tenant, but no other, and not the operator.
    """

    def __init__(self, threads: Executor, look_up: LookUp = socket.getaddrinfo) -> None:
        self._threads = threads
        self._look_up = look_up
        self._free = asyncio.Semaphore(AT_ONCE)

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        ask = partial(self._look_up, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        await self._free.acquire()
        asked = asyncio.get_running_loop().run_in_executor(self._threads, ask)
        asked.add_done_callback(lambda _: self._free.release())
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=place[0], port=place[1], family=kind, proto=proto, flags=numeric)
            for kind, _, proto, _, place in await asyncio.shield(asked)
        ]

    @override
    async def close(self) -> None:
        """The threads are everybody's."""


class CheckedResolver(AbstractResolver):
    """Resolves a name once for each connection, and refuses it if an address of it may not be connected to."""

    def __init__(self, provider: str, hosts: HostRules, inner: AbstractResolver) -> None:
        self._provider = provider
        self._hosts = hosts
        self._inner = inner

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
