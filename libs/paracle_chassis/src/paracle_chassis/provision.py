"""`python -m paracle_chassis.provision`: make databases, schemas, streams, consumers and buckets what they should be.

    python -m paracle_chassis.provision --services registry,orchestrator

Idempotent, and safe to run from several places at once. It waits for NATS and PostgreSQL, and never imports a service.

    PARACLE_NATS_URL              where NATS listens
    PARACLE_NATS_INBOX            what the subjects begin with on which it answers; `_INBOX` by default
    PARACLE_POSTGRES_ADMIN_DSN    a role that may create databases and roles; without it, no database is touched
    PARACLE_NATS_REPLICAS         copies of each stream; 1 by default, 3 in a cluster
    PARACLE_NATS_RELAXED          as --relaxed
    PARACLE_POOLS                 as --pools
    PARACLE_POSTGRES_PASSWORD     the services' roles get this password; by default that of the admin DSN
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os import environ
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from paracle_domain.errors import Conflict, InvalidInput, ParacleError, Unavailable
from paracle_domain.subjects import is_token
from paracle_domain.wording import host_of, hosts_of

if TYPE_CHECKING:
    import asyncpg
    from nats.aio.client import Client

    from paracle_chassis.provisioning import Change
    from paracle_chassis.topology import Durability

DEFAULT_NATS_URL: Final = "nats://127.0.0.1:4222"
DEFAULT_NATS_INBOX: Final = "_INBOX"
SERVICES: Final = ("registry", "orchestrator", "agent_runtime", "provider_gateway", "observability", "api_gateway")
_LOCK: Final = 0x70726F76  # "prov": concurrent runs take turns at creating roles and databases
_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to provision, and where.

    Attributes
    ----------
    pools
        Worker pools whose consumers are made with those of the agent runtime.
    relaxed
        Write the streams that Postgres can rebuild (TASKS, RESULTS) behind: faster, single servers only.
    """

    nats_url: str = DEFAULT_NATS_URL
    nats_inbox: str = DEFAULT_NATS_INBOX
    admin_dsn: str | None = None
    password: str | None = None
    services: Sequence[str] = SERVICES
    pools: Sequence[str] = ()
    replicas: int = 1
    relaxed: bool = True
    patience_s: float = 30.0

    @property
    def durability(self) -> Durability:
        from paracle_chassis.topology import Durability  # noqa: PLC0415  # loads while PostgreSQL is being asked

        return Durability(self.replicas, self.relaxed)


def service_dsn(admin_dsn: str, service: str, password: str | None = None) -> str:
    """The DSN of the own database and role of `service` on the server of `admin_dsn`."""
    parts = urlsplit(admin_dsn)
    secret = password if password is not None else unquote(parts.password or "")
    login = quote(f"paracle_{service}") + (f":{quote(secret, safe='')}" if secret else "")
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{login}@{host}", path=f"/paracle_{service}"))


async def provision(plan: Plan) -> list[Change]:
    """Do it; what was done, thing by thing.

    Raises
    ------
    Unavailable
        If NATS or PostgreSQL does not answer in time.
    Conflict
        If something is there that cannot be changed in place.
    """
    for service in plan.services:
        if not is_token(service) or "-" in service:
            raise InvalidInput(f"{service!r} cannot be the name of a service", path="services")
    for pool in plan.pools:
        if not is_token(pool):
            raise InvalidInput(f"{pool!r} cannot be the name of a pool", path="pools")
    parts = [_provision_nats(plan)]
    if plan.admin_dsn is not None:
        parts.append(_provision_postgres(plan, plan.admin_dsn))
    done = await asyncio.gather(*parts, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [change for changes in done if not isinstance(changes, BaseException) for change in changes]


# ── NATS ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _provision_nats(plan: Plan) -> list[Change]:
    from paracle_chassis import provisioning, topology  # noqa: PLC0415  # loads while PostgreSQL is being asked

    client = await _connect_nats(plan)
    try:
        async with asyncio.timeout(plan.patience_s):
            await _await_jetstream(client)
            streams = [provisioning.ensure_stream(client, spec, plan.durability) for spec in topology.STREAMS]
            bucket = provisioning.ensure_bucket(client, plan.durability)
            made = await asyncio.gather(*streams, bucket)
            # Their limits are the mailboxes' to say: one that is there already is left as its service wants it.
            wanted = [spec for spec in topology.CONSUMERS if spec.durable in plan.services]
            if "agent_runtime" in plan.services:
                wanted += [spec for spec in map(topology.pool_consumer, plan.pools) if spec not in wanted]
            consumers = [provisioning.ensure_consumer(client, spec, update=False) for spec in wanted]
            return [*made, *await asyncio.gather(*consumers)]
    except TimeoutError as error:
        raise Unavailable(f"JetStream at {hosts_of(plan.nats_url)} is not ready after {plan.patience_s:g} s") from error
    finally:
        await client.close()


async def _await_jetstream(client: Client) -> None:
    """JetStream comes up a moment after the server that it is part of."""
    from paracle_chassis import provisioning  # noqa: PLC0415  # see above

    while True:
        try:
            await provisioning.account_info(client)
        except Unavailable:
            await asyncio.sleep(_LOOK_S)
        else:
            return


async def _connect_nats(plan: Plan) -> Client:
    from nats.aio.client import Client  # noqa: PLC0415  # see above

    deadline = asyncio.get_running_loop().time() + plan.patience_s
    servers = [url.strip() for url in plan.nats_url.split(",")]
    while True:
        client = Client()
        try:
            async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + 2)):
                await client.connect(
                    servers,
                    allow_reconnect=False,
                    error_cb=_ignore,
                    name="paracle-provision",
                    inbox_prefix=plan.nats_inbox,
                )
        except (
            Exception
        ) as error:  # refused, not listening yet, not NATS: all of it is looked at again until the deadline
            if (transport := client._transport) is not None:  # noqa: SLF001  # nats-py leaves it open when called off
                transport.close()  # type: ignore[no-untyped-call]
            if asyncio.get_running_loop().time() >= deadline:
                raise Unavailable(
                    f"NATS does not answer at {hosts_of(plan.nats_url)} (waited {plan.patience_s:g} s); "
                    "start it, or set PARACLE_NATS_URL to where it listens"
                ) from error
            await asyncio.sleep(_LOOK_S)
        else:
            return client


async def _ignore(_error: Exception) -> None:
    """What goes wrong while connecting comes out of `connect` as well."""


# ── PostgreSQL ───────────────────────────────────────────────────────────────────────────────────────────────────


async def _provision_postgres(plan: Plan, admin_dsn: str) -> list[Change]:
    from paracle_chassis import migrations  # noqa: PLC0415  # loads asyncpg

    owners = [service for service in plan.services if migrations.load(f"paracle_{service}")]
    connection = await _connect_postgres(admin_dsn, plan.patience_s)
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        made = [await _ensure_database(connection, plan, admin_dsn, service) for service in owners]
    finally:
        await connection.close()
    applied = await asyncio.gather(*(_migrate(plan, admin_dsn, service) for service in owners))
    return [*made, *applied]


async def _connect_postgres(dsn: str, patience_s: float) -> asyncpg.Connection[Any]:
    import asyncpg  # noqa: PLC0415  # see above

    from paracle_chassis.postgres import misconfigured  # noqa: PLC0415  # see above

    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            return await asyncpg.connect(dsn, timeout=5)
        except (
            OSError,
            asyncpg.PostgresConnectionError,
            asyncpg.CannotConnectNowError,
            asyncpg.ClientConfigurationError,
        ) as error:
            if (wrong := misconfigured(error, dsn, "PARACLE_POSTGRES_ADMIN_DSN")) is not None:
                raise wrong from error
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    f"PostgreSQL does not answer at {host_of(dsn)} (waited {patience_s:g} s): {error}; "
                    "start it, or set PARACLE_POSTGRES_ADMIN_DSN to where it listens"
                ) from error
            await asyncio.sleep(_LOOK_S)
        except asyncpg.PostgresError as error:
            raise Unavailable(f"PostgreSQL at {host_of(dsn)} refuses the connection: {error}") from error


async def _ensure_database(connection: asyncpg.Connection[Any], plan: Plan, admin_dsn: str, service: str) -> Change:
    from paracle_chassis.provisioning import Change  # noqa: PLC0415  # see above

    name = f"paracle_{service}"
    password = urlsplit(service_dsn(admin_dsn, service, plan.password)).password
    literal = await connection.fetchval("select quote_literal($1::text)", unquote(password)) if password else "null"
    verb = "alter" if await connection.fetchval("select 1 from pg_roles where rolname = $1", name) else "create"
    await connection.execute(f'{verb} role "{name}" login password {literal}')
    if await connection.fetchval("select 1 from pg_database where datname = $1", name):
        return Change(f"database {name}", "as it should be")
    await connection.execute(f'create database "{name}" owner "{name}"')
    await connection.execute(f'revoke all on database "{name}" from public')
    return Change(f"database {name}", "created")


async def _migrate(plan: Plan, admin_dsn: str, service: str) -> Change:
    from paracle_chassis import migrations  # noqa: PLC0415  # see above
    from paracle_chassis.provisioning import Change  # noqa: PLC0415  # see above

    connection = await _connect_postgres(service_dsn(admin_dsn, service, plan.password), plan.patience_s)
    try:
        applied = await migrations.migrate(connection, migrations.load(f"paracle_{service}"))
    except Conflict as error:
        raise Conflict(f"{service}: {error.message}") from error
    finally:
        await connection.close()
    return Change(f"schema of {service}", f"applied {', '.join(map(str, applied))}" if applied else "as it should be")


# ── command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _plan(arguments: Sequence[str] | None) -> tuple[Plan, str]:
    parser = argparse.ArgumentParser(
        prog="python -m paracle_chassis.provision",
        description="Make databases, schemas, streams, consumers and buckets what they should be.",
        epilog="example: python -m paracle_chassis.provision --services registry,orchestrator",
    )
    parser.add_argument("--services", default=",".join(SERVICES), help="whose databases and consumers, by commas")
    pools = environ.get("PARACLE_POOLS") or ""
    parser.add_argument("--pools", default=pools, help="worker pools whose consumers are made too, by commas")
    parser.add_argument(
        "--replicas",
        type=int,
        default=int(environ.get("PARACLE_NATS_REPLICAS") or 1),
        help="copies of each stream (a NATS cluster has 3)",
    )
    relaxed = environ.get("PARACLE_NATS_RELAXED", "").lower() not in {"0", "false", "no", "off"}
    behind = "whether to write streams that can be rebuilt behind (one server)"
    parser.add_argument("--relaxed", action=argparse.BooleanOptionalAction, default=relaxed, help=behind)
    parser.add_argument("--wait", type=float, default=30.0, help="seconds to wait for NATS and PostgreSQL")
    parser.add_argument("-o", choices=("text", "json"), default="text", dest="form", help="form of the output")
    given = parser.parse_args(arguments)
    plan = Plan(
        nats_url=environ.get("PARACLE_NATS_URL") or DEFAULT_NATS_URL,
        nats_inbox=environ.get("PARACLE_NATS_INBOX") or DEFAULT_NATS_INBOX,
        admin_dsn=environ.get("PARACLE_POSTGRES_ADMIN_DSN") or None,
        password=environ.get("PARACLE_POSTGRES_PASSWORD") or None,
        services=[name.strip() for name in given.services.split(",") if name.strip()],
        pools=[name for part in given.pools.split(",") if (name := part.partition("=")[0].strip())],
        replicas=given.replicas,
        relaxed=given.relaxed,
        patience_s=given.wait,
    )
    return plan, given.form


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if everything is as it should be now."""
    plan, form = _plan(arguments)
    try:
        changes = asyncio.run(provision(plan))
    except ParacleError as error:
        sys.stderr.write(f"provision: {error}\n")
        return 1
    if form == "json":
        sys.stdout.write(json.dumps([{"what": change.what, "did": change.did} for change in changes]) + "\n")
    else:
        sys.stdout.writelines(f"{change}\n" for change in changes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
