"""What every store of answers promises, in memory and on PostgreSQL; and the memory before it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from accounts_samples import KnownRuns
from answers_memory import MemoryAnswers
from hypothesis import given
from hypothesis import strategies as st

from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_provider_gateway.adapters.answers import PostgresAnswers
from paracle_provider_gateway.adapters.archive import PostgresArchive
from paracle_provider_gateway.answers import AnswerKey, AnswerMemory, AnswerStore, KeptAnswer
from paracle_provider_gateway.retention import BATCH, Keep, Retention

Q = AnswerKey("acme", b"q" * 32)
OTHER = AnswerKey("acme", b"o" * 32)
THEIRS = AnswerKey("globex", Q.question)
NEAR = 5.0
"""Seconds that a machine may stand still between two readings of two clocks: ages are not compared finer."""


def made(body: bytes = b"{}", age_s: float = 0.0, ttl_s: float = 3_600.0) -> KeptAnswer:
    now = time.monotonic()
    return KeptAnswer(body, now - age_s, now - age_s + ttl_s)


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    await migrated(postgres_dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_provider_gateway") as found:
        yield found


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def store(request: pytest.FixtureRequest) -> AnswerStore:
    if request.param == "memory":
        return MemoryAnswers()
    found: Database = request.getfixturevalue("database")
    return PostgresAnswers(found.pool, Queries.load("paracle_provider_gateway"), time.monotonic)


async def test_what_is_kept_is_found_with_its_age(store: AnswerStore):
    answer = made(b'{"a": 1}', age_s=100, ttl_s=1_000)
    await store.keep([(Q, answer)])
    nothing, found = await store.find([OTHER, Q])
    assert nothing is None
    assert found is not None
    assert found.body == answer.body
    assert found.made_at == pytest.approx(answer.made_at, abs=NEAR)
    assert found.expires_at == pytest.approx(answer.expires_at, abs=NEAR)


async def test_a_tenant_finds_only_its_own(store: AnswerStore):
    await store.keep([(Q, made(b"ours")), (THEIRS, made(b"theirs"))])
    ours, theirs, nobodys = await store.find([Q, THEIRS, AnswerKey("evil", Q.question)])
    assert ours is not None
    assert theirs is not None
    assert (ours.body, theirs.body, nobodys) == (b"ours", b"theirs", None)
    assert await store.clear("acme") == 1
    gone, left = await store.find([Q, THEIRS])
    assert gone is None
    assert left is not None
    assert await store.clear("acme") == 0


async def test_what_has_expired_is_not_found(store: AnswerStore):
    await store.keep([(Q, made(age_s=100, ttl_s=99)), (OTHER, made(age_s=100, ttl_s=101))])
    gone, left = await store.find([Q, OTHER])
    assert gone is None
    assert left is not None


async def test_the_younger_of_two_stays(store: AnswerStore):
    await store.keep([(Q, made(b"old", age_s=60))])
    await store.keep([(Q, made(b"new", age_s=30, ttl_s=40))])
    await store.keep([(Q, made(b"older", age_s=90))])
    [found] = await store.find([Q])
    assert found is not None
    assert found.body == b"new"
    assert found.expires_at == pytest.approx(time.monotonic() + 10, abs=NEAR)


@pytest.mark.connected
async def test_what_has_expired_goes(database: Database):
    queries = Queries.load("paracle_provider_gateway")
    answers, archive = (
        PostgresAnswers(database.pool, queries, time.monotonic),
        PostgresArchive(database.pool, queries),
    )
    old = made(age_s=100, ttl_s=10)
    await answers.keep([(AnswerKey("acme", bytes([n // 256, n % 256])), old) for n in range(BATCH + 1)])
    await answers.keep([(Q, made())])
    retention = Retention(archive, KnownRuns(), Keep(None, 86_400, answers=9))
    assert await retention.round() is not None, "there is more, and it is not waited for"
    assert await retention.round() is None
    assert await database.pool.fetchval("select count(*) from answers") == 1


@pytest.mark.connected
async def test_a_tenant_has_so_many_and_the_oldest_go(database: Database):
    queries = Queries.load("paracle_provider_gateway")
    answers = PostgresAnswers(database.pool, queries, time.monotonic)
    await answers.keep([(AnswerKey("acme", bytes([n])), made(age_s=n)) for n in range(9)])
    await answers.keep([(THEIRS, made(age_s=100))])
    await Retention(PostgresArchive(database.pool, queries), KnownRuns(), Keep(None, 86_400, answers=5)).round()
    left = await database.pool.fetch("select question from answers where tenant = 'acme' order by question")
    assert [row["question"] for row in left] == [bytes([n]) for n in range(5)]
    assert [one is not None for one in await answers.find([THEIRS])] == [True]


tenants = st.sampled_from(["a", "b", "c"])
sizes = st.integers(0, 3_000)


@given(puts=st.lists(st.tuples(tenants, st.integers(0, 9), sizes), max_size=60), most=st.integers(0, 20_000))
def test_memory_keeps_within_its_bounds_and_counts_right(puts: list[tuple[str, int, int]], most: int):
    memory = AnswerMemory(most)
    for tenant, number, size in puts:
        memory.put(AnswerKey(tenant, bytes([number])), made(b"x" * size))
        assert memory.total <= most
    for tenant in ("a", "b", "c"):
        memory.forget(tenant)
        assert all(memory.get(AnswerKey(tenant, bytes([number]))) is None for number in range(10))
    assert memory.total == 0


@given(loud=st.lists(sizes, max_size=200))
def test_who_has_little_keeps_it_however_much_another_has(loud: list[int]):
    memory, mine = AnswerMemory(20_000), made(b"x" * 3_000)
    memory.put(Q, mine)
    for number, size in enumerate(loud):
        memory.put(AnswerKey("loud", bytes([number])), made(b"x" * size))
    assert memory.get(Q) is mine


def test_what_was_not_asked_for_longest_goes_first():
    memory = AnswerMemory(3_000)
    keys = [AnswerKey("acme", bytes([number])) for number in range(3)]
    memory.put(keys[0], made(b"x" * 500))
    memory.put(keys[1], made(b"x" * 500))
    memory.get(keys[0])
    memory.put(keys[2], made(b"x" * 500))
    assert [memory.get(key) is not None for key in keys] == [True, False, True]
    memory.clear()
    assert memory.total == 0
