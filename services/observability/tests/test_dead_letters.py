"""Dead letters: kept, shown, sent out again, given up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from observability_samples import NOW, RUN

from paracle_chassis.bus import outgoing
from paracle_chassis.dead_letters import Letter
from paracle_chassis.postgres import Queries
from paracle_chassis.routes import Routes
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.memory import MemoryBus
from paracle_chassis.testing.sample import Note
from paracle_domain import subjects
from paracle_domain.cursors import write_cursor
from paracle_domain.dead_letters import (
    SHOWN_BYTES,
    DeadLetter,
    DeadLetterFilter,
    DropDeadLetter,
    DropDeadLetters,
    GetDeadLetter,
    LetterGone,
    ListDeadLetters,
    RedriveDeadLetter,
    RedriveDeadLetters,
    dead_letter_id,
)
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from paracle_observability.adapters.memory import MemoryEventLog
from paracle_observability.adapters.memory_shelf import MemoryShelf
from paracle_observability.adapters.postgres import PostgresEventLog
from paracle_observability.adapters.shelf import PostgresShelf
from paracle_observability.dead_letters import DeadLetters
from paracle_observability.handlers import routes
from paracle_observability.ports import EventLog, Place, Shelf
from paracle_observability.projections import EventRow
from paracle_observability.rollcall import RollCall
from paracle_observability.service import Observability

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CALL = Context(tenant="default", principal="ann")


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def shelves(request: pytest.FixtureRequest) -> tuple[Shelf, EventLog]:
    if request.param == "memory":
        log = MemoryEventLog()
        return MemoryShelf(log), log
    pool, queries = request.getfixturevalue("database").pool, Queries.load("paracle_observability")
    return PostgresShelf(pool, queries), PostgresEventLog(pool, queries)


@pytest.fixture
def shelf(shelves) -> Shelf:
    return shelves[0]


def letter(number: int, *, tenant: str = "default", body: bytes = b"{}", **about) -> Letter:
    values = {"service": "orchestrator", "code": "internal", "run_id": None, "at": AT + timedelta(seconds=number)}
    found = DeadLetter(
        id=dead_letter_id(f"key {number}"),
        reason="it broke",
        subject=f"paracle.v1.{tenant}.task.agents",
        type="task",
        message_id=f"m-{number}",
        principal="bob",
        tries=8,
        size=len(body),
        **(values | about),
    )
    return Letter(tenant, found, {"ce-id": f"m-{number}", "own": "\u00e9"}, body, place=number)


def audit(kept: Letter) -> EventRow:
    from paracle_observability.dead_letters import _record

    return EventRow.of(kept.tenant, [_record(kept.about, "dropped", "ann", "why not", AT)], "ann")


# ── every shelf ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_kept_comes_back_whole(shelf: Shelf):
    kept = replace(letter(1, body=b"\x00\xff" * 10, run_id=RUN), told=True)
    assert await shelf.keep([kept, kept]) == 1
    assert await shelf.keep([kept]) == 0
    assert await shelf.get("default", kept.about.id) == kept
    assert await shelf.get("other", kept.about.id) is None


async def test_an_empty_batch_is_nothing(shelf: Shelf):
    assert await shelf.keep([]) == 0


async def test_pages_go_both_ways(shelf: Shelf):
    letters = [letter(number) for number in range(5)]
    await shelf.keep(letters)
    abouts = [one.about for one in letters]
    every = DeadLetterFilter()
    newest = await shelf.newest("default", every, None, 2)
    assert newest == abouts[:2:-1]
    assert await shelf.newest("default", every, Place(newest[-1].at, newest[-1].id), 10) == abouts[2::-1]
    oldest = await shelf.oldest("default", every, None, 2)
    assert oldest == abouts[:2]
    assert await shelf.oldest("default", every, Place(oldest[-1].at, oldest[-1].id), 10) == abouts[2:]


@pytest.mark.parametrize(
    ("which", "numbers"),
    [
        ({}, [0, 1, 2, 3]),
        ({"service": "agent_runtime"}, [1]),
        ({"code": "conflict"}, [2]),
        ({"run_id": RUN}, [3]),
        ({"since": AT + timedelta(seconds=2)}, [2, 3]),
        ({"until": AT + timedelta(seconds=2)}, [0, 1]),
        ({"code": "internal", "run_id": RUN}, [3]),
        ({"code": "conflict", "run_id": RUN}, []),
    ],
)
async def test_filters(shelf: Shelf, which, numbers):
    await shelf.keep(
        [
            letter(0),
            letter(1, service="agent_runtime"),
            letter(2, code="conflict"),
            letter(3, run_id=RUN),
            letter(4, tenant="other", run_id=RUN),
        ]
    )
    found = await shelf.oldest("default", DeadLetterFilter(**which), None, 10)
    assert [one.message_id for one in found] == [f"m-{number}" for number in numbers]
    assert await shelf.newest("default", DeadLetterFilter(**which), None, 10) == found[::-1]


async def test_what_was_settled_does_not_come_back(shelves):
    shelf, log = shelves
    kept = letter(1, run_id=RUN)
    await shelf.keep([kept])
    assert await shelf.remove("other", kept.about.id, audit(kept)) is False
    assert await shelf.remove("default", kept.about.id, audit(kept)) is True
    assert await shelf.remove("default", kept.about.id, audit(kept)) is False
    assert await shelf.keep([kept]) == 0
    assert await shelf.get("default", kept.about.id) is None
    (event,) = await log.of_entity("default", "dead_letter", kept.about.id, 0, 10)
    assert (event.event.type, event.principal) == ("dead_letter.dropped", "ann")
    assert [one.event.id for one in await log.of_run("default", RUN, 0, 10)] == [kept.about.id]


async def test_the_oldest_of_all_tenants_expire(shelf: Shelf):
    first, second, young = letter(1, tenant="other"), letter(2), letter(60)
    await shelf.keep([young, second, first])
    before = AT + timedelta(seconds=30)
    assert await shelf.older(before, 10) == [("other", first.about.id), ("default", second.about.id)]
    assert await shelf.older(before, 1) == [("other", first.about.id)]


# ── use cases ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Copies:
    """The stream's side, by hand."""

    def __init__(self) -> None:
        self.deleted: list[int] = []
        self.broken = False

    async def delete(self, letter: Letter) -> None:
        if self.broken:
            raise Unavailable("NATS is away")
        self.deleted.append(letter.place)


class World:
    """A service whose mailbox refuses what it does not like, and observability beside it."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.log = MemoryEventLog()
        self.shelf = MemoryShelf(self.log)
        self.copies = Copies()
        self.now = datetime.now(UTC) + timedelta(hours=1)
        self.service = DeadLetters(self.shelf, self.log, self.copies, self.bus, lambda: self.now)
        self.seen: list[tuple[str, int]] = []
        self.refuses = True

    async def open(self) -> None:
        await self.bus.serve(routes(Observability(self.log, {}, RollCall(self.log, {}, lambda: NOW)), self.service))
        table = Routes("testing")
        table.mailbox(stream=subjects.TASKS, durable="testing", filter="paracle.v1.*.task.agents", handler=self.handle)
        await self.bus.serve(table)

    async def handle(self, batch) -> None:
        for delivery in batch:
            number = delivery.decode(Note).number
            if self.refuses:
                raise Conflict("not welcome")
            self.seen.append((delivery.envelope.id, number))

    async def poison(self, *numbers: int, run: str | None = None, tenant: str = "default") -> list[DeadLetter]:
        context = Context(tenant, "bob", correlation_id=run)
        subject = subjects.task(tenant, "agents")
        known = len(self.shelf.letters)
        await self.bus.publish(
            [outgoing(subject, Note(text="x", number=n), context, source="t", id=f"{tenant}-{n}") for n in numbers]
        )
        await eventually(lambda: len(self.shelf.letters) == known + len(numbers))
        return await self.shelf.oldest(tenant, DeadLetterFilter(), None, 500)


@pytest.fixture
async def world():
    found = World()
    await found.open()
    yield found
    await found.bus.drain()


async def test_a_poisoned_message_is_listed_shown_and_redriven(world: World):
    (about,) = await world.poison(7, run=RUN)
    page = await world.service.list(ListDeadLetters(which=DeadLetterFilter(code="conflict")), CALL)
    assert page.letters == (about,)
    view = await world.service.get(GetDeadLetter(id=about.id), CALL)
    assert Note.decode((view.text or "").encode()) == Note(text="x", number=7)
    assert view.headers["ce-id"] == "default-7"
    world.refuses = False
    done = await world.service.redrive(RedriveDeadLetter(id=about.id), CALL)
    assert done.settled == (about.id,)
    await eventually(lambda: world.seen == [("default-7", 7)])
    assert world.copies.deleted == [1]
    assert (await world.service.list(ListDeadLetters(), CALL)).letters == ()
    (told,) = [item for item in world.bus.published if item.subject == subjects.result("default", RUN)]
    assert told.message == LetterGone(run_id=RUN, dead_letter=about.id)


async def test_who_asks_again_since_the_answer_was_lost_gets_the_same(world: World):
    first, second = await world.poison(1, 2, run=RUN)
    world.refuses = False
    redrive, drop = RedriveDeadLetter(id=first.id), DropDeadLetter(id=second.id, reason="old")
    before = (await world.service.redrive(redrive, CALL), await world.service.drop(drop, CALL))
    published = list(world.bus.published)
    assert (await world.service.redrive(redrive, CALL), await world.service.drop(drop, CALL)) == before
    assert world.bus.published == published


async def test_what_became_of_a_letter_is_told_to_who_wants_something_else(world: World):
    first, second = await world.poison(1, 2)
    await world.service.redrive(RedriveDeadLetter(id=first.id), CALL)
    await world.service.drop(DropDeadLetter(id=second.id, reason="old"), CALL)
    for use, became in (
        (world.service.drop(DropDeadLetter(id=first.id, reason="x"), CALL), "redriven by ann"),
        (world.service.redrive(RedriveDeadLetter(id=second.id), CALL), "dropped by ann"),
        (world.service.get(GetDeadLetter(id=second.id), CALL), "dropped by ann"),
    ):
        with pytest.raises(NotFound, match=f"is no more: it was {became} at 2"):
            await use
    with pytest.raises(NotFound, match="lists those there are"):
        await world.service.redrive(RedriveDeadLetter(id=dead_letter_id("nobody's")), CALL)


async def test_redriving_and_dropping_are_audited(world: World):
    first, second = await world.poison(1, 2, run=RUN)
    await world.service.redrive(RedriveDeadLetter(id=first.id), CALL)
    await world.service.drop(DropDeadLetter(id=second.id, reason="an old client"), CALL)
    events = [
        item.event for item in await world.log.of_run("default", RUN, 0, 10) if item.event.entity == "dead_letter"
    ]
    assert [(event.id, event.type, event.data["by"]) for event in events] == [
        (first.id, "dead_letter.redriven", "ann"),
        (second.id, "dead_letter.dropped", "ann"),
    ]
    assert events[1].data["why"] == "an old client"
    assert events[1].data["code"] == "conflict"
    published = [item for item in world.bus.published if ".evt.dead_letter." in item.subject]
    assert [item.message for item in published] == events


async def test_one_that_dies_again_is_another_letter_that_names_the_first(world: World):
    (about,) = await world.poison(1)
    await world.service.redrive(RedriveDeadLetter(id=about.id), CALL)
    await eventually(lambda: world.shelf.letters)
    (again,) = await world.shelf.oldest("default", DeadLetterFilter(), None, 10)
    assert again.id != about.id
    assert (again.redriven_from, again.message_id) == (about.id, about.message_id)


async def test_tenants_are_apart(world: World):
    await world.poison(1)
    (foreign,) = await world.poison(1, tenant="evil")
    assert [one.message_id for one in (await world.service.list(ListDeadLetters(), CALL)).letters] == ["default-1"]
    for use in (
        world.service.get(GetDeadLetter(id=foreign.id), CALL),
        world.service.redrive(RedriveDeadLetter(id=foreign.id), CALL),
        world.service.drop(DropDeadLetter(id=foreign.id, reason="x"), CALL),
    ):
        with pytest.raises(NotFound):
            await use
    await world.service.drop_many(DropDeadLetters(reason="all"), CALL)
    assert set(world.shelf.letters) == {("evil", foreign.id)}


async def test_many_are_redriven_oldest_first_page_by_page_and_none_twice(world: World):
    await world.poison(*range(5))
    asked = RedriveDeadLetters(which=DeadLetterFilter(code="conflict"), limit=2)
    settled: list[str] = []
    while True:
        done = await world.service.redrive_many(asked, CALL)
        settled += done.settled
        if not done.more:
            break
        which = asked.which.model_copy(update={"until": done.until})
        asked = asked.model_copy(update={"which": which, "after": done.after})
    assert len(settled) == 5
    sent = [item for item in world.bus.published if item.envelope.id in settled]
    assert [item.envelope.id for item in sent] == settled
    await eventually(lambda: len(world.shelf.letters) == 5)


async def test_those_that_came_after_the_first_page_are_left(world: World):
    await world.poison(1)
    world.now = datetime.now(UTC) - timedelta(hours=1)
    done = await world.service.redrive_many(RedriveDeadLetters(), CALL)
    assert (done.settled, done.more, done.until) == ((), False, world.now)


async def test_what_cannot_be_redriven_is_named_and_left(world: World):
    (about,) = await world.poison(1)
    known = world.shelf.letters["default", about.id]
    homeless = replace(known, about=about.model_copy(update={"subject": None}))
    world.shelf.letters["default", about.id] = homeless
    done = await world.service.redrive_many(RedriveDeadLetters(), CALL)
    assert done.settled == ()
    assert [(one.id, "drop it" in one.message) for one in done.refused] == [(about.id, True)]
    with pytest.raises(InvalidInput):
        await world.service.redrive(RedriveDeadLetter(id=about.id), CALL)


async def test_an_outage_leaves_a_letter_to_be_settled_again(world: World):
    (about,) = await world.poison(1)
    world.copies.broken = True
    for use in (
        world.service.redrive(RedriveDeadLetter(id=about.id), CALL),
        world.service.redrive_many(RedriveDeadLetters(), CALL),
        world.service.drop_many(DropDeadLetters(reason="x"), CALL),
    ):
        with pytest.raises(Unavailable):
            await use
    assert await world.shelf.get("default", about.id) is not None
    world.copies.broken = False
    done = await world.service.redrive(RedriveDeadLetter(id=about.id), CALL)
    assert done.settled == (about.id,)
    assert sum(item.envelope.id == about.id for item in world.bus.published) == 1  # the same letter is one message


async def test_of_two_at_once_the_first_settles_and_the_other_is_told(world: World):
    (about,) = await world.poison(1)
    kept = world.shelf.letters["default", about.id]
    await world.service.drop(DropDeadLetter(id=about.id, reason="x"), CALL)
    await world.service._give_up(kept, "dropped", CALL, "x")
    with pytest.raises(NotFound, match="it was dropped by ann"):
        await world.service._give_up(kept, "redriven", CALL, None)
    assert len(await world.log.of_entity("default", "dead_letter", about.id, 0, 10)) == 1


async def test_what_nobody_looks_after_expires_and_is_told(world: World):
    (about,) = await world.poison(1, run=RUN)
    await world.service.expire(7200)
    assert world.shelf.letters
    await world.service.expire(60)
    assert not world.shelf.letters
    (event,) = await world.log.of_entity("default", "dead_letter", about.id, 0, 10)
    assert (event.event.type, event.principal) == ("dead_letter.expired", "service:observability")


@pytest.mark.parametrize(
    ("body", "text", "truncated"),
    [
        (b'{"a": "\xc3\xa9"}', '{"a": "é"}', False),
        (b"", "", False),
        (b"\xff\xfe", None, False),
        (b"x" * (SHOWN_BYTES - 1) + "é".encode(), "x" * (SHOWN_BYTES - 1), True),
        (b"\xff" * (SHOWN_BYTES + 1), None, True),
    ],
)
async def test_a_body_is_shown_as_text_or_as_base64(world: World, body, text, truncated):
    kept = letter(1, body=body)
    await world.shelf.keep([kept])
    view = await world.service.get(GetDeadLetter(id=kept.about.id), CALL)
    assert (view.text, view.truncated) == (text, truncated)
    assert (view.base64 is None) == (text is not None)


async def test_lists_are_paged(world: World):
    letters = await world.poison(*range(3))
    first = await world.service.list(ListDeadLetters(limit=2), CALL)
    rest = await world.service.list(ListDeadLetters(limit=2, cursor=first.next_cursor), CALL)
    assert [*first.letters, *rest.letters] == letters[::-1]
    assert rest.next_cursor is None


async def test_a_cursor_of_another_list_or_of_no_letter_is_refused(world: World):
    """NUL is no text to PostgreSQL, which would be a bug."""
    for name in ("a\0b", RUN):
        with pytest.raises(InvalidInput, match="is no cursor"):
            await world.service.list(ListDeadLetters(cursor=write_cursor(datetime.now(UTC), name)), CALL)
        with pytest.raises(InvalidInput, match="is no cursor"):
            await world.service.redrive_many(RedriveDeadLetters(after=write_cursor(datetime.now(UTC), name)), CALL)


@pytest.mark.parametrize("cursor", ["x", "eA==", "é", "MjAyNi0wMS0wMVQwMDowMDowMCB4"])
async def test_a_made_up_cursor_is_refused(world: World, cursor: str):
    with pytest.raises(InvalidInput, match="is no cursor"):
        await world.service.list(ListDeadLetters(cursor=cursor), CALL)
