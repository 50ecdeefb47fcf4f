"""Which errors mean that something we depend on is away: those are waited out, not counted as failed tries."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from nats import errors as nats_errors

from paracle_domain.errors import ParacleError, Unavailable

_log = logging.getLogger(__name__)

_NATS: Final = (
    nats_errors.ConnectionClosedError,
    nats_errors.ConnectionReconnectingError,
    nats_errors.ConnectionDrainingError,
    nats_errors.NoServersError,
    nats_errors.OutboundBufferLimitError,
    nats_errors.StaleConnectionError,
)
# Of PostgreSQL, by name: connections lost or refused, a server that starts or stops, has no connection, disk or memory
# left, or is a standby just now (while another takes over).
_POSTGRES: Final = (
    "PostgresConnectionError",
    "OperatorInterventionError",
    "InsufficientResourcesError",
    "ReadOnlySQLTransactionError",
    "InternalClientError",
)
_BROKEN_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_DELAYS_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)


def is_outage(error: BaseException) -> bool:
    """Whether `error` says that a dependency (NATS, PostgreSQL, another service) cannot be reached just now."""
    if isinstance(error, ParacleError):
        return isinstance(error, Unavailable)
    return isinstance(error, (ConnectionError, *_NATS)) or _is_postgres_outage(error)


@contextmanager
def as_unavailable(message: str) -> Iterator[None]:
    """Say `message`, as `Unavailable`, where what is within meets an outage, or waits for too long."""
    try:
        yield
    except Exception as error:  # no list of types tells an outage: asyncpg's InterfaceError is one by its text alone
        if not (is_outage(error) or isinstance(error, TimeoutError)):
            raise
        raise Unavailable(message) from error


def reason(error: OSError) -> str:
    """Why there is no connection, in the system's words: `Connection refused`."""
    if isinstance(error, ssl.SSLError):  # its numbers are OpenSSL's
        return str(error)
    if error.errno is not None and error.errno > 0:  # those below are of looking up names
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def is_misconfigured(error: OSError, dsn: str) -> bool:
    """Whether a connection to `dsn` will never be made as it is meant: for a file or a right that is missing, or trust.

    A socket that is not there is a server that is not up; there is none where `dsn` names a host.
    """
    if isinstance(error, FileNotFoundError):
        host = unquote(urlsplit(dsn).hostname or "")
        return host != "" and not host.startswith("/")
    if isinstance(error, ssl.SSLError):
        return not isinstance(error, _BROKEN_OFF)
    return isinstance(error, (PermissionError, IsADirectoryError, NotADirectoryError))


def _is_postgres_outage(error: BaseException) -> bool:
    asyncpg: Any = sys.modules.get("asyncpg")
    if asyncpg is None:
        return False
    if isinstance(error, asyncpg.InterfaceError):
        return "clos" in str(error) or "terminat" in str(error)
    return isinstance(error, tuple(getattr(asyncpg, name) for name in _POSTGRES if hasattr(asyncpg, name)))


def delays() -> Iterator[float]:
    """Seconds between looks whether it is back; rising to 2."""
    return chain(_DELAYS_S, repeat(2.0))


async def outlast[R](work: Callable[[], Awaitable[R]], who: str, *, away: Callable[[Exception], bool] = is_outage) -> R:
    """What `work` gives once what it needs is there; until then `who` waits, as the log says.

    `away` says of what it raised whether to try again; all else is raised. Of each reason to wait the log hears once.
    """
    waits: Iterator[float] | None = None  # nearly everybody is done at the first try, and thousands are in it at once
    known = ""
    while True:
        try:
            return await work()
        except Exception as error:  # only an outage is waited out; the rest is raised
            if not away(error):
                raise
            if str(error) != known:
                known = str(error)
                _log.warning("%s waits: %s", who, known)
        waits = waits or delays()
        await asyncio.sleep(next(waits))
