"""Histories of actors in PostgreSQL: the truth that everything else can be rebuilt from.

An actor is a row (who it is, how many events it has, how it stands, when it wants to be woken) and a history. The
history holds one *page* per message that changed something: the events which that message led to, numbered on from
the last page without a gap, and the id of the message, their cause. A page is what was decided at once, so it is
written and read at once.

Writers do not lock. They say how many events they have seen (`expected`), and the one statement that appends a whole
batch of pages moves each actor on only if that is still so; whoever came too late is told, and appends nothing for
that actor. One round trip and one fsync thus carry any number of actors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import asyncpg

from paracle_domain.records import record

READ_BYTES: Final = 8 * 1024 * 1024
"""Of events that are read together, but for the last page: more takes longer than a reader waits."""
_DEADLOCK_PAUSES_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1)


@record
class Page:
    """Events that one message led to. `events` are JSON objects with a `type`; the first one has number `first_seq`."""

    first_seq: int
    cause: str
    at: datetime
    events: tuple[bytes, ...]

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.events) - 1


@record
class Append:
    """New pages of one actor, and how it stands after them.

    `expected` is the number of events before the first page; 0 creates the actor, and then `facts` (the values of the
    store's fact columns, which never change; JSON as text) must be given. `wake_at` replaces what was there.
    `created_at`, if it is known of one that is there, tells it from another one that has taken its id since.
    """

    id: str
    tenant: str
    expected: int
    pages: tuple[Page, ...]
    status: str
    wake_at: datetime | None = None
    finished_at: datetime | None = None
    facts: Mapping[str, Any] | None = None
    created_at: datetime | None = None

    @property
    def version(self) -> int:
        """Number of events after this append."""
        return self.pages[-1].last_seq if self.pages else self.expected


@dataclass(frozen=True, slots=True)
class Loaded:
    """An actor as it is stored; `pages` are those after the asked-for event."""

    id: str
    tenant: str
    version: int
    status: str
    wake_at: datetime | None
    facts: Mapping[str, Any]
    created_at: datetime
    finished_at: datetime | None
    pages: tuple[Page, ...]


@dataclass(frozen=True, slots=True)
class Due:
    """An actor whose `wake_at` has come."""

    id: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Born:
    """An actor, and when its first event happened."""

    id: str
    tenant: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Wake:
    """When an actor with `version` events wants to be woken. Whoever moves it on says so anew."""

    id: str
    version: int
    at: datetime | None


class EventStore(Protocol):
    """Where actors' histories are kept. Held to `paracle_chassis.testing.contracts.event_store`."""

    async def load(self, ids: Collection[str], after: Mapping[str, int] | None = None) -> dict[str, Loaded]:
        """The actors among `ids` that exist, each with its pages after event `after[id]` (0: all).

        `after[id]` must be the last event of a page, as the version that a writer knows always is.
        """
        ...

    async def read(self, id: str, after: int, limit: int) -> list[Page]:
        """The first pages that hold events after number `after`: at least `limit` events if there are as many.

        The first page may begin with earlier events. What comes after `READ_BYTES` is left for the next time.
        """
        ...

    async def append(self, appends: Sequence[Append]) -> set[str]:
        """Write `appends` at once; the ids that were not as `expected`, for which nothing was written."""
        ...

    async def claim_due(self, now: datetime, again_at: datetime, limit: int) -> list[Due]:
        """Actors that want to be woken at `now`, soonest first; their `wake_at` becomes `again_at`."""
        ...

    async def reschedule(self, wakes: Sequence[Wake]) -> None:
        """Set `wake_at` of actors without adding to their history; nothing happens to those that have moved on."""
        ...

    async def born(self, since: datetime, after: str, until: datetime, limit: int) -> list[Born]:
        """Actors of all tenants that were made from `since` on (then with an id after `after`) and before `until`."""
        ...


@dataclass(frozen=True, slots=True)
class ActorTables:
    """Names of a store's two tables, and the fact columns of its actors with their SQL types."""

    actors: str
    history: str
    facts: Mapping[str, str] = field(default_factory=dict)


class PostgresEventStore:
    """An `EventStore` on the tables that `ActorTables` names; their DDL is in the owning service's migrations.

    The actor table has `id text primary key, tenant text, version int, status text, wake_at timestamptz,
    created_at timestamptz, finished_at timestamptz` and the fact columns; the history table has
    `id text, seq int, cause text, at timestamptz, events json, primary key (id, seq)`.
    """

    def __init__(self, pool: asyncpg.Pool, tables: ActorTables) -> None:
        self._pool = pool
        self._facts = tuple(tables.facts)
        self._append_sql = {
            (there, new): _append_sql(tables, there=there, new=new)
            for there, new in ((True, False), (False, True), (True, True))
        }
        facts = "".join(f", {_as_text(name, kind)}" for name, kind in tables.facts.items())
        self._actors_sql = (
            f"select id, tenant, version, status, wake_at, created_at, finished_at{facts} "  # noqa: S608  # names come from code
            f"from {tables.actors} where id = any($1::text[])"
        )
        self._pages_sql = (
            "select h.id, h.seq, h.cause, h.at, h.events::text "  # noqa: S608  # names come from code
            "from unnest($1::text[], $2::int[]) as asked(id, after) "
            f"join {tables.history} h on h.id = asked.id and h.seq > asked.after order by h.id, h.seq"
        )
        self._read_sql = (
            "select seq, cause, at, events::text from (select seq, cause, at, events, "  # noqa: S608  # names come from code
            "sum(octet_length(events::text)) over (order by seq) - octet_length(events::text) as before "
            f"from {tables.history} where id = $1 and seq >= coalesce("
            f"(select max(seq) from {tables.history} where id = $1 and seq <= $2 + 1), 1) order by seq limit $3"
            ") pages where before < $4 order by seq"
        )
        self._claim_sql = (
            f"update {tables.actors} set wake_at = $2 where id in (select id from {tables.actors} "  # noqa: S608
            "where wake_at <= $1 order by wake_at limit $3 for update skip locked) returning id, tenant"
        )
        self._born_sql = (
            f"select id, tenant, created_at from {tables.actors} "  # noqa: S608  # names come from code
            "where created_at >= $1 and created_at < $3 and (created_at, id) > ($1, $2) "
            "order by created_at, id limit $4"
        )
        self._reschedule_sql = (
            f"update {tables.actors} a set wake_at = g.wake_at "  # noqa: S608
            "from unnest($1::text[], $2::int[], $3::timestamptz[]) as g(id, version, wake_at) "
            "where a.id = g.id and a.version = g.version"
        )

    async def load(self, ids: Collection[str], after: Mapping[str, int] | None = None) -> dict[str, Loaded]:
        """See `EventStore.load`. The two reads see one snapshot, so pages and version agree."""
        wanted = list(ids)
        seen = after or {}
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            actors = await connection.fetch(self._actors_sql, wanted)
            rows = await connection.fetch(self._pages_sql, wanted, [seen.get(name, 0) for name in wanted])
        pages: dict[str, list[Page]] = {}
        for name, seq, cause, at, events in rows:
            pages.setdefault(name, []).append(Page(seq, cause, at, _split(events)))
        return {row["id"]: self._loaded(row, pages.get(row["id"], ())) for row in actors}

    async def read(self, id: str, after: int, limit: int) -> list[Page]:
        """See `EventStore.read`. Every page holds an event, so `limit + 1` pages are enough."""
        rows = await self._pool.fetch(self._read_sql, id, after, limit + 1, READ_BYTES)
        pages = [Page(seq, cause, at, _split(events)) for seq, cause, at, events in rows]
        return [page for page in pages if page.last_seq > after]

    def _loaded(self, row: asyncpg.Record, pages: Iterable[Page]) -> Loaded:
        return Loaded(
            id=row["id"],
            tenant=row["tenant"],
            version=row["version"],
            status=row["status"],
            wake_at=row["wake_at"],
            facts={name: row[name] for name in self._facts},
            created_at=row["created_at"],
            finished_at=row["finished_at"],
            pages=tuple(pages),
        )

    async def append(self, appends: Sequence[Append]) -> set[str]:
        """See `EventStore.append`. Batches that touch the same actors can deadlock: a victim tries again, or loses."""
        if not appends:
            return set()
        ordered = sorted(appends, key=lambda item: item.id)
        there = [item for item in ordered if item.expected]
        new = [item for item in ordered if not item.expected]
        statement = self._append_sql[bool(there), bool(new)]
        arguments = _columns(ordered, there, new, self._facts)
        for pause_s in _DEADLOCK_PAUSES_S:
            try:
                rows = await self._pool.fetch(statement, *arguments)
            except asyncpg.DeadlockDetectedError:
                await asyncio.sleep(pause_s)
            else:
                return {item.id for item in ordered} - {row[0] for row in rows}
        return {item.id for item in ordered}

    async def claim_due(self, now: datetime, again_at: datetime, limit: int) -> list[Due]:
        """See `EventStore.claim_due`. Replicas claim different actors at the same time (`skip locked`)."""
        return [Due(row[0], row[1]) for row in await self._pool.fetch(self._claim_sql, now, again_at, limit)]

    async def born(self, since: datetime, after: str, until: datetime, limit: int) -> list[Born]:
        """See `EventStore.born`. A BRIN index on `created_at` makes it cheap, and costs next to nothing."""
        rows = await self._pool.fetch(self._born_sql, since, after, until, limit)
        return [Born(row[0], row[1], row[2]) for row in rows]

    async def reschedule(self, wakes: Sequence[Wake]) -> None:
        """See `EventStore.reschedule`."""
        ordered = sorted(wakes, key=lambda wake: wake.id)
        columns = zip(*((wake.id, wake.version, wake.at) for wake in ordered), strict=True)
        await self._pool.execute(self._reschedule_sql, *map(list, columns))


_PAGES: Final = {"id": "text", "seq": "int", "cause": "text", "at": "timestamptz", "events": "text"}
_ACTORS: Final = {
    "id": "text",
    "tenant": "text",
    "version": "int",
    "status": "text",
    "wake_at": "timestamptz",
    "finished_at": "timestamptz",
}


def _append_sql(tables: ActorTables, *, there: bool, new: bool) -> str:
    """One statement: move on the actors that are as expected, make the new ones, and write the pages of both.

    What it does not do it does not say: a lone append costs as much by the length of its statement as by what it does.

    `is true` keeps the tenant out of the choice of an index: planned for an empty table, one that begins with it (and
    has to be read whole for an id) would look as good as the primary key.
    """
    moves = {**_ACTORS, "expected": "int", "created_at": "timestamptz"}
    makes = {**_ACTORS, "created_at": "timestamptz", **tables.facts}
    moved = f"""moved as (
        update {tables.actors} a
           set version = g.version, status = g.status, wake_at = g.wake_at, finished_at = g.finished_at
          from {_rows("g", moves, after=len(_PAGES))}
         where a.id = g.id and (a.tenant = g.tenant) is true and a.version = g.expected
           and (a.created_at = g.created_at) is not false
        returning a.id
    ), """  # noqa: S608  # table and column names come from code, here and below
    made = f"""made as (
        insert into {tables.actors} ({", ".join(makes)})
        select {", ".join(f"n.{name}::{kind}" for name, kind in makes.items())}
          from {_rows("n", makes, after=len(_PAGES) + len(moves) * there)}
        on conflict (id) do nothing
        returning id
    ), """  # noqa: S608
    kept = " union all ".join(["table moved"] * there + ["table made"] * new)
    return f"""
    with {moved * there}{made * new}kept as ({kept}
    ), written as (
        insert into {tables.history} (id, seq, cause, at, events)
        select p.id, p.seq, p.cause, p.at, p.events::json
          from {_rows("p", _PAGES)}
          join kept using (id)
    )
    select id from kept"""  # noqa: S608


def _rows(name: str, columns: Mapping[str, str], *, after: int = 0) -> str:
    """The table `name` of `columns`, each of which comes as an array; `after` so many other arguments."""
    arrays = ", ".join(f"${at}::{_sent_as(kind)}[]" for at, kind in enumerate(columns.values(), start=after + 1))
    return f"unnest({arrays}) as {name}({', '.join(columns)})"


# JSON goes in and comes out as text, whatever codec the pool has for it: it is never parsed here.
def _sent_as(kind: str) -> str:
    return "text" if kind in {"json", "jsonb"} else kind


def _as_text(name: str, kind: str) -> str:
    return f"{name}::text" if kind in {"json", "jsonb"} else name


def _columns(
    appends: Sequence[Append], there: Sequence[Append], new: Sequence[Append], facts: Sequence[str]
) -> list[list[Any]]:
    """Of all pages, of the actors that are there, and of new ones; in the order of the statement's arguments."""
    pages = [(item.id, page) for item in appends for page in item.pages]
    found: list[list[Any]] = [
        [name for name, _ in pages],
        [page.first_seq for _, page in pages],
        [page.cause for _, page in pages],
        [page.at for _, page in pages],
        [_join(page.events) for _, page in pages],
    ]
    if there:
        found += [*_actors(there), [item.expected for item in there], [item.created_at for item in there]]
    if new:
        found += [*_actors(new), [item.pages[0].at if item.pages else None for item in new]]
        found += ([item.facts[name] if item.facts else None for item in new] for name in facts)
    return found


def _actors(appends: Sequence[Append]) -> list[list[Any]]:
    return [
        [item.id for item in appends],
        [item.tenant for item in appends],
        [item.version for item in appends],
        [item.status for item in appends],
        [item.wake_at for item in appends],
        [item.finished_at for item in appends],
    ]


# A page's events are stored as one JSON array. The separator is a line feed between elements: JSON text from a
# serializer holds no raw line feed, so the array is split again without being parsed.
_SEPARATOR: Final = b",\n"


def _join(events: Sequence[bytes]) -> str:
    return (b"[" + _SEPARATOR.join(events) + b"]").decode()


def _split(text: str) -> tuple[bytes, ...]:
    body = text[1:-1].encode()
    return tuple(body.split(_SEPARATOR)) if body else ()
