"""Numbered SQL migrations of a package: `migrations/001_initial.sql`, `002_….sql`, applied once each, in order.

One transaction for all that is missing, under an advisory lock, so that concurrent starters apply them once and a
failure leaves everything as it was. Each file's checksum is kept: one that was edited after it was applied is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, override

import asyncpg

from paracle_domain.errors import Conflict, NotFound

_FILE: Final = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
_LOCK: Final = 0x70617261636C65  # "paracle", as an advisory lock of this database
_ANEW: Final = (
    "of an embedded stack by `paracle down` and deleting its folder, .paracle; else by dropping the service's "
    "database and provisioning again"
)
_TABLE: Final = """
create table if not exists schema_migrations (
    number integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
)"""

type Connection = asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @override
    def __str__(self) -> str:
        return f"{self.number:03}_{self.name}"


def load(package: str) -> list[Migration]:
    """The migrations of `package`, which itself is not run; empty if it owns no tables.

    Raises
    ------
    NotFound
        If there is no such package.
    Conflict
        If the numbers have gaps or doubles.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise NotFound(f"package {package!r} is not installed here")
    return _read(Path(spec.origin).parent / "migrations")


def _read(folder: Path) -> list[Migration]:
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise Conflict(f"{path.name} is no migration; they are called 001_what_it_does.sql")
        found.append(Migration(int(match[1]), match[2], path.read_text("utf-8")))
    numbers = [migration.number for migration in found]
    if numbers != list(range(1, len(found) + 1)):
        raise Conflict(f"migrations of {folder.parent.name} must be numbered 1, 2, 3, … without gaps: {numbers}")
    return found


async def migrate(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Apply what is missing; what was applied.

    Raises
    ------
    Conflict
        If an applied one was edited since, or the database is ahead of `migrations`.
    """
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(_TABLE)
        missing = _missing(migrations, await _applied(connection))
        for migration in missing:
            try:
                await connection.execute(migration.sql)
            except asyncpg.PostgresError as error:
                raise Conflict(f"migration {migration} failed and changed nothing: {error}") from error
            await connection.execute(
                "insert into schema_migrations (number, name, checksum) values ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
    return missing


async def require_current(connection: Connection, package: str) -> None:
    """Refuse to go on with a database that lacks migrations of `package`.

    Raises
    ------
    Conflict
        Naming those that are missing and the command that applies them.
    """
    migrations = load(package)
    if not migrations:
        return
    known = await connection.fetchval("select to_regclass('schema_migrations') is not null")
    applied = await _applied(connection) if known else {}
    if missing := _missing(migrations, applied):
        service = package.removeprefix("paracle_")
        names = ", ".join(map(str, missing))
        raise Conflict(
            f"the database of {service} lacks {names}; run: python -m paracle_chassis.provision --services {service}"
        )


async def _applied(connection: Connection) -> dict[int, str]:
    rows = await connection.fetch("select number, checksum from schema_migrations order by number")
    return {row["number"]: row["checksum"] for row in rows}


def _missing(migrations: Sequence[Migration], applied: dict[int, str]) -> list[Migration]:
    for migration in migrations:
        if applied.get(migration.number, migration.checksum) != migration.checksum:
            raise Conflict(
                f"migration {migration} is another one than was applied; install the version that applied it (if you "
                f"edited it, undo that and add a new one), or give up the data, {_ANEW}"
            )
    if ahead := applied.keys() - {migration.number for migration in migrations}:
        raise Conflict(
            f"the database has migrations {sorted(ahead)} that this version does not know; install a newer one, or "
            f"give up the data, {_ANEW}"
        )
    return [migration for migration in migrations if migration.number not in applied]
