"""Models over real HTTP, through the whole system: from a manifest to a provider's wire and back into the run."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
import yaml
from tests.e2e.histories import assert_sound, audit
from tests.e2e.load import assert_one_key_each, manifests
from tests.e2e.world import System

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_anthropic import FakeAnthropic
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Turn, WireServer, call, cut, fail, page, reset, say
from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.deltas import Delta, assemble
from paracle_domain.run.commands import RunStatus, RunView, StepStatus

ANSWER = {"type": "object", "required": ["answer"], "properties": {"answer": {"type": "integer"}}}
PROVIDERS = {"openai": "openai-compatible", "responses": "openai", "anthropic": "anthropic"}
APIS = {"openai": "openai_chat", "responses": "openai_responses", "anthropic": "anthropic"}
BASES = {"openai": "/v1", "responses": "/v1", "anthropic": ""}
numbers = itertools.count(1)


@pytest.fixture(params=["openai", "responses", "anthropic"])
def wire(request: pytest.FixtureRequest) -> str:
    """Which provider's API is spoken."""
    return str(request.param)


@pytest.fixture
async def provider(system: System, wire: str) -> AsyncIterator[WireServer]:
    """What answers at the other end; the agents that ask it are in."""
    model = f"{PROVIDERS[wire]}/model-{next(numbers)}"  # of its own, or the breaker would remember the test before
    agents = [
        agent(f"plain-{wire}", model),
        agent(f"worker-{wire}", model, tools=["count"]),
        agent(f"shaped-{wire}", model, output=ANSWER),
        agent(f"hasty-{wire}", model, limits={"wall_time_s": 3}),
    ]
    text = manifests(system.effects.port) + "\n---\n" + yaml.safe_dump_all(agents)
    await asyncio.to_thread(system.apply, text)
    ports = {"openai": system.ports.compatible, "responses": system.ports.openai, "anthropic": system.ports.anthropic}
    fake: WireServer = FakeAnthropic() if wire == "anthropic" else FakeOpenAI()
    fake.port = ports[wire]
    async with fake:
        yield fake


def agent(name: str, model: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "paracle/v1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {"model": {"name": model}, "instructions": "Do as you are told.", **spec},
    }


def statuses(provider: WireServer) -> list[int]:
    return [seen.status for seen in provider.journal]


async def test_tool_calls_go_out_and_their_results_go_back(system: System, provider: WireServer, wire: str) -> None:
    run = f"tools-{wire}"
    provider.script(
        call("count", {"run": run, "step": "one"}, id="call_1"),
        call("count", {"run": run, "step": "two"}, id="call_2"),
        say("Both are counted."),
    )
    ended = await system.invoke(f"worker-{wire}", {"run": run})
    assert_completed(ended, "Both are counted.")
    assert (ended.usage.model_calls, ended.usage.tool_calls) == (3, 2)
    assert_one_key_each(system.effects.keys_by_step(run), ("one", "two"))
    assert set(system.effects.times_by_step(run).values()) == {1}
    assert '{\\"done\\"' in json.dumps(provider.journal[-1].body), "the result was not handed to the model"
    async with system.client() as client:
        await assert_sound(client, ended.run.run_id)


async def test_a_reply_is_streamed_while_it_comes(system: System, provider: WireServer, wire: str) -> None:
    words = "Every word of this reply comes in a piece of its own, and all of them add up to it."
    provider.script(say(words, drip_s=0.01))
    async with await nats.connect(system.stack.nats_url) as watcher:
        pieces = await watcher.subscribe("paracle.v1.default.out.*")
        await flushed(watcher)
        ended = await system.invoke(f"plain-{wire}", "Speak.")
        assert_completed(ended, words)
        task_id = ended.steps[0].task_id
        deltas: list[Delta] = []
        async with asyncio.timeout(30):
            while not any(delta.change.type == "end" for delta in deltas):
                message = await anext(aiter(pieces.messages))
                if message.subject.endswith(f".{task_id}"):
                    deltas.append(Delta.model_validate_json(message.data))
        assert len(deltas) > 5
        assert assemble(deltas).text == words


async def test_structured_output_is_checked_and_mended(system: System, provider: WireServer, wire: str) -> None:
    provider.script(say('{"answer": "many"}'), say('{"answer": 42}'))
    ended = await system.invoke(f"shaped-{wire}", "How many?")
    assert_completed(ended, {"answer": 42})
    async with system.client() as client:
        types: list[str] = []

        async def told() -> bool:  # the audit log follows by a moment
            types[:] = [one.event.type for one in await audit(client, ended.run.run_id)]
            return "task.completed" in types

        await eventually(told)
    assert types.count("task.output_rejected") == 1


async def test_output_that_stays_wrong_is_a_failure(system: System, provider: WireServer, wire: str) -> None:
    provider.otherwise = say('{"answer": "many"}')
    ended = await system.invoke(f"shaped-{wire}", "How many?")
    assert_failed(ended, "output_invalid")


PASSING: dict[str, list[Turn]] = {
    "429 with Retry-After": [fail(429, retry_after=1)],
    "500": [fail(500)],
    "connection reset at once": [reset()],
    "connection reset in the middle": [reset(5)],
    "a reply that is cut off": [cut(5)],
}


@pytest.mark.parametrize("trouble", list(PASSING))
async def test_what_passes_is_tried_again(system: System, provider: WireServer, wire: str, trouble: str) -> None:
    provider.script(*PASSING[trouble], say("Here I am."))
    ended = await system.invoke(f"plain-{wire}", "Are you there?")
    assert_completed(ended, "Here I am.")
    assert len(provider.journal) == 2
    assert ended.usage.model_calls == 1


async def test_silence_is_not_waited_for(system: System, provider: WireServer, wire: str) -> None:
    impatient = {"api": APIS[wire], "base_url": provider.origin + BASES[wire], "timeouts": {"first_token_s": 1}}
    known = {"apiVersion": "paracle/v1", "kind": "Provider", "metadata": {"name": f"quiet-{wire}"}, "spec": impatient}
    await asyncio.to_thread(system.apply, yaml.safe_dump_all([known, agent(f"calm-{wire}", f"quiet-{wire}/any")]))
    provider.script(Turn(hang_after=0))
    provider.otherwise = say("Here I am.")
    ended = await system.invoke(f"calm-{wire}", "Are you there?")
    assert_completed(ended, "Here I am.")
    assert len(provider.journal) >= 2
    await eventually(provider.journal[0].gone.is_set)
    assert ended.usage.model_calls == 1


async def test_a_provider_that_stays_broken_fails_the_run(system: System, provider: WireServer, wire: str) -> None:
    provider.otherwise = fail(500, message="out of order")
    await eventually(lambda: fails_with(system, f"hasty-{wire}", {"provider_unavailable"}), within_s=90)
    assert len(provider.journal) >= 3
    assert set(statuses(provider)) == {500}


async def test_a_wait_that_is_too_long_is_not_begun(system: System, provider: WireServer, wire: str) -> None:
    provider.otherwise = fail(503, message="come back tomorrow", retry_after=86_400)
    ended = await system.invoke(f"plain-{wire}", "Are you there?")
    assert_failed(ended, "provider_unavailable")
    assert ended.error is not None
    assert "come back tomorrow" in ended.error.message
    assert len(provider.journal) == 1


@pytest.mark.parametrize("wire", ["openai"], indirect=True)
async def test_a_provider_that_is_not_there_fails_the_run(system: System, provider: WireServer, wire: str) -> None:
    await provider.__aexit__()
    await eventually(lambda: fails_with(system, f"hasty-{wire}", {"provider_unavailable"}), within_s=90)


@pytest.mark.parametrize(
    "nonsense",
    [page(), Turn(raw=b"{"), Turn(raw=b"\xff\xfe\x00"), Turn(raw=b'{"hello": "world"}'), Turn(no_choices=True)],
    ids=["a web page", "half a brace", "not UTF-8", "other JSON", "nothing said"],
)
async def test_a_malformed_reply_is_a_failure(system: System, provider: WireServer, wire: str, nonsense: Turn) -> None:
    provider.otherwise = nonsense
    codes = {"provider_failed", "provider_unavailable"}
    await eventually(lambda: fails_with(system, f"hasty-{wire}", codes), within_s=90)


async def test_arguments_that_are_no_json_are_told_to_the_model(
    system: System, provider: WireServer, wire: str
) -> None:
    run = f"nonsense-{wire}"
    provider.script(call("count", '{"run": '), call("count", {"run": run, "step": "one"}), say("Mended."))
    ended = await system.invoke(f"worker-{wire}", {"run": run})
    assert_completed(ended, "Mended.")
    assert set(system.effects.times_by_step(run)) == {"one"}


async def test_a_key_that_is_refused_fails_the_run_at_once(system: System, provider: WireServer, wire: str) -> None:
    provider.otherwise = fail(401, message="bad key")
    ended = await system.invoke(f"plain-{wire}", "Are you there?")
    assert_failed(ended, "provider_failed")
    assert len(provider.journal) == 1


def assert_completed(run: RunView, output: Any) -> None:
    assert run.run.status is RunStatus.COMPLETED, run.error
    assert run.output == output


def assert_failed(run: RunView, code: str) -> None:
    """The step and the run failed, and say why."""
    assert_no_success(run)
    assert [step.status for step in run.steps] == [StepStatus.FAILED]
    assert run.error is not None
    assert run.error.code == code, run.error


def assert_no_success(run: RunView) -> None:
    """The run failed, be it that the agent's time was up between two tries."""
    assert (run.run.status, run.output) == (RunStatus.FAILED, None)
    assert {step.status for step in run.steps} <= {StepStatus.FAILED, StepStatus.TIMED_OUT}


async def fails_with(system: System, name: str, codes: set[str]) -> bool:
    """Whether a run of this agent failed with one of `codes`, rather than that its time was up before it had tried."""
    ended = await system.invoke(name, "Are you there?")
    assert_no_success(ended)
    return bool(codes & await error_codes(system, ended))


async def error_codes(system: System, run: RunView) -> set[str]:
    """Of the run, and of the model calls that it tried."""
    assert run.error is not None
    async with system.client() as client:
        await assert_sound(client, run.run.run_id)
        stored = [one.event for one in await audit(client, run.run.run_id)]
    failures = [ErrorInfo.model_validate(one.data["error"]) for one in stored if one.type == "task.model_call_failed"]
    return {run.error.code, *(failure.code for failure in failures)}
