"""What tasks say: streams, going on after being cut off, marks where something is missing, and how they end."""

from dataclasses import replace
from datetime import UTC, datetime

import httpx2
import pytest
from api_fakes import frames

from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import InternalError, NotFound, Unavailable
from paracle_domain.ids import derive_id
from paracle_domain.inference.deltas import Delta, TextDelta
from paracle_domain.inference.retrying import Retrying
from paracle_domain.task.messages import GetTaskEvents, TaskEvents
from paracle_domain.task.output import TaskOutput, ToolProgress

TASK = derive_id("task", "run_01JDXXXXXXXXXXXXXXXXXXXXXX", "a")
OUTPUT = f"/v1/tasks/{TASK}/output"
CALL = "call_a"
WORDS = [Delta(call_id=CALL, seq=seq, change=TextDelta(text=text)) for seq, text in enumerate("Hello")]
ENDED = TaskEvents(events=(), terminal=True)
GOING = TaskEvents(events=(), terminal=False)


def told(text):
    return [TaskOutput.model_validate_json(frame["data"]) for frame in frames(text) if "id" in frame]


@pytest.fixture(autouse=True)
def going(world):
    world.bus.answers[GetTaskEvents] = GOING


@pytest.fixture
async def http(url: str):
    async with httpx2.AsyncClient(base_url=url, timeout=20) as found:
        yield found


async def test_a_task_that_has_ended_says_all_again(client, world):
    progress = ToolProgress(call_id="call_b", tool="search", stage="started")
    world.outputs.say(*WORDS, progress)
    world.bus.answers[GetTaskEvents] = ENDED
    response = await client.get(OUTPUT)
    assert response.headers["content-type"].startswith("text/event-stream")
    found = told(response.text)
    assert [one.delta for one in found[:5]] == WORDS
    assert [one.seq for one in found] == [1, 2, 3, 4, 5, 6, 6]
    assert (found[5].tool, found[6].ended) == (progress, True)
    assert [one["event"] for one in frames(response.text) if "id" in one] == ["delta"] * 5 + ["tool", "ended"]
    assert not any(one.gap for one in found)
    assert world.outputs.listeners == world.outputs.news == set()


async def test_what_was_said_so_far_is_told_of_a_task_that_goes_on(client, world):
    retrying = Retrying(call_id=CALL, error=Unavailable("away").to_info(), tried=1, at=datetime.now(UTC))
    world.outputs.say(*WORDS, retrying)
    response = await client.get(f"{OUTPUT}?follow=false&after=3")
    assert [one["event"] for one in frames(response.text)] == ["delta", "delta", "retrying"]
    assert (told(response.text)[-1].retrying, told(response.text)[0].gap) == (retrying, False)
    assert (await client.get(f"{OUTPUT}?follow=false&after=6")).text == ""


@pytest.mark.parametrize("headers", [{}, {"Last-Event-ID": "3"}])
async def test_a_reader_goes_on_after_what_it_saw_last(client, world, headers):
    world.outputs.say(*WORDS)
    world.bus.answers[GetTaskEvents] = ENDED
    found = told((await client.get(f"{OUTPUT}?after=3", headers=headers)).text)
    assert [(one.seq, one.gap) for one in found] == [(4, False), (5, False), (5, False)]


async def test_what_is_not_kept_any_more_is_marked(client, world):
    world.outputs.say(*WORDS)
    del world.outputs.said[:4]
    world.bus.answers[GetTaskEvents] = ENDED
    for path in (OUTPUT, f"{OUTPUT}?after=2"):
        found = told((await client.get(path)).text)
        assert [(one.seq, one.gap, one.ended) for one in found] == [(5, True, False), (5, False, True)]


@pytest.mark.parametrize("cursor", ["x", "-1", "²", "9" * 30])
async def test_a_cursor_that_is_none_is_refused(client, cursor):
    response = await client.get(OUTPUT, headers={"Last-Event-ID": cursor.encode()})
    assert (response.status_code, response.json()["path"]) == (422, "header.Last-Event-ID")


async def test_words_arrive_as_they_are_said(http, world):
    world.bus.answers[GetTaskEvents] = NotFound("nobody works on it yet")
    text = ""
    async with http.stream("GET", OUTPUT) as response:
        async for chunk in response.aiter_text():
            text += chunk
            if (place := len(told(text))) < 5 and (place == len(world.outputs.said) and ": keep-alive" in text):
                world.bus.answers[GetTaskEvents] = GOING
                world.outputs.say(WORDS[place])
            elif place == 5:
                world.bus.answers[GetTaskEvents] = ENDED
                world.outputs.happen()
    found = told(text)
    assert [one.delta for one in found[:5]] == WORDS
    assert found[5:] == [TaskOutput(seq=5, ended=True)]
    await eventually(lambda: not world.outputs.listeners)


async def test_a_stream_outlasts_services_that_are_away(client, world):
    world.outputs.say(*WORDS)
    world.outputs.fails = [Unavailable("away")] * 2
    answers = [Unavailable("away"), ENDED]
    world.bus.answers[GetTaskEvents] = lambda _: answers.pop(0)

    def ask(_question):
        if isinstance(found := answers.pop(0), Exception):
            raise found
        return found

    world.bus.answers[GetTaskEvents] = ask
    found = told((await client.get(f"{OUTPUT}?after=1")).text)
    assert [one.seq for one in found] == [2, 3, 4, 5, 5]
    assert answers == []


@pytest.mark.parametrize("where", ["outputs", "runtime"])
async def test_a_stream_that_cannot_go_on_breaks_off_rather_than_ending_well(http, world, where):
    if where == "outputs":
        world.outputs.fails = [InternalError("bug")]
    else:
        world.bus.answers[GetTaskEvents] = InternalError("bug")
    with pytest.raises(httpx2.RemoteProtocolError):
        await http.get(OUTPUT)


async def test_a_task_that_nobody_knows_is_waited_for_and_then_left(client, world):
    world.app.state.output_follower = replace(world.app.state.output_follower, unknown_s=0.0)
    world.bus.answers[GetTaskEvents] = NotFound("there is none")
    response = await client.get(OUTPUT)
    assert told(response.text) == []


async def test_streams_end_when_the_server_drains(http, world):
    world.outputs.say(*WORDS)
    text = ""
    async with http.stream("GET", OUTPUT) as response:
        async for chunk in response.aiter_text():
            text += chunk
            world.app.state.closing.set()
    assert not any(one.ended for one in told(text))
