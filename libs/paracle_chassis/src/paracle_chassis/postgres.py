"""PostgreSQL: the pool, and a service's queries by name."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final, Self, override

import asyncpg

from paracle_chassis import migrations
from paracle_chassis.outages import is_misconfigured, reason
from paracle_chassis.settings import ServiceSettings
from paracle_domain.errors import Unavailable

_log = logging.getLogger(__name__)

COMMAND_TIMEOUT_S: Final = 30.0
_CONNECT_TIMEOUT_S: Final = 5.0
_LOOK_S: Final = 0.2
_NAME: Final = re.compile(r"^--\s*name:\s*(\w+)\s*$", re.MULTILINE)
_AWAY: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)


_SESSION: Final = {
    "application_name": "paracle",
    "idle_in_transaction_session_timeout": "10000",
    # A prepared statement is planned once. Planned while a table is new and empty, it would read the whole table each
    # time, also when that has grown, until PostgreSQL happens to analyse it. What services ask often has its index.
    # To analyse after a migration does not help, since what is empty counts as unknown; nor does it to plan each time
    # (`plan_cache_mode`), which costs more than most statements do, and without statistics chooses no better: one
    # append took 1.0 ms as it comes, 0.5 planned each time, 0.3 so; fifty at once 1.7, 1.6 and 0.9.
    "enable_seqscan": "off",
    # At 4, the price of a page on a turning disk, an index looks so dear for the ten rows for which a statement over
    # arrays is planned that PostgreSQL plans each append to a grown table anew: twice the CPU of doing it.
    "random_page_cost": "1.1",
    # Before version 18, a plan that cannot do without such a scan looks so dear that it would be compiled each time.
    "jit": "off",
}


async def _leave_as_it_is(_connection: Any) -> None:
    """Instead of asyncpg's reset query, a round trip after every statement: services keep nothing in a session.

    Locks are of transactions, settings are of the role, and nobody listens on a pooled connection.
    """


async def _reach(*args: Any, **options: Any) -> asyncpg.Connection[Any]:
    """A further connection of a pool. That there is none is an outage, however the system says so.

    A host that does not answer, or whose name nobody knows just now, is no `ConnectionError` to Python.
    """
    try:
        made: asyncpg.Connection[Any] = await asyncpg.connect(*args, **options)
    except OSError as error:  # TimeoutError among them
        raise misconfigured(error, args[0]) or Unavailable(f"PostgreSQL does not answer: {reason(error)}") from error
    return made


def misconfigured(error: BaseException, dsn: str, variable: str = "PARACLE_POSTGRES_DSN") -> Unavailable | None:
    """What to say if it is no use to wait for a connection that failed with `error`: `variable` has to be mended."""
    if isinstance(error, asyncpg.ClientConfigurationError):
        why = str(error)
    elif isinstance(error, OSError) and is_misconfigured(error, dsn):
        why = reason(error)
    else:
        return None
    return Unavailable(
        f"no connection to PostgreSQL can be made: {why}; check what {variable} says, "
        "the files that it names (sslrootcert, sslcert, sslkey), and who may read them"
    )


def create_pool(settings: ServiceSettings, *, min_size: int = 1) -> asyncpg.Pool[Any]:
    """A pool for the service's own database; not connected yet: `await` it, or enter it with `async with`.

    JSON columns take and give JSON text, which pydantic reads and writes. Statements are cut off after 30 s.

    Raises
    ------
    Unavailable
        If no `PARACLE_POSTGRES_DSN` is set.
    """
    if settings.postgres_dsn is None:
        raise Unavailable("PARACLE_POSTGRES_DSN is not set; this service keeps its state in PostgreSQL")
    return asyncpg.create_pool(
        settings.postgres_dsn,
        connect=_reach,
        min_size=min_size,
        max_size=max(min_size, settings.postgres_pool_size),
        reset=_leave_as_it_is,
        command_timeout=COMMAND_TIMEOUT_S,
        timeout=_CONNECT_TIMEOUT_S,
        max_inactive_connection_lifetime=300,
        server_settings=_SESSION,
    )


class Database:
    """A service's database as a resource: connected, its schema current, and able to say whether it is there.

    `async with Database(settings, "paracle_registry") as database: … database.pool …`

    Raises
    ------
    Unavailable
        On entering, if PostgreSQL does not answer within `connect_timeout_s`; at once, if waiting is no use.
    Conflict
        On entering, if migrations are missing, with the command that applies them.
    """

    def __init__(self, settings: ServiceSettings, package: str) -> None:
        self._settings = settings
        self._package = package
        self.pool = create_pool(settings)

    async def __aenter__(self) -> Self:
        connection = await self._connect()
        try:
            await migrations.require_current(connection, self._package)
        finally:
            await connection.close()
        _ = await self.pool
        return self

    async def __aexit__(self, *_exc: object) -> None:
        try:
            async with asyncio.timeout(5):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()

    async def check(self) -> None:
        """Readiness: `select 1`; `Unavailable` if it does not come back within two seconds."""
        try:
            async with asyncio.timeout(2):
                await self.pool.fetchval("select 1")
        except (*_AWAY, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError) as error:
            raise Unavailable(f"PostgreSQL does not answer: {type(error).__name__}") from error

    async def _connect(self) -> asyncpg.Connection[Any]:
        """A first connection, once PostgreSQL is up: a pool that failed to start cannot be started again."""
        dsn, patience = self._settings.postgres_dsn, self._settings.connect_timeout_s
        assert dsn is not None  # or there would be no pool
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            try:
                return await asyncpg.connect(dsn, timeout=_CONNECT_TIMEOUT_S)
            except (*_AWAY, TimeoutError, asyncpg.ClientConfigurationError) as error:
                if (wrong := misconfigured(error, dsn)) is not None:
                    raise wrong from error
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(
                        f"PostgreSQL does not answer (waited {patience:g} s): {error}; "
                        "start it, or set PARACLE_POSTGRES_DSN to where it listens"
                    ) from error
                await asyncio.sleep(_LOOK_S)
            except asyncpg.PostgresError as error:
                raise Unavailable(
                    f"PostgreSQL refuses the connection: {error}; check PARACLE_POSTGRES_DSN, "
                    "or let `python -m paracle_chassis.provision` make the database"
                ) from error


class Queries(Mapping[str, str]):
    """The statements of a package's `queries.sql`, each below a line `-- name: it`; read as `queries.it`."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._statements = dict(statements)

    @classmethod
    def load(cls, package: str) -> Self:
        """Those of `package`."""
        return cls.parse(resources.files(package).joinpath("queries.sql").read_text("utf-8"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take `text` apart; two statements of one name are refused."""
        parts = _NAME.split(text)
        found: dict[str, str] = {}
        for name, statement in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise ValueError(f"queries.sql has two statements called {name!r}")
            found[name] = statement.strip()
        return cls(found)

    @override
    def __getitem__(self, name: str) -> str:
        return self._statements[name]

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._statements[name]
        except KeyError:
            known = ", ".join(sorted(self._statements))
            raise AttributeError(f"queries.sql has no statement {name!r}; it has {known}") from None

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    @override
    def __len__(self) -> int:
        return len(self._statements)
