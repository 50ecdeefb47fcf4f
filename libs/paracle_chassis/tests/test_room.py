"""Mailboxes that have a room: what does not fit is somebody else's, and a closed one is given nothing."""

import asyncio
from functools import partial

import pytest

from paracle_chassis.delivery import Delivery
from paracle_chassis.room import Room
from paracle_chassis.testing.contracts.bus import mailbox, note
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.sample import Note
from paracle_domain import subjects

pytestmark = pytest.mark.connected


class Worker:
    """A replica that keeps what it gets, until it is told to finish some of it."""

    def __init__(self, size: int) -> None:
        self.room = Room(size)
        self.kept: list[Delivery] = []
        self.most = 0
        self.tries: list[int] = []

    async def __call__(self, batch) -> None:
        for delivery in batch:
            delivery.keep()
            self.kept.append(delivery)
            self.tries.append(delivery.deliveries)
            self.room.enter()
        self.most = max(self.most, len(self.kept))

    async def finish(self, number: int) -> None:
        done, self.kept = self.kept[:number], self.kept[number:]
        for delivery in done:
            await delivery.ack()
            self.room.leave()

    @property
    def numbers(self) -> list[int]:
        return [delivery.decode(Note).number for delivery in self.kept]


async def begin(serve, size: int):
    worker = Worker(size)
    bus = await serve(mailbox(worker, room=worker.room))
    return worker, bus


async def left(bus) -> int:
    return (await bus.client.jsm().stream_info(subjects.TASKS)).state.messages


async def once_it_waits(bus):
    """The consumer, once it knows of the message that nobody asks for: it hears of one after that was acknowledged."""

    async def knows():
        info = await bus.client.jsm().consumer_info(subjects.TASKS, "testing")
        return info if info.num_pending == 1 else None

    return await eventually(knows)


async def test_a_closed_room_is_quiet_once_nothing_that_was_asked_for_can_come(serve):
    begun, gate = asyncio.Event(), asyncio.Event()
    room = Room(10)

    async def slow(batch) -> None:
        begun.set()
        await gate.wait()

    bus = await serve(mailbox(slow, room=room))
    await bus.publish([note(1)])
    await asyncio.wait_for(begun.wait(), 30)
    room.close()
    await bus.link.check()
    assert not room.quiet, "what was handed over may have no place yet"
    gate.set()
    await eventually(lambda: room.quiet)
    room.open()
    assert not room.quiet


def holds(worker: Worker, number: int) -> bool:
    return len(worker.kept) == number


@pytest.mark.parametrize("size", [1, 3, 300, 700])
async def test_it_holds_no_more_than_it_has_places_for_and_gets_on_as_they_become_free(serve, size):
    worker, bus = await begin(serve, size)
    await bus.publish([note(number) for number in range(1_000)])
    at_once = max(1, size // 2)
    for done in range(0, min(1_000, 50 * at_once), at_once):
        await eventually(partial(holds, worker, min(size, 1_000 - done)))
        await worker.finish(at_once)
    assert worker.most == size
    assert set(worker.tries) == {1}, "nothing was fetched only to be given back"


async def test_what_does_not_fit_goes_to_others_at_once(serve):
    small, bus = await begin(serve, 2)
    large, _ = await begin(serve, 100)
    await bus.publish([note(number) for number in range(50)])
    await eventually(lambda: len(small.kept) + len(large.kept) == 50)
    assert small.most <= 2
    assert {*small.tries, *large.tries} == {1}


async def test_a_closed_room_is_given_nothing_and_an_opened_one_gets_what_waits(serve):
    worker, bus = await begin(serve, 10)
    await bus.publish([note(1)])
    await eventually(lambda: worker.numbers == [1])
    worker.room.close()

    async def nobody_asks() -> bool:
        info = await bus.client.jsm().consumer_info(subjects.TASKS, "testing")
        return info.num_waiting == 0

    await eventually(nobody_asks)
    await bus.publish([note(2)])
    info = await once_it_waits(bus)
    assert (info.num_ack_pending, worker.numbers) == (1, [1])
    await bus.check()
    worker.room.open()
    await eventually(lambda: worker.numbers == [1, 2])
    assert worker.tries == [1, 1]


async def test_one_that_closes_takes_what_was_on_its_way_and_others_the_rest(serve):
    one, bus = await begin(serve, 1_000)
    two, _ = await begin(serve, 1_000)
    publishing = asyncio.create_task(bus.publish([note(number) for number in range(2_000)]))
    await eventually(lambda: len(one.kept) > 0)
    one.room.close()
    await publishing
    had = len(one.kept)

    async def all_taken() -> bool:
        await two.finish(len(two.kept))
        return await left(bus) == len(one.kept)

    await eventually(all_taken)
    assert len(one.kept) - had <= 256


async def test_opening_and_closing_again_and_again_ends_as_was_said_last(serve):
    worker, bus = await begin(serve, 10)
    for _ in range(20):
        worker.room.close()
        await asyncio.sleep(0)
        worker.room.open()
    await bus.publish([note(1)])
    await eventually(lambda: worker.numbers == [1])


async def test_a_message_is_not_turned_away_again_and_again_while_a_mailbox_drains(serve):
    """Its requests are taken back first: one that stood would be sent the same message over and over."""
    hold = asyncio.Event()

    async def slow(batch) -> None:
        await hold.wait()

    bus = await serve(mailbox(slow))
    await bus.publish([note(1)])
    await eventually(lambda: bus._mailboxes[0]._in_hand)
    draining = asyncio.create_task(bus.drain(5))

    async def nobody_asks() -> bool:
        return (await bus.client.jsm().consumer_info(subjects.TASKS, "testing")).num_waiting == 0

    await eventually(nobody_asks)
    await bus.publish([note(2)])
    assert (await once_it_waits(bus)).delivered.consumer_seq == 1
    hold.set()
    await draining


@pytest.mark.parametrize("more", [{"at_once": 2}, {"linger_s": 0.1}])
def test_a_mailbox_with_a_room_takes_one_batch_at_once_as_it_comes(more):
    async def work(_batch) -> None:
        raise AssertionError("nothing is served")

    with pytest.raises(ValueError, match="with a room"):
        mailbox(work, room=Room(1), **more)
