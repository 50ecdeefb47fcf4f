"""Events of a run: pages, streams, and going on after being cut off."""

import asyncio
import json

import httpx2
import pytest
from api_fakes import AT, RUN, event, frames

from paracle_chassis.testing.eventually import eventually
from paracle_domain.dead_letters import dead_letter_id
from paracle_domain.errors import InternalError, Unavailable
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import Stuck

EVENTS = f"/v1/runs/{RUN}/events"
STREAM = {"Accept": "text/event-stream"}
WHOLE = [event(1, "run.started"), *(event(seq) for seq in range(2, 9)), event(9, "run.completed")]


async def test_a_page_as_json(client, world):
    world.orchestrator.events = WHOLE
    page = (await client.get(EVENTS + "?after=3&limit=2")).json()
    assert [told["seq"] for told in page["events"]] == [4, 5]
    assert page["terminal"] is False


async def test_a_stream_of_a_finished_run_is_all_of_it(client, world):
    world.orchestrator.events = WHOLE
    response = await client.get(EVENTS, headers=STREAM)
    assert response.headers["content-type"].startswith("text/event-stream")
    told = [frame for frame in frames(response.text) if "id" in frame]
    assert [EventRecord.model_validate_json(frame["data"]) for frame in told] == WHOLE
    assert [(frame["id"], frame["event"]) for frame in told] == [(str(told.seq), told.type) for told in WHOLE]
    assert world.bells.listeners == set()


@pytest.mark.parametrize("headers", [{"Last-Event-ID": "7"}, {"Last-Event-ID": "7", "x": "y"}])
async def test_a_stream_goes_on_after_the_last_event_seen(client, world, headers):
    world.orchestrator.events = WHOLE
    response = await client.get(EVENTS + "?after=2", headers=STREAM | headers)
    assert [frame["id"] for frame in frames(response.text) if "id" in frame] == ["8", "9"]


async def test_without_follow_a_stream_ends_where_the_run_stands(client, world):
    world.orchestrator.events = WHOLE[:5]
    response = await client.get(EVENTS + "?follow=false", headers=STREAM)
    assert [frame["id"] for frame in frames(response.text) if "id" in frame] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "²", "9" * 30])
async def test_a_cursor_that_is_none_is_refused(client, cursor):
    response = await client.get(EVENTS, headers=STREAM | {"Last-Event-ID": cursor.encode()})
    assert (response.status_code, response.json()["path"]) == (422, "header.Last-Event-ID")


async def test_following_needs_a_stream(client):
    response = await client.get(EVENTS + "?follow=true")
    assert (response.status_code, response.json()["path"]) == (422, "query.follow")


async def test_other_forms_are_not_to_be_had(client):
    response = await client.get(EVENTS, headers={"Accept": "text/html"})
    assert response.status_code == 406


async def test_an_unknown_run_is_a_problem_and_no_stream(client, world):
    response = await client.get(EVENTS.replace(RUN, RUN[:-1] + "0"), headers=STREAM)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


async def read(lines, until: str) -> list[dict]:
    """Frames of a stream up to the one with id `until`."""
    text = ""
    async for chunk in lines:
        text += chunk
        if f"id: {until}\n" in text and text.endswith("\n\n"):
            break
    return [frame for frame in frames(text) if "id" in frame]


@pytest.fixture
async def http(url: str):
    async with httpx2.AsyncClient(base_url=url, timeout=20) as found:
        yield found


async def test_news_arrive_by_the_bell(http, world):
    world.orchestrator.events = WHOLE[:2]
    async with http.stream("GET", EVENTS, headers=STREAM) as response:
        chunks = response.aiter_text()
        assert [frame["id"] for frame in await read(chunks, "2")] == ["1", "2"]
        await eventually(lambda: world.bells.listeners)
        world.orchestrator.events = WHOLE
        world.bells.ring()
        assert [frame["id"] for frame in await read(chunks, "9")] == ["3", "4", "5", "6", "7", "8", "9"]
    await eventually(lambda: not world.bells.listeners)


async def test_a_reader_that_was_cut_off_goes_on_without_a_gap(http, world):
    world.orchestrator.events = WHOLE[:4]
    async with http.stream("GET", EVENTS, headers=STREAM) as response:
        first = await read(response.aiter_text(), "4")
    await eventually(lambda: not world.bells.listeners)  # the server noticed, and let go
    world.orchestrator.events = WHOLE
    again = await http.get(EVENTS, headers=STREAM | {"Last-Event-ID": first[-1]["id"]})
    second = [frame for frame in frames(again.text) if "id" in frame]
    assert [json.loads(frame["data"])["seq"] for frame in first + second] == list(range(1, 10))


async def test_news_that_nobody_rang_for_arrive_by_polling(http, world):
    world.orchestrator.events = WHOLE[:1]
    async with http.stream("GET", EVENTS, headers=STREAM) as response:
        chunks = response.aiter_text()
        await read(chunks, "1")
        world.orchestrator.events = WHOLE
        assert [frame["id"] for frame in await read(chunks, "9")][-1] == "9"


async def test_silence_is_broken_by_comments(http, world):
    world.orchestrator.events = WHOLE[:1]
    async with http.stream("GET", EVENTS, headers=STREAM) as response:
        async for chunk in response.aiter_text():
            if ": keep-alive\n\n" in chunk:
                return
    pytest.fail("the stream ended")


async def test_a_stream_outlasts_an_orchestrator_that_is_away(http, world):
    world.orchestrator.events = WHOLE[:1]
    async with http.stream("GET", EVENTS, headers=STREAM) as response:
        chunks = response.aiter_text()
        await read(chunks, "1")
        world.orchestrator.fails = [Unavailable("away")] * 3
        world.orchestrator.events = WHOLE
        assert [frame["id"] for frame in await read(chunks, "9")] == [str(seq) for seq in range(2, 10)]


async def test_a_stream_that_cannot_go_on_breaks_off_rather_than_ending_well(http, world):
    world.orchestrator.events = WHOLE[:1]
    async with http.stream("GET", EVENTS, headers=STREAM) as response:
        chunks = response.aiter_text()
        await read(chunks, "1")
        world.orchestrator.fails = [InternalError("bug")]
        with pytest.raises(httpx2.RemoteProtocolError):
            await read(chunks, "9")


async def test_a_reader_that_does_not_read_stops_nobody(http, world):
    world.orchestrator.events = WHOLE[:1]
    async with http.stream("GET", EVENTS, headers=STREAM) as idle:
        assert idle.status_code == 200
        await eventually(lambda: world.bells.listeners)
        world.orchestrator.events = WHOLE
        others = await asyncio.gather(*(http.get(EVENTS, headers=STREAM) for _ in range(20)))
        assert all(len([frame for frame in frames(other.text) if "id" in frame]) == 9 for other in others)


async def test_streams_end_when_the_server_drains(http, world):
    world.orchestrator.events = WHOLE[:1]
    async with http.stream("GET", EVENTS, headers=STREAM) as response:
        chunks = response.aiter_text()
        await read(chunks, "1")
        world.app.state.closing.set()
        async for _ in chunks:
            pass
    await eventually(lambda: not world.bells.listeners)


async def test_a_stream_tells_that_its_run_is_stuck_and_goes_on(http, world):
    """It has no number: whoever goes on from the last one misses nothing of the history."""
    world.orchestrator.events = WHOLE[:2]
    world.orchestrator.stuck = Stuck(dead_letter=dead_letter_id("x"), code="internal", since=AT)
    text = ""
    async with http.stream("GET", EVENTS, headers=STREAM) as response:
        async for chunk in response.aiter_text():
            text += chunk
            if "event: run.stuck" in text:
                world.orchestrator.stuck = None
            if "event: run.unstuck" in text:
                world.orchestrator.events = WHOLE
                world.bells.ring()
    told = [(frame.get("id"), frame["event"]) for frame in frames(text) if "event" in frame]
    assert told[:5] == [
        ("1", "run.started"),
        ("2", WHOLE[1].type),
        (None, "run.stuck"),
        (None, "run.unstuck"),
        ("3", WHOLE[2].type),
    ]
    assert told[-1] == ("9", "run.completed")
    (stuck,) = [EventRecord.model_validate_json(one["data"]) for one in frames(text) if one.get("event") == "run.stuck"]
    assert (stuck.entity, stuck.correlation_id, stuck.data["code"]) == ("stuck", RUN, "internal")
