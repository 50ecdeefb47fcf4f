"""The life of a service: start, ready, drain, stop; and its health endpoint."""

import asyncio
import json
import logging
import os
import signal
import sys
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest

from paracle_chassis.app import Service
from paracle_chassis.frames import flushed
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.contracts.bus import mailbox
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.sample import Echo, Echoed
from paracle_domain.envelope import Context
from paracle_domain.errors import Unavailable
from paracle_embedded import NatsServer

pytestmark = pytest.mark.connected
MAIN = Path(__file__).with_name("service_main.py")


async def get(port: int, path: str) -> tuple[int, dict]:
    def ask() -> tuple[int, dict]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    return await asyncio.to_thread(ask)


@pytest.fixture(autouse=True)
def levels():
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


async def test_resources_are_entered_in_order_and_left_in_reverse_after_the_drain(settings):
    story: list[str] = []

    @asynccontextmanager
    async def resource(name: str):
        story.append(f"+{name}")
        yield
        story.append(f"-{name}")

    service = Service("testing", settings, resources=[resource("a"), resource("b")])
    async with service.running():
        assert service.health.state == "ready"
    assert story == ["+a", "+b", "-b", "-a"]
    assert service.health.state == "draining"


async def test_a_start_that_fails_leaves_what_it_had_entered(settings):
    story: list[str] = []

    @asynccontextmanager
    async def first():
        story.append("in")
        try:
            yield
        finally:
            story.append("out")

    @asynccontextmanager
    async def broken():
        raise Unavailable("no")
        yield

    with pytest.raises(Unavailable):
        async with Service("testing", settings, resources=[first(), broken()]).running():
            pass
    assert story == ["in", "out"]


async def test_readiness_asks_nats_the_mailboxes_and_every_check(nats_server: NatsServer):
    well = True

    async def check() -> None:
        if not well:
            raise Unavailable("the sky is falling")

    async def handle(_batch) -> None:
        return None

    settings = ServiceSettings(nats_url=nats_server.url)
    service = Service("testing", settings, routes=mailbox(handle), checks={"sky": check})
    async with service.running():
        port = service.health.port
        assert (await get(port, "/livez"))[0] == 200

        async def ready() -> bool:
            wanted = {"service": "testing", "status": "ready", "checks": {"nats": "ok", "sky": "ok"}}
            return await get(port, "/readyz") == (200, wanted)

        await eventually(ready)
        well = False
        status, body = await get(port, "/readyz")
        assert (status, body["checks"]["sky"]) == (503, "the sky is falling")
        well = True
        await asyncio.to_thread(nats_server.kill)
        status, body = await get(port, "/readyz")
        assert (status, body["checks"]["sky"]) == (503, "ok")
        assert body["checks"]["nats"].startswith("NATS does not answer")
        assert (await get(port, "/livez"))[0] == 200
        await asyncio.to_thread(nats_server.start)
        await eventually(ready)


async def test_the_asyncapi_document_names_what_is_answered_and_obeyed(settings):
    async def echo(request: Echo, _call: Context) -> Echoed:
        return Echoed(text=request.text)

    async def handle(_batch) -> None:
        return None

    table: Routes = mailbox(handle)
    table.rpc(Echo, echo)
    async with Service("testing", settings, routes=table).running() as service:
        status, document = await get(service.health.port, "/asyncapi.json")
        assert (status, document["asyncapi"]) == (200, "3.0.0")
        addresses = {channel["address"] for channel in document["channels"].values()}
        assert {"paracle.v1.{tenant}.rpc.testing.echo", "paracle.v1.*.task.agents"} <= addresses
        assert "Echo" in json.dumps(document["components"]["schemas"])
        assert (await get(service.health.port, "/nothing"))[0] == 404


@asynccontextmanager
async def process(**env: str):
    """The service as a process; its log lines so far."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, str(MAIN), env=os.environ | env, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def line(running, message: str) -> dict:
    """The log line whose message begins with `message`."""
    while text := await running.stderr.readline():
        found = json.loads(text)
        if found["message"].startswith(message):
            return found
    raise AssertionError(f"it never said {message!r}")


async def test_sigterm_drains_answers_what_was_asked_and_exits_with_0(serve, nats_url):
    async with process(PARACLE_NATS_URL=nats_url, DELAY_S="0.5") as running:
        ready = await line(running, "ready")
        assert ready["service"] == "testing" or ready["health_port"] > 0
        bus = await serve()
        asking = asyncio.create_task(bus.call(Echo(text="bye"), Context("acme")))
        await eventually(lambda: len(bus.link.inbox) == 1)
        await flushed(bus.client)
        running.send_signal(signal.SIGTERM)
        assert (await asking).text == "bye"
        await line(running, "stopped")
        assert await running.wait() == 0


async def test_a_start_without_nats_says_so_in_one_line_and_exits_with_1():
    async with process(PARACLE_NATS_URL="nats://x:hunter2@127.0.0.1:9", PARACLE_CONNECT_TIMEOUT_S="0.3") as running:
        said = await line(running, "cannot run")
        assert "NATS does not answer at 127.0.0.1:9" in said["message"]
        assert "PARACLE_NATS_URL" in said["message"]
        assert "stack" not in said
        assert "hunter2" not in json.dumps(said)
        assert await running.wait() == 1
