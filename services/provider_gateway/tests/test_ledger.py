"""What every `Ledger` promises, in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from accounts_samples import Bank, MemoryBank, PostgresBank, budget, count_of, order, settled

from paracle_chassis.postgres import Database
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import migrated
from paracle_domain.budget.matching import Tally
from paracle_domain.provider.spec import DeploymentLimits
from paracle_provider_gateway.adapters.replicas import PostgresReplica
from paracle_provider_gateway.ledger import Elsewhere, Ending, KnownBudget, Mode, NoRoom, Over, Page, Stale
from paracle_provider_gateway.upkeep import SEEN_EVERY_S

B = budget()
COUNT = count_of(B)


@pytest.fixture
async def postgres_bank(postgres_dsn: str) -> AsyncIterator[PostgresBank]:
    await migrated(postgres_dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_provider_gateway") as found:
        bank = PostgresBank(found.pool)
        async with PostgresReplica(found.pool, bank.queries, "a"), PostgresReplica(found.pool, bank.queries, "b"):
            yield bank


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def bank(request: pytest.FixtureRequest) -> Bank:
    if request.param == "memory":
        return MemoryBank()
    found: Bank = request.getfixturevalue("postgres_bank")
    return found


async def test_an_attempt_is_reserved_and_then_spent(bank: Bank):
    ledger, one = bank.ledger("a"), order(COUNT)
    assert list(await ledger.open([one])) == [None]
    assert await bank.tally(COUNT) == Tally(reserved_usd=Decimal("0.1"), reserved_tokens=10)
    assert list(await ledger.settle([settled(one)])) == []
    assert await bank.tally(COUNT) == Tally(spent_usd=Decimal("0.05"), spent_tokens=5, calls=1)
    assert await bank.endings() == {(one.call_id, 1, "a"): "completed"}


async def test_what_cost_nothing_is_released(bank: Bank):
    ledger, one = bank.ledger("a"), order(COUNT)
    await ledger.open([one])
    await ledger.settle([settled(one, Ending.FAILED, "0", 0)])
    assert await bank.tally(COUNT) == Tally()


async def test_a_batch_is_taken_in_order_and_each_by_itself(bank: Bank):
    wide, narrow = count_of(budget("wide", limit_usd=Decimal(9))), count_of(budget("narrow", limit_usd=Decimal("0.15")))
    batch = [order(wide, narrow), order(wide, narrow), order(wide, narrow), order(wide)]
    first, second, third, fourth = await bank.ledger("a").open(batch)
    assert (first, second, fourth) == (None, None, None)
    assert third == NoRoom(0.1, narrow)
    assert (await bank.tally(wide)).reserved_usd == Decimal("0.3")
    assert (await bank.tally(narrow)).reserved_usd == Decimal("0.2")


async def test_a_spent_budget_says_how_far(bank: Bank):
    ledger, one = bank.ledger("a"), order(COUNT)
    await ledger.open([one])
    await ledger.settle([settled(one, usd="1.25")])
    (verdict,) = await ledger.open([order(COUNT)])
    assert isinstance(verdict, Over)
    assert (verdict.count, verdict.tally.spent_usd, verdict.tally.spent_tokens) == (COUNT, Decimal("1.25"), 5)
    assert list(await ledger.open([order(COUNT, strict=False)])) == [None], (
        "what does not hold back counts all the same"
    )


async def test_tokens_are_a_limit_too_and_unknown_prices_count_there(bank: Bank):
    tokens = count_of(budget("t", limit_usd=None, limit_tokens=15))
    ledger, one, two = bank.ledger("a"), order(tokens, usd=None), order(tokens, usd=None)
    assert list(await ledger.open([one, two, order(tokens, usd=None)])) == [None, None, NoRoom(0.1, tokens)]
    await ledger.settle([settled(one, usd=None, tokens=15), settled(two, Ending.FAILED, None, 0)])
    found = await bank.tally(tokens)
    assert found == Tally(spent_tokens=15, calls=1, unpriced_calls=1)
    (verdict,) = await ledger.open([order(tokens, usd=None)])
    assert isinstance(verdict, Over)


async def test_a_book_that_changed_is_read_again(bank: Bank):
    ledger = bank.ledger("a")
    assert await ledger.page("acme") == Page()
    await bank.set_budgets("acme", B)
    assert list(await ledger.open([order(), order(tenant="other")])) == [Stale(), None]
    assert await ledger.page("acme") == Page(1, (KnownBudget(B, 1),))
    assert list(await ledger.open([order(revision=0), order(revision=1)])) == [Stale(), None]


async def test_another_replica_does_not_make_the_same_call(bank: Bank):
    ledger, other, one = bank.ledger("a"), bank.ledger("b"), order(COUNT)
    await ledger.open([one])
    again = order(COUNT, call_id=one.call_id)
    assert list(await other.open([again])) == [Elsewhere("a")]
    second = order(call_id=one.call_id, number=2)
    assert list(await ledger.open([second])) == [None]
    await ledger.settle([settled(one)])
    assert list(await other.open([again])) == [Elsewhere("a")], "one more of its attempts is open"
    assert list(await other.open([order(call_id=one.call_id, tenant="other")])) == [None]


async def test_what_was_spared_is_written_down_once_and_holds_nothing(bank: Bank):
    one = order()
    spared = settled(one, Ending.CACHED, "0", 0)
    await bank.ledger("a").note([spared, settled(order(), Ending.CACHED, "0", 0)])
    await bank.ledger("a").note([spared])
    assert sorted((await bank.endings()).values()) == ["cached", "cached"]
    again = order(COUNT, call_id=one.call_id)
    assert list(await bank.ledger("b").open([again])) == [None], "nobody has that call, so it may be made"


async def test_a_call_that_ended_elsewhere_is_not_made_again_unless_it_failed(bank: Bank):
    ledger, other, one, two = bank.ledger("a"), bank.ledger("b"), order(), order()
    await ledger.open([one, two])
    await ledger.settle([settled(one), settled(two, Ending.FAILED, "0", 0)])
    done, failed = order(call_id=one.call_id), order(call_id=two.call_id)
    assert list(await other.open([done, failed])) == [Elsewhere("a"), None]
    done.mode = Mode.ANYWAY
    assert list(await other.open([done])) == [None]


async def test_what_a_dead_replica_had_counts_as_used(bank: Bank):
    ledger, other, one = (
        bank.ledger("a"),
        bank.ledger("b"),
        order(COUNT, load="x", limits=DeploymentLimits(concurrency=1)),
    )
    await ledger.open([one])
    assert await other.close_orphans(10) == 0
    await bank.lose("a")
    assert await other.close_orphans(10) == 1
    assert await bank.tally(COUNT) == Tally(spent_usd=Decimal("0.1"), spent_tokens=10, calls=1)
    assert await bank.endings() == {(one.call_id, 1, "a"): "unknown"}
    assert await bank.in_air("x") == 0
    assert await other.close_orphans(10) == 0


async def test_the_call_of_a_replica_that_went_can_be_taken_over(bank: Bank):
    ledger, other, one, two = bank.ledger("a"), bank.ledger("b"), order(COUNT), order(COUNT)
    await ledger.open([one, two])
    await other.close_call("acme", one.call_id, "a")
    assert list(await other.open([order(COUNT, call_id=one.call_id)])) == [None]
    assert (await bank.tally(COUNT)).reserved_usd == Decimal("0.2")
    assert await bank.endings() == {(one.call_id, 1, "a"): "unknown"}


async def test_a_replica_that_left_is_gone(bank: Bank):
    bank.ledger("a")
    ledger = bank.ledger("b")
    assert not await ledger.is_gone("a")
    await bank.lose("a")
    assert await ledger.is_gone("a")


@pytest.mark.connected
async def test_a_replica_is_gone_when_two_signs_of_life_are_missing(postgres_bank: PostgresBank):
    pool, ledger = postgres_bank.pool, postgres_bank.ledger("b")
    await _runs_for_long(postgres_bank)
    saw = "update replicas set seen_at = now() - make_interval(secs => $1) where id = 'a'"
    await pool.execute(saw, SEEN_EVERY_S)
    assert not await ledger.is_gone("a"), "the next one may be on its way"
    await pool.execute(saw, 2 * SEEN_EVERY_S)
    assert await ledger.is_gone("a")


async def test_a_replica_that_was_taken_for_dead_puts_it_right(bank: Bank):
    ledger, one = bank.ledger("a"), order(COUNT)
    await ledger.open([one])
    await bank.lose("a")
    await bank.ledger("b").close_orphans(10)
    assert list(await ledger.settle([settled(one)])) == []
    assert await bank.tally(COUNT) == Tally(spent_usd=Decimal("0.05"), spent_tokens=5, calls=1)
    assert await bank.endings() == {(one.call_id, 1, "a"): "completed"}
    assert list(await ledger.settle([settled(one)])) == [], "and does so once"
    assert (await bank.tally(COUNT)).calls == 1


async def test_settling_twice_counts_once(bank: Bank):
    ledger, one = bank.ledger("a"), order(COUNT)
    await ledger.open([one])
    await ledger.settle([settled(one)])
    assert list(await ledger.settle([settled(one)])) == []
    assert await bank.tally(COUNT) == Tally(spent_usd=Decimal("0.05"), spent_tokens=5, calls=1)


async def test_what_was_forgotten_is_said_once_more(bank: Bank):
    ledger, lost, kept = bank.ledger("a"), order(COUNT), order(count_of(budget("other")))
    await ledger.open([lost, kept])
    await bank.forget(lost)
    missing = settled(lost)
    assert list(await ledger.settle([missing])) == [missing]
    lost.mode = kept.mode = Mode.AGAIN
    assert list(await ledger.open([lost, kept])) == [None, None]
    assert (
        (await bank.tally(COUNT)).reserved_usd == (await bank.tally(kept.counts[0][0])).reserved_usd == Decimal("0.1")
    )
    assert list(await ledger.settle([missing])) == []
    assert list(await ledger.open([lost])) == [None], "what is settled is not opened again"
    assert await bank.tally(COUNT) == Tally(spent_usd=Decimal("0.05"), spent_tokens=5, calls=1)


async def test_after_a_crash_nothing_is_opened_before_every_replica_has_told_again(postgres_bank: PostgresBank):
    bank, ledger = postgres_bank, postgres_bank.ledger("a")
    await bank.pool.execute("truncate steady")  # as a crash does
    for replica in ("a", "b"):
        assert list(await ledger.open([order(COUNT)])) == [NoRoom(0.25, limit="doubt")]
        await bank.pool.execute(bank.queries.steady, replica)
    assert await bank.tally(COUNT) == Tally()
    assert list(await ledger.open([order(COUNT)])) == [None]
    await bank.pool.execute("truncate steady")
    assert list(await ledger.open([order(COUNT, mode=Mode.AGAIN)])) == [None], "that is how they tell"


async def test_a_replica_that_is_gone_for_good_is_waited_for_no_longer(postgres_bank: PostgresBank):
    bank, ledger = postgres_bank, postgres_bank.ledger("a")
    await bank.pool.execute("delete from steady where replica = 'b'")
    assert list(await ledger.open([order(COUNT)])) == [NoRoom(0.25, limit="doubt")]
    await bank.pool.execute("update replicas set seen_at = now() - interval '11 seconds' where id = 'b'")
    await _runs_for_long(bank)
    assert list(await ledger.open([order(COUNT)])) == [None]
    late = bank.ledger("b")
    assert list(await late.open([order(COUNT)])) == [NoRoom(0.25, limit="doubt")], "should it live after all"


async def test_however_long_a_recovery_takes_every_replica_is_waited_for(postgres_bank: PostgresBank):
    """Only sessions have crashed, so PostgreSQL says that it has run all the time, and nobody was seen for long."""
    bank, ledger = postgres_bank, postgres_bank.ledger("a")
    await _runs_for_long(bank)
    await bank.pool.execute("update replicas set seen_at = now() - interval '1 hour'")
    await bank.pool.execute("truncate steady")
    for replica in ("a", "b"):
        assert not await ledger.is_gone("b")
        assert await ledger.close_orphans(10) == 0
        assert list(await ledger.open([order(COUNT)])) == [NoRoom(0.25, limit="doubt")]
        await bank.pool.execute(bank.queries.steady, replica)
    assert list(await ledger.open([order(COUNT)])) == [None]
    assert await bank.pool.fetchval("select count(*) from replicas") == 2


async def _runs_for_long(bank: PostgresBank) -> None:
    """PostgreSQL, and those who have told since then what they know."""
    await bank.pool.execute("update steady set since = now() - interval '11 seconds'")
    asked = "select pg_postmaster_start_time() < now() - interval '10 seconds'"
    await eventually(lambda: bank.pool.fetchval(asked), within_s=30)


class TestSharedLimits:
    async def test_no_more_are_in_the_air_than_allowed(self, bank: Bank):
        limits = DeploymentLimits(concurrency=2)
        first, second, third = (order(load="x", limits=limits) for _ in range(3))
        assert list(await bank.ledger("a").open([first])) == [None]
        assert list(await bank.ledger("b").open([second, third])) == [None, NoRoom(0.1, limit="concurrency")]
        await bank.ledger("a").settle([settled(first)])
        assert list(await bank.ledger("b").open([third])) == [None]
        assert await bank.in_air("x") == 2

    async def test_requests_of_a_minute_run_out(self, bank: Bank):
        orders = [order(load="x", limits=DeploymentLimits(requests_per_minute=3)) for _ in range(5)]
        verdicts = await bank.ledger("a").open(orders)
        assert list(verdicts[:3]) == [None] * 3
        for verdict in verdicts[3:]:
            assert isinstance(verdict, NoRoom)
            assert verdict.limit == "requests"
            assert 0 < verdict.after_s <= 120

    async def test_tokens_of_a_minute_run_out_and_what_was_not_used_comes_back(self, bank: Bank):
        ledger, limits = bank.ledger("a"), DeploymentLimits(tokens_per_minute=15)
        big, small = order(load="x", limits=limits, tokens=100), order(load="x", limits=limits)
        (granted, refused) = await ledger.open([big, small])
        assert granted is None, "one that is larger than the limit must be possible, too"
        assert isinstance(refused, NoRoom)
        assert refused.limit == "tokens"
        await ledger.settle([settled(big, tokens=2)])
        assert list(await ledger.open([small])) == [None]

    async def test_tokens_that_were_not_used_come_back_in_the_minute_in_which_they_were_taken(self, bank: Bank):
        ledger, limits = bank.ledger("a"), DeploymentLimits(tokens_per_minute=1_000)
        older, old, new = (order(load="x", limits=limits, tokens=100) for _ in range(3))
        await ledger.open([older])
        await bank.a_minute_passes("x")
        await ledger.open([old])
        await bank.a_minute_passes("x")
        await ledger.open([new])
        assert await bank.tokens("x") == (100, 100)
        await ledger.settle([settled(old, tokens=2)])
        assert await bank.tokens("x") == (100, 2)
        await ledger.settle([settled(older, tokens=2)])
        assert await bank.tokens("x") == (100, 2), "what is over for long counts nowhere any more"
        await ledger.settle([settled(new, tokens=130)])
        assert await bank.tokens("x") == (130, 2)
        assert await bank.in_air("x") == 0

    async def test_deployments_are_apart(self, bank: Bank):
        limits = DeploymentLimits(concurrency=1)
        assert list(await bank.ledger("a").open([order(load="x", limits=limits), order(load="y", limits=limits)])) == [
            None,
            None,
        ]


@pytest.mark.parametrize("seed", range(3))
async def test_many_at_once_pass_the_limit_by_one_at_most(bank: Bank, seed: int):
    """Two replicas, four batches each at a time, settled in any order: reserved and spent never add up to more."""
    counts = [count_of(budget(f"b{number}", limit_usd=Decimal(1))) for number in range(3)]
    most = Decimal("0.1")

    async def agent(number: int) -> None:
        ledger, draw = bank.ledger("ab"[number % 2]), random.Random(seed * 100 + number)
        for _ in range(6):
            batch = [order(*draw.sample(counts, draw.randint(1, 3))) for _ in range(draw.randint(1, 8))]
            verdicts = await ledger.open(batch)
            granted = [one for one, verdict in zip(batch, verdicts, strict=True) if verdict is None]
            draw.shuffle(granted)
            await ledger.settle([settled(one, usd=str(draw.choice(["0.1", "0.01"]))) for one in granted])

    await asyncio.gather(*(agent(number) for number in range(8)))
    for count in counts:
        found = await bank.tally(count)
        assert found.reserved_usd == 0
        assert found.reserved_tokens == 0
        assert 0 < found.spent_usd < Decimal(1) + most
