"""Functions as tools, and the process that answers calls of them."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, override

import nats
import pytest
import yaml
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from pydantic import BaseModel, Field

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_client.worker import GuardQuestion, ToolCall, ToolFailed, Worker
from paracle_client.worker.worker import LastingClient
from paracle_domain.errors import Conflict, SpecInvalid, Unavailable
from paracle_domain.manifest import ToolDocument, parse_document
from paracle_domain.tool.spec import NatsBackend
from paracle_embedded import NatsServer


class Order(BaseModel):
    sku: str
    count: Annotated[int, Field(ge=1)] = 1


def made() -> Worker:
    worker = Worker()

    @worker.tool(effect="none", timeout_s=5)
    async def price(orders: list[Order], currency: Literal["EUR", "USD"] = "EUR") -> dict[str, float]:
        """What these orders cost."""
        return {one.sku: 2.0 * one.count for one in orders}

    @worker.tool(name="who-am-i")
    def who(call: ToolCall, *, loud: bool = False) -> Any:
        """Who calls."""
        return {"key": call.key, "tenant": call.tenant, "loud": loud, "thread": threading.current_thread().name}

    return worker


def test_types_are_the_schemas() -> None:
    documents = [parse_document(one, 1, "x") for one in yaml.safe_load_all(made().manifests())]
    price, who = [one for one in documents if isinstance(one, ToolDocument)]
    assert price.spec.description == "What these orders cost."
    assert price.spec.backend == NatsBackend(tool="price")
    assert price.spec.permissions.workers == ("price",)
    assert (price.spec.effect, price.spec.timeout_s) == ("none", 5)
    assert price.spec.input["required"] == ["orders"]
    assert price.spec.input["properties"]["currency"] == {"default": "EUR", "enum": ["EUR", "USD"], "type": "string"}  # type: ignore[index,call-overload]
    assert price.spec.output == {"additionalProperties": {"type": "number"}, "type": "object"}
    assert who.metadata.name == "who-am-i"
    assert who.spec.effect == "at_most_once", "who says nothing is on the safe side"
    assert list(who.spec.input["properties"]) == ["loud"]  # type: ignore[arg-type]


def test_a_function_can_name_its_probe() -> None:
    worker = Worker()
    worker.tool(probe="find")(noted)
    [document] = [parse_document(one, 1, "x") for one in yaml.safe_load_all(worker.manifests())]
    assert isinstance(document, ToolDocument)
    assert document.spec.probe is not None
    assert document.spec.probe.tool == "find"


def test_what_can_be_no_tool_is_refused_where_it_is_written() -> None:
    worker = Worker()

    def silent(a: int) -> int:
        return a

    def untyped(a) -> int:
        """Adds."""
        return int(a)

    def spread(*a: int) -> int:
        """Adds."""
        return sum(a)

    def odd(a: threading.Thread) -> int:
        """Adds."""
        return 1

    for call, why in ((silent, "docstring"), (untyped, "no type"), (spread, "no name"), (odd, "JSON cannot say")):
        with pytest.raises(SpecInvalid, match=why):
            worker.tool()(call)
    with pytest.raises(SpecInvalid, match="no name of a tool"):
        worker.tool(name="a.b")(silent)


def test_two_tools_have_two_names() -> None:
    worker = made()
    with pytest.raises(Conflict, match="two tools called 'price'"):

        @worker.tool(name="price")
        def again() -> None:
            """Again."""


def test_guards_have_names_of_their_own() -> None:
    worker = made()

    @worker.guard()
    def price(question: GuardQuestion) -> None:
        """A tool may be called like it."""

    with pytest.raises(Conflict, match="two guards called 'price'"):
        worker.guard(name="price")(price)
    with pytest.raises(SpecInvalid, match="'a guard' is no name of a guard"):
        worker.guard(name="a guard")(price)


def test_a_program_prints_its_manifests(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    worker = made()
    monkeypatch.setattr(sys, "argv", ["tools.py", "manifests"])
    worker.main()
    assert capsys.readouterr().out == worker.manifests()
    monkeypatch.setattr(sys, "argv", ["tools.py", "help"])
    with pytest.raises(SystemExit, match="usage"):
        worker.main()


async def test_a_worker_without_tools_does_not_pretend() -> None:
    with pytest.raises(SpecInvalid, match="no tool"):
        async with Worker().serving():
            pass


def unreachable(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr("paracle_client.worker.worker._CONNECT_S", 0.2)
    worker = Worker("nats://me:secret@127.0.0.1:1")
    worker.tool()(noted)
    return worker


async def test_a_worker_without_nats_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match=r"does not answer at 127\.0\.0\.1:1 .* set PARACLE_NATS_URL"):
        async with unreachable(monkeypatch).serving():
            pass


def test_a_program_that_cannot_run_says_why_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = unreachable(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["tools.py"])
    with pytest.raises(SystemExit, match=r"^error: NATS does not answer at 127\.0\.0\.1:1 "):
        worker.main()


# ── serving ──────────────────────────────────────────────────────────────────────────────────────────────────────────

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def noted(text: str) -> str:
    """Note a text."""
    return text


async def send_call(
    client: Client, name: str, arguments: Any, headers: dict[str, str] | None = None, *, of: str = "tools"
) -> Subscription:
    """Call a tool, or a guard; what is said about it comes on the subscription."""
    inbox = client.new_inbox()
    words = await client.subscribe(inbox)
    body = json.dumps(arguments).encode()
    await client.publish(f"paracle.v1.default.rpc.{of}.{name}", body, inbox, headers)
    return words


async def ask(client: Client, tool: str, arguments: Any, **headers: str) -> tuple[Any, dict[str, str]]:
    """The last word on a call."""
    return await last_word(await send_call(client, tool, arguments, headers or None))


async def last_word(words: Subscription) -> tuple[Any, dict[str, str]]:
    """The last word on a call: signs of life are passed over."""
    while True:
        message = await words.next_msg(10)
        if (message.headers or {}).get("paracle-rpc") != "working":
            await words.unsubscribe()
            return json.loads(message.data), message.headers or {}


@pytest.mark.connected
async def test_calls_are_answered_by_functions_of_both_kinds(nats_url: str) -> None:
    worker = made()
    worker._url = nats_url
    async with await nats.connect(nats_url) as client, worker.serving():
        found, headers = await ask(client, "price", {"orders": [{"sku": "a", "count": 2}]})
        assert (found, headers) == ({"a": 4.0}, {})
        found, _ = await ask(client, "who-am-i", {"loud": True}, **{"paracle-idempotency-key": "k7"})
        assert found["key"] == "k7"
        assert found["thread"].startswith("tool"), "what is no coroutine does not hold up the others"
        wrong, headers = await ask(client, "price", {"orders": [{"sku": "a", "count": 0}], "x": 1})
        assert headers["paracle-error"] == "input_schema_mismatch"
        assert {one["path"] for one in wrong["problems"]} == {"arguments.orders[0].count", "arguments.x"}


@pytest.mark.connected
async def test_errors_say_whether_something_was_done(nats_url: str) -> None:
    worker = Worker(nats_url)

    @worker.tool()
    def refuse() -> None:
        """Refuse."""
        raise ToolFailed("no such city")

    @worker.tool()
    async def stumble() -> None:
        """Break."""
        raise ValueError("hunter2")

    @worker.tool()
    async def pay_and_tell() -> None:
        """Pay, and then ask Paracle for something, which is away."""
        raise Unavailable("cannot reach Paracle")

    @worker.tool()
    async def flood(size: int) -> str:
        """Say too much."""
        return "x" * size

    async with await nats.connect(nats_url) as client, worker.serving():
        found, headers = await ask(client, "refuse", {})
        assert (headers["paracle-error"], found["detail"]) == ("tool_failed", "no such city")
        found, headers = await ask(client, "stumble", {})
        assert headers["paracle-error"] == "internal"
        assert "hunter2" not in found["detail"], "details are for the worker's log"
        _, headers = await ask(client, "pay_and_tell", {})
        assert headers["paracle-error"] == "internal", "what a client of ours came to says nothing of the tool"
        for size in (2 << 20, client.max_payload - 4):  # with the quotes it fits, and with the headers it does not
            _, headers = await ask(client, "flood", {"size": size})
            assert headers["paracle-error"] == "payload_too_large"


@pytest.mark.connected
async def test_calls_beyond_the_limit_wait_and_late_ones_are_not_carried_out(nats_url: str) -> None:
    worker = Worker(nats_url, concurrency=8)
    gate, running, most = asyncio.Event(), 0, 0

    @worker.tool(concurrency=2)
    async def slow(n: int) -> int:
        """Wait."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return n

    async with await nats.connect(nats_url) as client, worker.serving():
        calls = [asyncio.create_task(ask(client, "slow", {"n": n})) for n in range(5)]
        await eventually(lambda: running == 2)
        gone = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        late = asyncio.create_task(ask(client, "slow", {"n": 9}, **{"paracle-deadline": gone}))
        gate.set()
        assert [found for found, _ in await asyncio.gather(*calls)] == [0, 1, 2, 3, 4]
        assert (await late)[1]["paracle-error"] == "tool_unavailable"
    assert most == 2


@pytest.mark.connected
async def test_tools_that_wait_for_agents_leave_slots_to_their_guards(nats_url: str) -> None:
    """All slots, and all threads, are held by tools that wait for what an agent says, which a guard looks at first."""
    worker = Worker(nats_url, concurrency=2)
    begun, said = threading.Semaphore(0), threading.Event()

    @worker.tool()
    def consult() -> None:
        """Ask an agent."""
        begun.release()
        said.wait()

    @worker.guard()
    def look(question: GuardQuestion) -> None:
        """Let everything pass."""

    question = {"guard": "look", "direction": "input", "passages": [], "call_id": "c", "model": "m"}
    async with await nats.connect(nats_url) as client, worker.serving():
        calls = [asyncio.create_task(ask(client, "consult", {})) for _ in range(2)]
        for _ in calls:
            assert await asyncio.to_thread(begun.acquire, timeout=30)
        words = await send_call(client, "look", question, of="guards")
        try:
            found, _ = await asyncio.wait_for(last_word(words), 30)
        finally:
            said.set()
        assert found["verdict"] == "pass"
        await asyncio.gather(*calls)


@pytest.mark.connected
async def test_a_call_that_nobody_waits_for_is_stopped(nats_url: str) -> None:
    worker = Worker(nats_url)
    begun, ended = asyncio.Event(), asyncio.Event()

    @worker.tool()
    async def slow() -> None:
        """Wait."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with await nats.connect(nats_url) as client, worker.serving():
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=heard.put)
        await client.publish("paracle.v1.default.rpc.tools.slow", b"{}", inbox)
        sign = await asyncio.wait_for(heard.get(), 30)
        await asyncio.wait_for(begun.wait(), 30)
        assert not ended.is_set()
        await client.publish(sign.reply)
        await asyncio.wait_for(ended.wait(), 30)


@pytest.mark.connected
async def test_a_call_that_cannot_be_stopped_keeps_its_slot_and_those_behind_it_may_get_late(nats_url: str) -> None:
    """Nobody waits for it any more, and its thread goes on: what came next has not begun, whatever its time is."""
    worker = Watched(nats_url, concurrency=1)
    begun, gate, calls = threading.Event(), threading.Event(), list[int]()

    @worker.tool()
    def stuck(n: int) -> int:
        """Wait."""
        calls.append(n)
        begun.set()
        gate.wait()
        return n

    async with await nats.connect(nats_url) as client, worker.serving():
        first = await send_call(client, "stuck", {"n": 1})
        sign = await first.next_msg(10)
        assert await asyncio.to_thread(begun.wait, 30)
        try:
            await client.publish(sign.reply)
            assert (await last_word(first))[1]["paracle-error"] == "effect_in_doubt"
            soon = datetime.now(UTC) + timedelta(seconds=0.3)
            second = await send_call(client, "stuck", {"n": 2}, {"paracle-deadline": soon.isoformat()})
            await eventually(lambda: datetime.now(UTC) > soon)
            await flushed(client)
            await flushed(worker.client)
        finally:
            gate.set()
        assert (await last_word(second))[1].get("paracle-error") == "tool_unavailable"
        assert (await ask(client, "stuck", {"n": 3}))[0] == 3
    assert calls == [1, 3]


@pytest.mark.connected
async def test_a_worker_that_stops_finishes_what_it_has(nats_url: str) -> None:
    worker = Worker(nats_url)
    gate, begun = asyncio.Event(), asyncio.Event()

    @worker.tool()
    async def slow() -> str:
        """Wait."""
        begun.set()
        await gate.wait()
        return "done"

    async with await nats.connect(nats_url) as client:
        stop = asyncio.Event()

        async def serve() -> None:
            async with worker.serving():
                await stop.wait()

        serving = asyncio.create_task(serve())
        await eventually(lambda: client.is_connected)
        call = await _until_served(client, begun)
        stop.set()
        await eventually(lambda: _nobody_listens(client))
        gate.set()
        assert (await call)[0] == "done"
        await serving


async def _until_served(client: Client, begun: asyncio.Event) -> asyncio.Task[Any]:
    while True:
        call = asyncio.create_task(ask(client, "slow", {}))
        done, _ = await asyncio.wait((call, asyncio.create_task(begun.wait())), return_when=asyncio.FIRST_COMPLETED)
        if call not in done:
            return call
        await asyncio.gather(call, return_exceptions=True)


async def _nobody_listens(client: Client) -> bool:
    try:
        await client.request("paracle.v1.default.rpc.tools.slow", b"{}", timeout=0.2)
    except nats.errors.NoRespondersError:
        return True
    except TimeoutError:
        return False
    return False


@pytest.mark.connected
async def test_what_takes_too_long_to_stop_is_cut_off_and_in_doubt(nats_url: str) -> None:
    worker = Worker(nats_url, drain_s=0.05, concurrency=1)
    begun = asyncio.Event()

    @worker.tool()
    async def slow() -> None:
        """Wait."""
        begun.set()
        await asyncio.Event().wait()

    async with await nats.connect(nats_url) as client:
        async with worker.serving():
            first = asyncio.create_task(ask(client, "slow", {}))
            await asyncio.wait_for(begun.wait(), 30)
            second = await send_call(client, "slow", {})
            await flushed(client)  # the worker has it before it stops
        assert (await first)[1]["paracle-error"] == "effect_in_doubt"
        assert (await last_word(second))[1].get("paracle-error") == "tool_unavailable", "it never began"


class Watched(Worker):
    """Whose connection the test knows."""

    client: Client

    @override
    async def _connect(self) -> Client:
        self.client = await super()._connect()
        return self.client


@pytest.mark.connected
async def test_a_worker_that_stops_loses_no_connection(nats_url: str, caplog: pytest.LogCaptureFixture) -> None:
    worker = Watched(nats_url)

    @worker.tool(effect="none")
    def half(number: float) -> float:
        """Half of it."""
        return number / 2

    async with worker.serving():
        pass
    assert "lost the connection" not in caplog.text
    assert worker.client.is_closed


@pytest.mark.connected
async def test_a_worker_serves_on_when_the_server_ends_its_connection(nats_url: str) -> None:
    worker = Watched(nats_url)
    worker.tool()(noted)
    async with await nats.connect(nats_url) as client, worker.serving():
        await worker.client.publish("x" * 5_000)  # more than a line of the protocol may have
        await eventually(lambda: worker.client.stats["reconnects"] == 1 and worker.client.is_connected)
        await flushed(worker.client)
        assert (await ask(client, "noted", {"text": "a"}))[0] == "a"


async def test_what_a_server_does_not_permit_ends_no_connection_of_a_worker() -> None:
    told: list[Exception] = []

    async def hear(error: Exception) -> None:
        told.append(error)

    client = LastingClient()
    client._error_cb = hear
    await client._process_err("'permissions violation for publish to \"x\"'")
    assert len(told) == 1


@pytest.mark.connected
async def test_an_answer_waits_for_a_caller_who_is_not_back_yet(nats_url: str) -> None:
    worker = Watched(nats_url)
    worker.tool()(noted)
    async with await nats.connect(nats_url) as client, worker.serving():
        inbox = client.new_inbox()
        await client.publish("paracle.v1.default.rpc.tools.noted", b'{"text": "late"}', inbox)
        await eventually(lambda: worker.client.stats["out_msgs"] >= 2)  # a sign of life, and the answer
        await flushed(worker.client)
        words = await client.subscribe(inbox)
        assert (await last_word(words))[0] == "late"


@pytest.mark.connected
async def test_a_worker_stops_although_the_client_called_a_wait_off(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does if the connection is lost at that moment."""

    async def called_off(_transport: object) -> None:
        raise asyncio.CancelledError

    worker = Worker(nats_url)
    worker.tool()(noted)
    async with worker.serving():
        monkeypatch.setattr(TcpTransport, "wait_closed", called_off)


@pytest.mark.connected
async def test_a_worker_that_is_cancelled_while_it_closes_is(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def hang(_transport: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def serve() -> None:
        worker = Worker(nats_url)
        worker.tool()(noted)
        async with worker.serving():
            monkeypatch.setattr(TcpTransport, "wait_closed", hang)

    serving = asyncio.create_task(serve())
    await begun.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


@pytest.mark.connected
async def test_a_worker_outlives_nats(nats_server: NatsServer) -> None:
    worker = Worker(nats_server.url)
    worker.tool()(noted)
    async with worker.serving():
        async with await nats.connect(nats_server.url) as client:
            assert (await ask(client, "noted", {"text": "a"}))[0] == "a"
        nats_server.kill()
        nats_server.start()
        async with await nats.connect(nats_server.url) as client:

            async def served() -> bool:
                try:
                    message = await client.request("paracle.v1.default.rpc.tools.noted", b'{"text": "b"}', timeout=1)
                except (nats.errors.NoRespondersError, TimeoutError):
                    return False
                return bool(message)

            await eventually(served)
            assert (await ask(client, "noted", {"text": "c"}))[0] == "c"
