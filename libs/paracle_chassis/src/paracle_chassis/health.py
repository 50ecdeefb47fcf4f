"""`GET /livez` (the process runs), `/readyz` (it really can work: every check is asked) and `/asyncapi.json`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from paracle_chassis.outages import is_outage
from paracle_domain.errors import ParacleError

_log = logging.getLogger(__name__)

type Check = Callable[[], Awaitable[None]]
type Answer = tuple[int, Mapping[str, Any]]

_REASONS: Final = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
_CHECK_TIMEOUT_S: Final = 3.0
_REQUEST_TIMEOUT_S: Final = 5.0
_HEAD_LIMIT: Final = 8192


class Health:
    """The health endpoint of one service: a few lines of HTTP/1.1, so that probes do not need a web framework."""

    def __init__(
        self,
        service: str,
        checks: Mapping[str, Check],
        describe: Callable[[], Mapping[str, Any]],
        facts: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._service = service
        self._checks = dict(checks)
        self._describe = describe
        self._facts = facts
        self._server: asyncio.Server | None = None
        self.state = "starting"

    @property
    def port(self) -> int:
        """The port that it is served on."""
        assert self._server is not None, "not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD_LIMIT)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def readiness(self) -> Answer:
        """Every check asked at once; ready only if the service is, and all pass."""
        if self.state != "ready":
            return 503, {"service": self._service, "status": self.state}
        results = await asyncio.gather(*(self._ask(check) for check in self._checks.values()))
        checks = dict(zip(self._checks, results, strict=True))
        ready = all(result == "ok" for result in results)
        status = "ready" if ready else "not ready"
        return (200 if ready else 503), {
            "service": self._service, "status": status, "checks": checks, **self._facts(),
        }  # fmt: skip

    async def _ask(self, check: Check) -> str:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                await check()
        except TimeoutError:
            return f"no answer within {_CHECK_TIMEOUT_S:g} s"
        except ParacleError as error:
            return error.message
        except Exception as error:  # noqa: BLE001  # a check that cannot be asked has not passed
            if not is_outage(error):
                _log.exception("a readiness check failed unexpectedly")
            return type(error).__name__
        return "ok"

    async def _route(self, method: str, path: str) -> Answer:
        if method not in {"GET", "HEAD"}:
            return 405, {"detail": "only GET"}
        match path:
            case "/livez":
                return 200, {"service": self._service, "status": "alive"}
            case "/readyz":
                return await self.readiness()
            case "/asyncapi.json":
                return 200, self._describe()
            case _:
                return 404, {"detail": "there are /livez, /readyz and /asyncapi.json"}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
                status, body = await self._route(method, target.partition("?")[0])
                writer.write(_response(status, body, head_only=method == "HEAD"))
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _response(status: int, body: Mapping[str, Any], *, head_only: bool) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else content)
