"""Logs: JSON, with the story's ids, without payloads."""

import asyncio
import io
import json
import logging

import pytest

from paracle_chassis.logging import JsonFormatter, _StoryFilter, story
from paracle_chassis.routes import Routes
from paracle_chassis.testing.contracts.bus import CONTEXT, mailbox, note
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.sample import Echo
from paracle_domain.errors import InternalError

SECRET = "the customer's own words"


@pytest.fixture
def lines():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("testing"))
    handler.addFilter(_StoryFilter())
    root = logging.getLogger()
    root.addHandler(handler)
    yield lambda: [json.loads(text) for text in stream.getvalue().splitlines()]
    root.removeHandler(handler)


def test_a_line_is_one_json_object_with_its_story(lines):
    log = logging.getLogger("x")
    with story(tenant="acme", correlation_id="run_1", causation_id=None), story(method="echo"):
        log.warning("saw %d\nthings", 3, extra={"size": 7})
    log.warning("afterwards")
    first, second = lines()
    assert first["message"] == "saw 3\nthings"
    assert (first["service"], first["level"], first["size"]) == ("testing", "warning", 7)
    assert (first["tenant"], first["correlation_id"], first["method"]) == ("acme", "run_1", "echo")
    assert "causation_id" not in first
    assert "tenant" not in second


async def test_stories_of_concurrent_tasks_stay_apart(lines):
    async def tell(name: str) -> None:
        with story(tenant=name):
            await asyncio.sleep(0)
            logging.getLogger("x").warning(name)

    await asyncio.gather(*(tell(str(number)) for number in range(20)))
    assert len(lines()) == 20
    assert all(found["tenant"] == found["message"] for found in lines())


@pytest.mark.connected
async def test_failures_are_logged_with_stack_and_ids_but_no_payload(serve, lines):
    async def break_down(_request, _call):
        raise ValueError("broken")

    async def fail(_batch):
        raise ValueError("broken as well")

    table: Routes = mailbox(fail, max_deliver=1)
    table.rpc(Echo, break_down)
    await serve(table)
    bus = await serve()
    with pytest.raises(InternalError):
        await bus.call(Echo(text=SECRET), CONTEXT)
    await bus.publish([note(1, text=SECRET)])
    await eventually(lambda: any("is dead_" in found["message"] for found in lines()))
    assert SECRET not in json.dumps(lines())
    rpc = next(found for found in lines() if "testing.echo failed unexpectedly" in found["message"])
    assert (rpc["tenant"], rpc["correlation_id"], rpc["method"]) == ("acme", "run_1", "echo")
    assert 'raise ValueError("broken")' in rpc["stack"]
    letter = next(found for found in lines() if "is dead_" in found["message"])
    assert (letter["message_id"], letter["mailbox"]) == ("note-1", "testing")
