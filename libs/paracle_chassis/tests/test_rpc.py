"""RPC over real NATS: what the contract suite cannot show."""

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import closing
from urllib.parse import urlsplit

import nats
import pytest

from paracle_chassis import rpc, rpc_server
from paracle_chassis.frames import flushed
from paracle_chassis.routes import Routes
from paracle_chassis.testing.eventually import eventually, leap
from paracle_chassis.testing.sample import Echo, Echoed, Work
from paracle_chassis.voice import frame_of
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.errors import DeadlineExceeded, PayloadTooLarge, Unavailable

pytestmark = pytest.mark.connected
CONTEXT = Context("acme")
SUBJECT = subjects.rpc("acme", "testing", "echo")


ORDERS = ("$JS.API.STREAM.PURGE.COMMANDS", subjects.cmd("globex", "testing", "begin"))


async def hearing(client, subject: str) -> list[bytes]:
    """What comes on `subject` from now on."""
    heard: list[bytes] = []

    async def hear(message) -> None:
        heard.append(message.data)

    await client.subscribe(subject, cb=hear)
    await flushed(client)
    return heard


async def echo(request: Echo, call: Context) -> Echoed:
    return Echoed(text=request.text, tenant=call.tenant)


def echoing() -> Routes:
    table = Routes("testing")
    table.rpc(Echo, echo)
    return table


def working(handler) -> Routes:
    table = Routes("testing")
    table.rpc(Work, handler, long=True)
    return table


async def test_nonsense_is_a_malformed_message_that_names_the_field(serve, nats_client):
    await serve(echoing())
    answer = await nats_client.request(SUBJECT, b'{"text": 7}')
    assert (answer.headers or {})["paracle-error"] == "malformed_message"
    problem = json.loads(answer.data)
    assert (problem["path"], problem["status"]) == ("text", 400)
    for body in (b"\xff\xfe", b"", b"[]"):
        answer = await nats_client.request(SUBJECT, body)
        assert (answer.headers or {})["paracle-error"] == "malformed_message"


async def test_a_field_that_there_is_not_is_refused_where_every_field_counts(serve, nats_client):
    table = Routes("testing")
    table.rpc(Echo, echo, exact=True)
    await serve(table)
    answer = await nats_client.request(SUBJECT, b'{"text": "x", "txet": "y"}')
    problem = json.loads(answer.data)
    assert (problem["code"], problem["path"]) == ("invalid_input", "txet")
    answer = await nats_client.request(SUBJECT, b'{"text": "x"}')
    assert json.loads(answer.data)["text"] == "x"


async def test_large_questions_and_answers_travel_by_claim_check(serve):
    await serve(echoing())
    bus = await serve()
    text = "y" * 2_000_000
    assert (await bus.call(Echo(text=text), CONTEXT)).text == text


async def test_a_body_over_the_limit_is_refused_before_it_travels(serve, monkeypatch):
    monkeypatch.setattr("paracle_chassis.claims.PAYLOAD_LIMIT", 1_000_000)
    await serve(echoing())
    bus = await serve()
    with pytest.raises(PayloadTooLarge, match="1,000,000"):
        await bus.call(Echo(text="z" * 1_000_001), CONTEXT)


async def test_many_questions_at_once_get_their_own_answers(serve):
    await serve(echoing())
    bus = await serve()
    answers = await asyncio.gather(*(bus.call(Echo(text=str(number)), CONTEXT) for number in range(500)))
    assert [answer.text for answer in answers] == [str(number) for number in range(500)]


async def test_what_takes_long_keeps_nothing_else_waiting(serve, monkeypatch):
    monkeypatch.setattr(rpc_server, "MOST_IN_FLIGHT", 1)
    done = asyncio.Event()

    async def work(request: Work, _call: Context) -> Echoed:
        await done.wait()
        return Echoed(text=request.text)

    async def echo(request: Echo, _call: Context) -> Echoed:
        return Echoed(text=request.text)

    table = Routes("testing")
    table.rpc(Work, work, long=True)
    table.rpc(Echo, echo)
    await serve(table)
    bus = await serve()
    waiting = [asyncio.create_task(bus.call(Work(text=str(n)), CONTEXT, timeout_s=60, idle_s=60)) for n in range(3)]
    assert (await bus.call(Echo(text="now"), CONTEXT)).text == "now"
    done.set()
    assert [answer.text for answer in await asyncio.gather(*waiting)] == ["0", "1", "2"]


async def test_replicas_share_the_questions(serve, monkeypatch):
    monkeypatch.setattr(rpc, "ASK_AGAIN_S", 600)  # else a machine that stands still for so long has some counted twice
    counts = [0, 0]

    def counting(index: int) -> Routes:
        async def count(request: Echo, _call: Context) -> Echoed:
            counts[index] += 1
            return Echoed(text=request.text)

        table = Routes("testing")
        table.rpc(Echo, count)
        return table

    for index in range(2):
        await serve(counting(index))
    bus = await serve()
    await asyncio.gather(*(bus.call(Echo(text="x"), CONTEXT, timeout_s=60) for _ in range(200)))
    assert sum(counts) == 200
    assert min(counts) > 0


async def test_a_query_that_went_to_a_replica_that_hangs_is_asked_again(serve, nats_client, monkeypatch):
    monkeypatch.setattr(rpc, "ASK_AGAIN_S", 0.1)
    ignored: list[bytes] = []

    async def ignore(message) -> None:
        ignored.append(message.data)

    await nats_client.subscribe(SUBJECT, queue="testing", cb=ignore)
    await flushed(nats_client)
    await serve(echoing())
    bus = await serve()
    texts = [str(number) for number in range(50)]
    answers = await asyncio.gather(*(bus.call(Echo(text=text), CONTEXT, timeout_s=30) for text in texts))
    assert [answer.text for answer in answers] == texts
    assert ignored


async def test_a_query_that_is_asked_again_is_worked_on_once(serve, nats_client, monkeypatch):
    monkeypatch.setattr(rpc, "ASK_AGAIN_S", 0.01)
    done, worked_on = asyncio.Event(), []

    async def work(request: Echo, _call: Context) -> Echoed:
        worked_on.append(request.text)
        await done.wait()
        return Echoed(text=request.text)

    table = Routes("testing")
    table.rpc(Echo, work)
    await serve(table)
    bus = await serve()
    asked = await hearing(nats_client, SUBJECT)
    for text in ("one", "two"):
        done.clear()
        asked.clear()
        waiting = asyncio.create_task(bus.call(Echo(text=text), CONTEXT, timeout_s=60))
        await eventually(lambda: len(asked) > 3)
        done.set()
        assert (await waiting).text == text
    await bus.call(Echo(text="three"), CONTEXT, timeout_s=60)
    assert worked_on == ["one", "two", "three"]


async def test_what_may_change_something_is_asked_once(serve, nats_client, monkeypatch):
    monkeypatch.setattr(rpc, "ASK_AGAIN_S", 0.02)
    heard: list[bytes] = []

    async def hear(message) -> None:
        heard.append(message.data)

    await nats_client.subscribe(subjects.rpc("acme", "testing", "work"), queue="testing", cb=hear)
    await flushed(nats_client)
    bus = await serve()
    with pytest.raises(DeadlineExceeded):
        await bus.call(Work(text="x"), CONTEXT, timeout_s=0.2)
    await flushed(bus.client)
    await flushed(nats_client)
    await eventually(lambda: heard)
    assert len(heard) == 1


async def test_a_long_answer_may_take_longer_than_its_caller_waits_for_a_sign_of_life(serve, nats_client, monkeypatch):
    monkeypatch.setattr(rpc_server, "KEEP_ALIVE_S", 0.05)

    enough = asyncio.Event()

    async def work(request: Work, _call: Context) -> Echoed:
        await enough.wait()
        return Echoed(text=request.text)

    await serve(working(work))
    bus = await serve()
    asking = asyncio.create_task(bus.call(Work(text="done"), CONTEXT, timeout_s=600, idle_s=60))
    inbox = await hearing(nats_client, f"{bus.link.inbox._prefix}.>")
    for _ in range(3):
        inbox.clear()
        await eventually(lambda: inbox)
        await flushed(bus.client)  # it has heard it, too
        leap(40)
    enough.set()
    assert (await asking).text == "done"


async def test_a_caller_that_is_cancelled_hangs_up_and_leaves_nothing_behind(serve):
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def work(_request: Work, _call: Context) -> Echoed:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError("never")

    server = await serve(working(work))
    bus = await serve()
    asking = asyncio.create_task(bus.call(Work(text="x"), CONTEXT, timeout_s=60, idle_s=60))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await stopped.wait()
    await eventually(lambda: len(bus.link.inbox) == 0 and len(server.link.inbox) == 0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", ["echo", "work"])
async def test_no_answer_is_an_order(serve, nats_client, method: str, order: str, caplog):
    """Services may publish what their callers may not: who names an order as his inbox would have it given by them."""
    asked: list[str] = []

    async def work(request: Work, _call: Context) -> Echoed:
        asked.append(request.text)
        return Echoed(text=request.text)

    table = working(work)
    table.rpc(Echo, echo)
    await serve(table)
    heard = await hearing(nats_client, order)
    subject = subjects.rpc("acme", "testing", method)
    await nats_client.publish(subject, b'{"text": "x"}', reply=order)
    await nats_client.request(subject, b'{"text": "y"}', timeout=30)
    await flushed(nats_client)
    assert heard == []
    assert f"no answer may go to '{order}'" in caplog.text
    assert asked == (["y"] if method == "work" else []), "nothing is done for it"


async def test_a_caller_with_an_inbox_as_long_as_a_line_is_told_nothing(serve, nats_client, caplog):
    """With the address to hang up at, a sign of life for him would be more than a server takes in a line."""
    asked: list[str] = []

    async def work(request: Work, _call: Context) -> Echoed:
        asked.append(request.text)
        return Echoed(text=request.text)

    bus = await serve(working(work))
    subject = subjects.rpc("acme", "testing", "work")
    await nats_client.publish(subject, b'{"text": "x"}', reply="_INBOX." + "x" * 4_000)
    await nats_client.request(subject, b'{"text": "y"}', timeout=30)
    assert asked == ["y"]
    assert "no answer may go to" in caplog.text
    assert bus.link.connections == 0


@pytest.mark.parametrize("order", ORDERS)
async def test_a_caller_hangs_up_at_inboxes_alone(serve, nats_client, order: str):
    """Whoever works for it says where: a worker of a tenant may name an order."""
    bus = await serve()

    async def work(message) -> None:
        await nats_client.publish(message.reply, b"", reply=order, headers={"paracle-rpc": "working"})

    await nats_client.subscribe(subjects.rpc("acme", "testing", "work"), cb=work)
    heard = await hearing(nats_client, order)
    with pytest.raises(Unavailable, match="fell silent"):
        await bus.call(Work(text="x"), CONTEXT, timeout_s=30, idle_s=0.2)
    await bus.link.check()
    await flushed(nats_client)
    assert heard == []


async def test_a_caller_that_is_gone_is_noticed(serve, nats_url, monkeypatch):
    monkeypatch.setattr(rpc_server, "KEEP_ALIVE_S", 0.02)
    stopped = asyncio.Event()

    async def work(_request: Work, _call: Context) -> Echoed:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError("never")

    await serve(working(work))
    async with await nats.connect(nats_url) as client:
        await client.publish(subjects.rpc("acme", "testing", "work"), b'{"text": "x"}', reply="_INBOX.nobody.there")
    await stopped.wait()


async def test_a_caller_that_misses_a_sign_of_life_now_and_then_is_not_given_up(serve, nats_client, monkeypatch):
    monkeypatch.setattr(rpc_server, "KEEP_ALIVE_S", 0.02)
    enough = asyncio.Event()

    async def work(_request: Work, _call: Context) -> Echoed:
        await enough.wait()
        return Echoed(text="done")

    server = await serve(working(work))
    inbox = nats_client.new_inbox()
    answers = await nats_client.subscribe(inbox)
    await nats_client.publish(subjects.rpc("acme", "testing", "work"), b'{"text": "x"}', reply=inbox)
    for number in range(10):
        sign = await answers.next_msg(timeout=30)
        if number % 2:  # as the server says it of a sign that came while nobody listened
            await nats_client._send_command(frame_of(sign.reply, b"", head=b"NATS/1.0 503\r\n\r\n"))
    await flushed(nats_client)
    await server.link.check()
    enough.set()
    while b"done" not in (await answers.next_msg(timeout=30)).data:
        pass


SERVER = """
import asyncio, sys
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.sample import Work

async def work(request, call):
    print("working", flush=True)
    await asyncio.Event().wait()

async def main():
    table = Routes("testing")
    table.rpc(Work, work, long=True)
    bus = NatsBus("testing", ServiceSettings(nats_url=sys.argv[1]))
    await bus.open()
    await bus.serve(table)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_server_is_noticed_by_its_silence(serve, nats_url):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, nats_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    bus = await serve()
    asking = asyncio.create_task(bus.call(Work(text="x"), CONTEXT, timeout_s=600, idle_s=1.5))
    assert await process.stdout.readline() == b"working\n"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    with pytest.raises(Unavailable, match="fell silent"):
        await asking


class Beside:
    """A connection that works while the event loop stands still, on which somebody answers for a service."""

    def __init__(self, nats_url: str, subject: str) -> None:
        address = urlsplit(nats_url)
        self._socket = socket.create_connection((address.hostname, address.port))
        self._lines = self._socket.makefile("rb")
        self._say(b'CONNECT {"verbose":false,"headers":true}\r\nSUB %b 1\r\n' % subject.encode())

    def asked(self) -> str:
        """Where the next question wants its answer to go."""
        while not (line := self._lines.readline()).startswith((b"MSG", b"HMSG")):
            pass
        return line.split()[3].decode()

    def answer(self, reply: str, body: bytes) -> None:
        self._say(b"PUB %b %d\r\n%b\r\n" % (reply.encode(), len(body), body))

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _say(self, words: bytes) -> None:
        """Until the server has taken it."""
        self._socket.sendall(words + b"PING\r\n")
        while self._lines.readline() != b"PONG\r\n":
            pass


async def test_a_caller_that_was_late_reads_what_waits_before_it_calls_anybody_silent(serve, nats_url):
    bus = await serve()
    with closing(Beside(nats_url, subjects.rpc("acme", "testing", "work"))) as beside:
        asking = asyncio.create_task(bus.call(Work(text="x"), CONTEXT, timeout_s=600, idle_s=60))
        await eventually(lambda: len(bus.link.inbox) == 1)
        await flushed(bus.client)
        beside.answer(beside.asked(), Echoed(text="was there", tenant="acme").encode())
        leap(120)  # the loop was busy with something else
        assert (await asking).text == "was there"


@pytest.mark.parametrize("late_s", [120, 1_200])
async def test_a_caller_that_was_late_reads_what_waits_before_it_asks_again_or_gives_up(
    serve, nats_url, nats_client, monkeypatch, late_s
):
    monkeypatch.setattr(rpc, "ASK_AGAIN_S", 60)
    asked = await hearing(nats_client, SUBJECT)
    bus = await serve()
    with closing(Beside(nats_url, SUBJECT)) as beside:
        asking = asyncio.create_task(bus.call(Echo(text="x"), CONTEXT, timeout_s=600))
        await eventually(lambda: len(bus.link.inbox) == 1)
        await flushed(bus.client)
        beside.answer(beside.asked(), Echoed(text="was there", tenant="acme").encode())
        leap(late_s)
        assert (await asking).text == "was there"
    await flushed(nats_client)
    assert len(asked) == 1


async def test_who_stood_still_with_the_caller_is_waited_for(serve, nats_url, nats_client, monkeypatch):
    monkeypatch.setattr(rpc, "ASK_AGAIN_S", 60)
    monkeypatch.setattr(rpc, "_MOMENT_S", 30)
    asked = await hearing(nats_client, SUBJECT)
    bus = await serve()
    with closing(Beside(nats_url, SUBJECT)) as beside:
        asking = asyncio.create_task(bus.call(Echo(text="x"), CONTEXT, timeout_s=600))
        await eventually(lambda: len(bus.link.inbox) == 1)
        await flushed(bus.client)
        reply = beside.asked()
        leap(120)
        await flushed(bus.client)
        beside.answer(reply, Echoed(text="goes on", tenant="acme").encode())
        assert (await asking).text == "goes on"
    await flushed(nats_client)
    assert len(asked) == 1


async def test_who_says_nothing_is_silent_however_late_the_caller_is(serve, nats_url):
    bus = await serve()
    with closing(Beside(nats_url, subjects.rpc("acme", "testing", "work"))) as beside:
        asking = asyncio.create_task(bus.call(Work(text="x"), CONTEXT, timeout_s=600, idle_s=60))
        await eventually(lambda: len(bus.link.inbox) == 1)
        await flushed(bus.client)
        assert beside.asked()
        leap(120)
        with pytest.raises(Unavailable, match="fell silent"):
            await asking


async def test_draining_answers_what_was_asked(serve):
    begun, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: Echo, _call: Context) -> Echoed:
        begun.set()
        await leave.wait()
        return Echoed(text=request.text)

    table = Routes("testing")
    table.rpc(Echo, slow)
    server = await serve(table)
    bus = await serve()
    asking = asyncio.create_task(bus.call(Echo(text="last"), CONTEXT))
    await begun.wait()
    draining = asyncio.create_task(server.drain(5))
    leave.set()
    assert (await asking).text == "last"
    await draining
    with pytest.raises(Unavailable):
        await bus.call(Echo(text="too late"), CONTEXT, timeout_s=30)


async def test_a_drain_that_runs_out_of_time_tells_the_caller(serve):
    begun = asyncio.Event()

    async def stuck(_request: Echo, _call: Context) -> Echoed:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    table = Routes("testing")
    table.rpc(Echo, stuck)
    server = await serve(table)
    bus = await serve()
    asking = asyncio.create_task(bus.call(Echo(text="x"), CONTEXT))
    await begun.wait()
    await server.drain(0.05)
    with pytest.raises(Unavailable, match="shutting down"):
        await asking


async def test_a_drain_that_runs_out_of_time_tells_callers_whose_turn_never_came(serve, monkeypatch):
    monkeypatch.setattr(rpc_server, "MOST_IN_FLIGHT", 1)
    begun = asyncio.Semaphore(0)

    async def stuck(_request: Echo, _call: Context) -> Echoed:
        begun.release()
        await asyncio.Event().wait()
        raise AssertionError("never")

    table = Routes("testing")
    table.rpc(Echo, stuck)
    server = await serve(table)
    bus = await serve()
    asking = [asyncio.create_task(bus.call(Echo(text="x"), CONTEXT, timeout_s=600)) for _ in range(5)]
    await begun.acquire()
    await eventually(lambda: len(bus.link.inbox) == 5)
    await flushed(bus.client)
    await flushed(server.client)
    await server.drain(0.05)
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(answer, Unavailable)
        assert "shutting down" in answer.message
