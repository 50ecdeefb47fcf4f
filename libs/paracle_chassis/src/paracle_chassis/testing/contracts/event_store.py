"""What every `EventStore` must do. Subclass it and give a fixture `store` over one text fact, `colour`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

from paracle_chassis.event_store import READ_BYTES, Append, Born, Due, EventStore, Page, Wake

#: The tables of the suite's actors, for stores that have tables.
DDL: Final = """
create table things (
    id text primary key, tenant text not null, version int not null, status text not null, wake_at timestamptz,
    created_at timestamptz not null, finished_at timestamptz, colour text not null
);
create table thing_history (
    id text not null, seq int not null, cause text not null, at timestamptz not null, events json not null,
    primary key (id, seq)
);
"""
AT = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)


def page(first_seq: int, *types: str, cause: str = "msg_1") -> Page:
    """A page of events that are only a type."""
    return Page(first_seq, cause, AT, tuple(b'{"type":"%b"}' % name.encode() for name in types))


def made(
    name: str, *pages: Page, expected: int = 0, wake_at: datetime | None = None, status: str = "running"
) -> Append:
    """An append of `pages` to the actor `name` of tenant `acme`."""
    return Append(name, "acme", expected, pages, status, wake_at, facts={"colour": "red"} if expected == 0 else None)


class EventStoreContract:
    """The suite."""

    async def test_what_is_appended_is_loaded(self, store: EventStore) -> None:
        assert await store.append([made("a", page(1, "x", "y"), page(3, "z", cause="msg_2"), wake_at=AT)]) == set()
        loaded = (await store.load(["a", "nobody"]))["a"]
        assert (loaded.tenant, loaded.version, loaded.status, loaded.wake_at) == ("acme", 3, "running", AT)
        assert loaded.facts == {"colour": "red"}
        assert loaded.created_at == AT
        assert loaded.pages == (page(1, "x", "y"), page(3, "z", cause="msg_2"))

    async def test_nobody_is_nobody(self, store: EventStore) -> None:
        assert await store.load(["nobody"]) == {}
        assert await store.read("nobody", 0, 10) == []
        assert await store.append([]) == set()

    async def test_a_history_goes_on_where_it_stopped(self, store: EventStore) -> None:
        await store.append([made("a", page(1, "x"))])
        ended = Append("a", "acme", 1, (page(2, "y", "z"),), "completed", finished_at=AT)
        assert await store.append([ended]) == set()
        loaded = (await store.load(["a"], {"a": 1}))["a"]
        assert (loaded.version, loaded.status, loaded.finished_at) == (3, "completed", AT)
        assert loaded.pages == (page(2, "y", "z"),)
        assert loaded.facts == {"colour": "red"}

    async def test_who_comes_too_late_writes_nothing(self, store: EventStore) -> None:
        await store.append([made("a", page(1, "x"))])
        await store.append([made("a", page(2, "y"), expected=1)])
        assert await store.append([made("a", page(2, "z"), expected=1, status="failed")]) == {"a"}
        loaded = (await store.load(["a"]))["a"]
        assert (loaded.version, loaded.status) == (2, "running")
        assert loaded.pages == (page(1, "x"), page(2, "y"))

    async def test_an_actor_is_created_once(self, store: EventStore) -> None:
        await store.append([made("a", page(1, "x"))])
        assert await store.append([made("a", page(1, "y"))]) == {"a"}

    async def test_an_actor_that_is_not_there_is_not_moved_on(self, store: EventStore) -> None:
        assert await store.append([made("a", page(2, "y"), expected=1)]) == {"a"}
        assert await store.load(["a"]) == {}

    async def test_another_tenant_cannot_write(self, store: EventStore) -> None:
        await store.append([made("a", page(1, "x"))])
        foreign = Append("a", "evil", 1, (page(2, "y"),), "failed")
        assert await store.append([foreign]) == {"a"}

    async def test_what_was_known_of_an_actor_is_not_written_to_another_one_that_has_its_id(
        self, store: EventStore
    ) -> None:
        await store.append([made("a", page(1, "x"))])
        of_both = [
            Append("a", "acme", 1, (page(2, "y"),), "running", created_at=at) for at in (AT - timedelta(seconds=1), AT)
        ]
        assert [await store.append([one]) for one in of_both] == [{"a"}, set()]

    async def test_a_batch_loses_only_what_is_late(self, store: EventStore) -> None:
        await store.append([made("a", page(1, "x")), made("b", page(1, "x"))])
        await store.append([made("a", page(2, "y"), expected=1)])
        lost = await store.append(
            [made("a", page(2, "late"), expected=1), made("b", page(2, "y"), expected=1), made("c", page(1, "x"))]
        )
        assert lost == {"a"}
        versions = {name: actor.version for name, actor in (await store.load(["a", "b", "c"])).items()}
        assert versions == {"a": 2, "b": 2, "c": 1}

    async def test_of_many_writers_one_wins_each_time(self, store: EventStore) -> None:
        names = [f"actor-{number}" for number in range(10)]
        await store.append([made(name, page(1, "x")) for name in names])

        async def write(writer: int) -> set[str]:
            order = names if writer % 2 else names[::-1]
            return await store.append([made(name, page(2, f"w{writer}"), expected=1) for name in order])

        lost = await asyncio.gather(*(write(writer) for writer in range(6)))
        assert sum(len(names) - len(late) for late in lost) == len(names)
        assert all(len(actor.pages) == 2 for actor in (await store.load(names)).values())

    async def test_pages_are_read_from_any_event(self, store: EventStore) -> None:
        pages = (page(1, "a", "b", "c"), page(4, "d"), page(5, "e", "f"))
        await store.append([made("a", *pages)])
        assert await store.read("a", 0, 100) == list(pages)
        assert (await store.read("a", 1, 100))[0] == pages[0]
        assert await store.read("a", 3, 100) == list(pages[1:])
        assert await store.read("a", 5, 100) == [pages[2]]
        assert await store.read("a", 6, 100) == []
        assert (await store.read("a", 3, 1))[0] == pages[1]

    async def test_what_is_read_together_is_no_more_than_a_reader_waits_for(self, store: EventStore) -> None:
        large = "x" * (READ_BYTES * 2 // 3)
        pages = [page(number, large) for number in range(1, 5)]
        await store.append([made("a", *pages)])
        assert await store.read("a", 0, 100) == pages[:2]
        assert await store.read("a", 2, 100) == pages[2:]
        assert await store.read("a", 0, 1) == pages[:2]

    async def test_events_keep_their_bytes(self, store: EventStore) -> None:
        events = (b'{"type":"x","text":"a\\n, \\u0001 \xc3\xa9 ]["}', b'{"type":"y"}')
        await store.append([made("a", Page(1, "c", AT, events))])
        assert (await store.load(["a"]))["a"].pages[0].events == events

    async def test_who_wants_to_be_woken_is_claimed_once(self, store: EventStore) -> None:
        later = AT + timedelta(minutes=1)
        await store.append(
            [
                made("a", page(1, "x"), wake_at=AT),
                made("b", page(1, "x"), wake_at=AT - timedelta(seconds=1)),
                made("c", page(1, "x"), wake_at=later),
                made("d", page(1, "x")),
            ]
        )
        assert await store.claim_due(AT, later, 1) == [Due("b", "acme")]
        assert await store.claim_due(AT, later, 10) == [Due("a", "acme")]
        assert await store.claim_due(AT, later, 10) == []
        assert {due.id for due in await store.claim_due(later, later, 10)} == {"a", "b", "c"}

    async def test_a_wake_up_can_be_moved_and_dropped(self, store: EventStore) -> None:
        await store.append([made("a", page(1, "x"), wake_at=AT), made("b", page(1, "x"), wake_at=AT)])
        later = AT + timedelta(hours=1)
        await store.reschedule([Wake("a", 1, None), Wake("b", 1, later), Wake("nobody", 1, later)])
        assert await store.claim_due(later - timedelta(seconds=1), later, 10) == []
        assert await store.claim_due(later, later, 10) == [Due("b", "acme")]
        assert (await store.load(["a"]))["a"].version == 1

    async def test_a_wake_up_of_an_actor_that_moved_on_is_not_moved(self, store: EventStore) -> None:
        """Whoever moved it on knows better, and may want it sooner."""
        await store.append([made("a", page(1, "x"))])
        await store.append([Append("a", "acme", 1, (page(2, "y"),), "running", wake_at=AT)])
        await store.reschedule([Wake("a", 1, AT + timedelta(hours=1))])
        assert await store.claim_due(AT, AT, 10) == [Due("a", "acme")]

    async def test_actors_are_listed_in_the_order_in_which_they_were_made(self, store: EventStore) -> None:
        def at(seconds: int) -> datetime:
            return AT + timedelta(seconds=seconds)

        for name, tenant, seconds in (("c", "acme", 1), ("a", "globex", 1), ("b", "acme", 1), ("d", "acme", 2)):
            pages = (Page(1, "msg_1", at(seconds), (b'{"type":"x"}',)),)
            assert await store.append([Append(name, tenant, 0, pages, "running", facts={"colour": "red"})]) == set()
        assert await store.born(at(1), "", at(2), 2) == [Born("a", "globex", at(1)), Born("b", "acme", at(1))]
        assert [one.id for one in await store.born(at(1), "b", at(3), 9)] == ["c", "d"]
        assert await store.born(at(3), "", at(9), 9) == []
