"""What an agent says while it says it: from any cursor, and at the agent's pace, whoever reads or does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.e2e.deciding import fresh_name
from tests.e2e.world import PATIENCE_S, System, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import ToolUse, Turn, call, fail, say
from paracle_client import AsyncClient
from paracle_domain.inference.deltas import ReasoningDelta, TextDelta
from paracle_domain.run.commands import RunStatus, RunView
from paracle_domain.task.output import TaskOutput

TELLER = """
apiVersion: paracle/v1
kind: Tool
metadata: {name: teller-look}
spec: {description: Looks., backend: {type: builtin, function: noop}}
---
apiVersion: paracle/v1
kind: Agent
metadata: {name: teller}
spec:
  model: {name: openai-compatible/fake-model}
  instructions: Tell.
  tools: [teller-look]
"""
TEAM = """
apiVersion: paracle/v1
kind: Agent
metadata: {name: NAME-boss}
spec: {model: {name: openai-compatible/NAME-boss}, instructions: Ask., delegates: [{agent: NAME}]}
"""
AWAY = """
apiVersion: paracle/v1
kind: Agent
metadata: {name: NAME}
spec: {model: {name: openai-compatible/NAME}, instructions: Tell.}
"""
STORY = "".join(f"Line {number} of the story.\n" for number in range(300))
LOOKS = Turn(reasoning="I shall look.", text="A moment.", tools=(ToolUse("teller-look", "{}"),))


@pytest.fixture
async def teller(system: System) -> AsyncIterator[AsyncClient]:
    await asyncio.to_thread(system.apply, TELLER)
    async with system.client() as client, asyncio.timeout(PATIENCE_S):
        yield client


async def task_of(client: AsyncClient, run_id: str) -> str:
    """The task of a run of one agent, once it has begun."""
    async for record in client.events(run_id, follow=True):
        if record.type == "step.started":
            return str(record.data["task_id"])
    raise AssertionError("the run ended before its step began")


def words(heard: list[TaskOutput]) -> str:
    return "".join(one.delta.change.text for one in heard if one.delta and isinstance(one.delta.change, TextDelta))


async def test_words_thoughts_and_tools_are_told_in_order(teller: AsyncClient, openai: FakeOpenAI) -> None:
    openai.script(LOOKS, say("It is there."))
    task_id = await task_of(teller, (await teller.invoke("teller", "Where is it?")).run_id)
    heard = [one async for one in teller.output(task_id)]
    thoughts = [one.delta.change.text for one in heard if one.delta and isinstance(one.delta.change, ReasoningDelta)]
    assert "".join(thoughts) == "I shall look."
    assert words(heard) == "A moment.It is there."
    assert [one.tool.stage for one in heard if one.tool] == ["started", "ended"]
    assert [one.seq for one in heard] == sorted(one.seq for one in heard)
    assert not any(one.gap for one in heard)
    tools = [place for place, one in enumerate(heard) if one.tool]
    assert words(heard[: tools[0]]) == "A moment."


async def test_who_left_goes_on_where_he_was_and_misses_nothing(teller: AsyncClient, openai: FakeOpenAI) -> None:
    openai.script(Turn(text=STORY, drip_s=0.001))
    task_id = await task_of(teller, (await teller.invoke("teller", "Tell.")).run_id)
    heard: list[TaskOutput] = []
    more, sips = True, 0
    while more:
        sips, more = sips + 1, False
        after = heard[-1].seq if heard else 0
        async for one in teller.output(task_id, after=after):
            heard.append(one)
            if len(heard) % 100 == 0:
                more = True
                break
    assert sips > 5
    assert words(heard) == STORY
    assert not any(one.gap for one in heard)


async def test_whoever_watches_is_told_why_a_model_does_not_answer(
    system: System, teller: AsyncClient, openai: FakeOpenAI
) -> None:
    name = fresh_name("away")  # of the model, too: the breaker would remember it in other tests
    await asyncio.to_thread(system.apply, AWAY.replace("NAME", name))
    await openai.__aexit__()
    asked = ("invoke", name, "Are you there?", "--watch", "--label", f"watched={name}")
    watching = asyncio.create_task(asyncio.to_thread(paracle, *asked, url=system.url))
    run_id = await eventually(lambda: _only_run(teller, name))
    task_id = await task_of(teller, run_id)
    told = [one.retrying.error.code async for one in _till_retried(teller, task_id) if one.retrying is not None]
    assert told == ["provider_unavailable"]
    shown = await asyncio.to_thread(paracle, "runs", "show", run_id, url=system.url)
    openai.otherwise = say("Here.")
    await openai.__aenter__()
    watched = await watching
    assert (watched.returncode, watched.stdout) == (0, "Here.\n")
    first, *_, answers = [line for line in watched.stderr.splitlines() if line.startswith("· ")]
    assert "provider_unavailable: " in first
    assert answers.startswith("· the model answers, after ")
    assert "provider_unavailable:" in "".join(shown.stdout.split()), "a terminal's width folds it"


async def test_whoever_watches_a_step_is_told_why_the_model_of_a_delegate_does_not_answer(
    system: System, teller: AsyncClient, openai: FakeOpenAI
) -> None:
    name = fresh_name("aside")
    both = f"{AWAY}---{TEAM}".replace("NAME", name)
    await asyncio.to_thread(system.apply, both)
    openai.script(call(f"ask_{name}", {"text": "Are you there?"}))
    openai.otherwise = fail(503)
    asked = ("invoke", f"{name}-boss", "Ask.", "--watch", "--label", f"watched={name}")
    watching = asyncio.create_task(asyncio.to_thread(paracle, *asked, url=system.url))
    run_id = await eventually(lambda: _only_run(teller, name))
    task_id = await task_of(teller, run_id)
    told = [one.retrying async for one in _till_retried(teller, task_id) if one.retrying is not None]
    assert [(one.error.code, one.agent) for one in told] == [("provider_unavailable", name)]
    shown = await asyncio.to_thread(paracle, "runs", "show", run_id, url=system.url)
    openai.otherwise = say("Here.")
    watched = await watching
    assert (watched.returncode, watched.stdout) == (0, "Here.\n")
    lines = [line for line in watched.stderr.splitlines() if line.startswith(f"· {name}: ")]
    assert lines[-1].startswith(f"· {name}: the model answers, after ")
    assert f"{name}:themodelcallfailed" in "".join(shown.stdout.split()), "a terminal's width folds it"


async def _only_run(client: AsyncClient, name: str) -> str:
    runs = (await client.runs(labels={"watched": name})).runs
    return runs[0].run_id if runs else ""


async def _till_retried(client: AsyncClient, task_id: str) -> AsyncIterator[TaskOutput]:
    async for one in client.output(task_id):
        yield one
        if one.retrying is not None:
            return


@pytest.mark.parametrize("readers", [0, 8])
async def test_an_agent_waits_for_no_reader(
    system: System, teller: AsyncClient, openai: FakeOpenAI, readers: int
) -> None:
    """Readers that ask for all of it and then read nothing, more than any buffer on the way can hold for them."""
    story = STORY * 20
    openai.script(say("wait", delay_s=1.0, tools=(ToolUse("teller-look", "{}"),)), say(story))
    run_id = (await teller.invoke("teller", "Tell.")).run_id
    task_id = await task_of(teller, run_id)
    idle = [await _open(system.url, task_id) for _ in range(readers)]
    try:
        run: RunView = await teller.wait(run_id)
        assert (run.run.status, run.output) == (RunStatus.COMPLETED, story)
        heard = [one async for one in teller.output(task_id)]
        assert words(heard).endswith("Line 299 of the story.\n")
    finally:
        for writer in idle:
            writer.close()


async def _open(url: str, task_id: str) -> asyncio.StreamWriter:
    """A reader that has asked, and does not read."""
    host, _, port = url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1)
    writer.write(f"GET /v1/tasks/{task_id}/output HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    await writer.drain()
    return writer
