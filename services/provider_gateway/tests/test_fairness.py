"""Fair queueing: against a naive model, and what it promises to tenants and priorities."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.inference.request import Priority
from paracle_provider_gateway.fairness import WEIGHTS, FairQueue, Ticket, Turns

TENANTS = ("acme", "globex", "initech")
PRIORITIES: tuple[Priority, ...] = ("low", "normal", "high")


def popped[T](queue: FairQueue[T]) -> T:
    item = queue.pop()
    assert item is not None
    return item


class Naive:
    """Start-time fair queueing that looks through every key each time."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights
        self.now = 0.0
        self.waiting: Counter[str] = Counter()
        self.start: dict[str, tuple[float, int]] = {}
        self.paid: dict[str, float] = {}
        self.number = 0

    def add(self, key: str) -> None:
        self.waiting[key] += 1
        if key not in self.start:
            self._line_up(key, max(self.now, self.paid.get(key, 0.0)))

    def take(self) -> str:
        key = min(self.start, key=self.start.__getitem__)
        self.now = self.start.pop(key)[0]
        self.waiting[key] -= 1
        self.paid[key] = self.now + 1 / self.weights[key]
        if self.waiting[key]:
            self._line_up(key, self.paid[key])
        if not sum(self.waiting.values()):
            self.now, self.paid = 0.0, {}
        return key

    def _line_up(self, key: str, start: float) -> None:
        self.start[key] = (start, self.number)
        self.number += 1


weights_of_keys = st.fixed_dictionaries({key: st.sampled_from((1.0, 2.0, 8.0)) for key in "abcdef"})


@given(st.lists(st.sampled_from((*"abcdef", None)), max_size=200), weights_of_keys)
def test_turns_are_those_of_the_naive_model(happening: list[str | None], weights: dict[str, float]):
    turns, naive = Turns(weights), Naive(weights)
    for key in happening:
        if key is not None:
            turns.add(key)
            naive.add(key)
        elif turns:
            assert turns.take() == naive.take()
    while turns:
        assert turns.take() == naive.take()
    assert not sum(naive.waiting.values())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sets(st.sampled_from("abc")), st.booleans()), max_size=100))
def test_who_may_not_is_passed_over_and_gains_nothing_by_it(happening: list[tuple[str, set[str], bool]]):
    turns, waiting = Turns[str](), Counter[str]()
    for key, may, adds in happening:
        if adds:
            turns.add(key)
            waiting[key] += 1
            continue
        taken = turns.take(may.__contains__)
        if taken is None:
            assert not any(waiting[one] for one in may)
        else:
            assert taken in may
            waiting[taken] -= 1
    rest = Counter[str]()
    while turns:
        rest[turns.take() or ""] += 1
        several = [rest[one] for one in "abc" if rest[one] < waiting[one]]
        assert not several or max(several) - min(several) <= 1
    assert rest == +waiting


@given(st.dictionaries(st.sampled_from(TENANTS), st.integers(1, 300), min_size=2), st.randoms())
def test_tenants_that_wait_are_served_alike_however_much_they_ask(asks: dict[str, int], random):
    arrivals = [tenant for tenant, number in asks.items() for _ in range(number)]
    random.shuffle(arrivals)
    queue = FairQueue[str]()
    for tenant in arrivals:
        queue.push(tenant, "normal", tenant)
    served: Counter[str] = Counter()
    while queue:
        served[popped(queue)] += 1
        backlogged = [served[tenant] for tenant in asks if served[tenant] < asks[tenant]]
        if len(backlogged) > 1:
            assert max(backlogged) - min(backlogged) <= 1
    assert served == Counter(asks)


@given(st.integers(1, 60), st.integers(0, 3))
def test_a_late_tenant_waits_for_no_more_than_one_turn_of_each_other(noise: int, gone: int):
    queue = FairQueue[str]()
    for _ in range(noise + gone):
        queue.push("noisy", "high", "noisy")
    for _ in range(gone):
        popped(queue)
    queue.push("quiet", "low", "quiet")
    assert "quiet" in {popped(queue), popped(queue)}


def test_priorities_of_a_tenant_are_shares_and_none_starves():
    queue = FairQueue[Priority]()
    for _ in range(1_000):
        for priority in PRIORITIES:
            queue.push("acme", priority, priority)
    total = sum(WEIGHTS.values())
    served = Counter(popped(queue) for _ in range(int(total) * 20))
    for priority in PRIORITIES:
        assert abs(served[priority] - WEIGHTS[priority] * 20) <= 1


def test_no_priority_takes_from_another_tenant():
    queue = FairQueue[str]()
    for _ in range(100):
        queue.push("pushy", "high", "pushy")
        queue.push("modest", "low", "modest")
    assert Counter(popped(queue) for _ in range(40)) == {"pushy": 20, "modest": 20}


def test_who_leaves_and_comes_back_at_once_gains_nothing():
    queue = FairQueue[str]()
    for _ in range(100):
        queue.push("steady", "normal", "steady")
    served: Counter[str] = Counter()
    for _ in range(40):
        queue.push("hopping", "normal", "hopping")
        served[popped(queue)] += 1
        served[popped(queue)] += 1
    assert abs(served["steady"] - served["hopping"]) <= 1


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(TENANTS), st.sampled_from(PRIORITIES)),
        st.tuples(st.just("pop"), st.none(), st.none()),
        st.tuples(st.just("discard"), st.integers(0, 50), st.none()),
    ),
    max_size=150,
)


@given(steps)
def test_nothing_is_lost_or_served_twice_whatever_is_taken_out(happening):
    queue, tickets, left, served = FairQueue[int](), list[Ticket[int]](), set[int](), list[int]()
    for kind, first, second in happening:
        match kind:
            case "push":
                left.add(len(tickets))
                tickets.append(queue.push(first, second, len(tickets)))
            case "pop" if queue:
                served.append(popped(queue))
            case "discard" if first < len(tickets):
                queue.discard(tickets[first])
                left.discard(first) if first not in served else None
    while queue:
        served.append(popped(queue))
    assert sorted(served) == sorted(set(served))
    assert set(served) == left | {item for item in served if item not in left}
    assert left <= set(served)
    for tenant in TENANTS:
        for priority in PRIORITIES:
            mine = [i for i in served if (tickets[i].tenant, tickets[i].priority) == (tenant, priority)]
            assert mine == sorted(mine), "first come, first served among equals"


def test_what_tenants_leave_behind_is_bounded():
    turns = Turns[int]()
    for key in range(10_000):
        turns.add(key)
        turns.add(key + 1)
        turns.take()
    assert len(turns._paid_till) < 1_000
