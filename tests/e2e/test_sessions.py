"""Conversations through `kill -9`: turns in their order, none lost or answered twice, and summed up once.

The model of these tests says which questions it was told of, so that every request shows what a turn began with: all
questions before it, each once, word by word or in the summary.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tests.e2e.desk import Desk, desk
from tests.e2e.histories import assert_sound
from tests.e2e.world import System

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Seen, ToolUse, Turn, fail
from paracle_client import AsyncClient
from paracle_domain.ids import new_id
from paracle_domain.messages import JsonObject
from paracle_domain.run.commands import RunStatus, RunView
from paracle_domain.run.orders import task_id_of
from paracle_domain.task.messages import GetTaskEvents

TALKERS = """
apiVersion: paracle/v1
kind: Agent
metadata: {name: talker}
spec:
  model: {name: openai-compatible/fake-model}
  instructions: Talk.
  compaction: {above_tokens: 400, keep_last: 2}
---
apiVersion: paracle/v1
kind: Tool
metadata: {name: talk-page}
spec:
  description: A page of a book.
  input: {type: object, properties: {page: {type: integer}}}
  backend: {type: builtin, function: noop}
---
apiVersion: paracle/v1
kind: Agent
metadata: {name: reader}
spec:
  model: {name: openai-compatible/fake-model}
  instructions: Read.
  tools: [talk-page]
  limits: {turns: 200, tool_calls: 200}
"""
SESSIONS, TURNS = 3, 8
VICTIMS = ("agent_runtime", "nats", "postgres")


def messages(body: Any) -> list[Any]:
    found: list[Any] = body["messages"]
    return found


def sums_up(body: Any) -> bool:
    return str(messages(body)[0]["content"]).startswith("You keep the memory")


def known(body: Any) -> list[str]:
    """The questions that a request tells of, in order, and the session that they are from."""
    told = "\n".join(str(one.get("content")) for one in messages(body)[1:])
    return re.findall(r"(?<!answers )q\d+ of \w+", told)


def reply(body: Any) -> Turn:
    """Sums up, or answers, after a while; both name the questions."""
    asked, tokens = known(body), len(json.dumps(body)) // 4
    if sums_up(body):
        return Turn(text=f"Said: {', '.join(asked)}.", delay_s=0.6, input_tokens=tokens)
    return Turn(text=f"It answers {asked[-1]}. {'Words. ' * 40}", delay_s=0.2, input_tokens=tokens)


@pytest.fixture
async def talkers(system: System, openai: FakeOpenAI) -> AsyncIterator[AsyncClient]:
    await asyncio.to_thread(system.apply, TALKERS)
    openai.otherwise = reply
    async with system.client() as client:
        yield client


async def ended(at: Desk, run_id: str) -> RunView:
    run = await at.get_run(run_id)
    assert run.run.status.terminal
    return run


async def restart(system: System, victim: str) -> None:
    system.stack.kill(victim)
    await asyncio.to_thread(system.stack.start, victim)


@pytest.mark.parametrize("moment", ["turn", "summary"])
@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_kill_in_a_conversation_costs_nothing(
    system: System, talkers: AsyncClient, openai: FakeOpenAI, victim: str, moment: str
) -> None:
    """All turns of three sessions are asked at once; the kill falls into the middle of a turn, or of a summary."""
    sessions = {f"s{number}": new_id("ses") for number in range(SESSIONS)}
    runs: dict[str, list[str]] = {name: [] for name in sessions}
    for number in range(TURNS):
        for name, session in sessions.items():
            value: JsonObject = {"text": f"q{number} of {name}", "session": session}
            runs[name].append((await talkers.invoke("talker", value)).run_id)
    wanted = sums_up if moment == "summary" else lambda body: not sums_up(body)
    await eventually(lambda: sum(wanted(seen.body) for seen in openai.journal) >= 2, within_s=60)
    await restart(system, victim)
    async with desk(system.stack.nats_url) as at, asyncio.timeout(100):
        for name, session in sessions.items():
            asked = [f"q{number} of {name}" for number in range(TURNS)]
            views = [await eventually(partial(ended, at, run_id), within_s=60) for run_id in runs[name]]
            assert [run.run.status for run in views] == [RunStatus.COMPLETED] * TURNS
            shown = await eventually(partial(talkers.get_session, session))
            assert [turn.run_id for turn in shown.turns] == runs[name], "in the order in which they were asked"
            assert [turn.messages[0].text for turn in shown.turns] == asked, "originals are kept"
            assert shown.recap is not None
            assert_order(openai.journal, asked)
            for view in views:
                await assert_sound(at, view.run.run_id)
    assert_once(openai.journal)


async def test_turns_keep_the_order_in_which_their_starts_were_answered_over_replicas(
    system: System, talkers: AsyncClient, openai: FakeOpenAI
) -> None:
    """Tasks of a session go to whichever replica fetches first."""
    await asyncio.to_thread(system.scale, agent_runtime=2, orchestrator=2)
    openai.otherwise = lambda body: replace(reply(body), delay_s=0.0)
    sessions = {f"s{number}": new_id("ses") for number in range(SESSIONS * 4)}
    runs: dict[str, list[str]] = {name: [] for name in sessions}

    async def ask(name: str) -> None:
        for number in range(TURNS):
            value: JsonObject = {"text": f"q{number} of {name}", "session": sessions[name]}
            runs[name].append((await talkers.invoke("talker", value)).run_id)

    await asyncio.gather(*map(ask, sessions))
    async with desk(system.stack.nats_url) as at:
        for name, session in sessions.items():
            for run_id in runs[name]:
                assert (await eventually(partial(ended, at, run_id), within_s=60)).run.status is RunStatus.COMPLETED
            shown = await eventually(partial(talkers.get_session, session))
            assert [turn.run_id for turn in shown.turns] == runs[name]


def assert_order(journal: list[Seen], asked: list[str]) -> None:
    """Each turn was told of all before it, each once; and was answered once."""
    mine = [seen for seen in journal if set(known(seen.body)) & set(asked)]
    turns = [known(seen.body) for seen in mine if not sums_up(seen.body)]
    assert sorted(turns, key=len) == turns
    assert turns == [asked[:number] for number in range(1, len(asked) + 1)]
    assert any(sums_up(seen.body) for seen in mine)


def assert_once(journal: list[Seen]) -> None:
    """No question was put to the model twice."""
    asked = Counter(json.dumps(seen.body, sort_keys=True) for seen in journal)
    assert [times for times in asked.values() if times > 1] == []


@pytest.mark.parametrize("victim", [None, "agent_runtime"])
async def test_a_task_of_a_hundred_turns_outgrows_its_model_and_goes_on(
    system: System, talkers: AsyncClient, openai: FakeOpenAI, victim: str | None
) -> None:
    """The model refuses what is longer than it can read; nobody told Paracle how long that is."""

    pages, window = 100, 6_000

    def read(body: Any) -> Turn:
        tokens = len(json.dumps(body["messages"])) // 4
        if tokens > window:
            return fail(400, code="context_length_exceeded", message=f"{tokens} tokens are more than {window}")
        if sums_up(body):
            read_so_far = re.findall(r'"page": (\d+)', messages(body)[1]["content"])
            return Turn(text=f"Read up to page {max(map(int, read_so_far))}.", delay_s=0.3, input_tokens=tokens)
        made = sum(seen.status == 200 and not sums_up(seen.body) for seen in openai.journal)
        if made == pages:
            return Turn(text="All is read.", input_tokens=tokens)
        arguments = json.dumps({"page": made, "text": "word " * 200})
        return Turn(tools=(ToolUse("talk-page", arguments, f"call-{made}"),), input_tokens=tokens)

    openai.otherwise = read
    started = await talkers.invoke("reader", {"text": "Read the book."})
    if victim is not None:
        await eventually(lambda: sum(sums_up(seen.body) for seen in openai.journal) == 2, within_s=90)
        await restart(system, victim)
    async with desk(system.stack.nats_url) as at:
        run = await eventually(partial(ended, at, started.run_id), within_s=90)
        assert (run.run.status, run.output) == (RunStatus.COMPLETED, "All is read."), run.error
        page = await at.ask(GetTaskEvents(task_id=task_id_of(started.run_id, "invoke", 1)))
        kinds = Counter(event.type for event in page.events)
    assert kinds["task.tool_returned"] == pages
    assert kinds["task.compacted"] >= 3
    assert kinds["task.model_call_failed"] >= 3
    assert run.usage.model_calls == pages + 1 + kinds["task.compacted"]
    assert_once(openai.journal)
