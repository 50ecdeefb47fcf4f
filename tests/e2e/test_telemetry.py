"""What one run tells a telemetry backend: every signal of every service, one trace through them, and no contents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml
from tests.e2e.world import CANARY, System

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.otlp import ReceivedSpan
from paracle_chassis.testing.wire import say
from paracle_client.stack import SERVICES
from paracle_domain.run.commands import RunStatus

NAMES = {f"paracle-{one.name}" for one in SERVICES}
SECRET_INPUT = "the-customer-is-called-Ermintrude"
SECRET_OUTPUT = "the-answer-is-Zanzibar"
SECRET_PROMPT = "whisper-like-a-heron"
MANIFESTS = [
    {
        "kind": "Agent",
        "metadata": {"name": "discreet"},
        "spec": {"model": {"name": "openai-compatible/fake-model"}, "instructions": SECRET_PROMPT},
    },
    {
        "kind": "Workflow",
        "metadata": {"name": "whispering"},
        "spec": {
            "steps": [
                {"id": "first", "agent": "discreet", "input": {"text": "{{ input.text }}"}},
                {"id": "second", "agent": "discreet", "input": {"text": "{{ steps.first.output }}"}},
            ],
            "output": "{{ steps.second.output }}",
        },
    },
]


async def test_a_run_is_seen_whole_and_shows_nothing_of_its_contents(system: System, openai: FakeOpenAI) -> None:
    text = yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in MANIFESTS])
    await asyncio.to_thread(system.apply, text)
    openai.otherwise = say(SECRET_OUTPUT)
    receiver = system.receiver

    async def one_is_seen_whole() -> bool:
        """What a service could not hand over in time is lost, and then it is seen in the next run."""
        run = await system.run("whispering", {"text": SECRET_INPUT})
        assert (run.run.status, run.output) == (RunStatus.COMPLETED, SECRET_OUTPUT)
        return await eventually(lambda: assert_one_trace(receiver.spans(), run.run.run_id), within_s=15)

    await eventually(one_is_seen_whole, within_s=60)
    assert openai.journal[0].headers["Authorization"] == f"Bearer {CANARY}"
    await eventually(lambda: {span.service for span in receiver.spans()} >= NAMES, within_s=30)
    await eventually(lambda: {log.service for log in receiver.logs()} >= NAMES, within_s=30)
    await eventually(lambda: receiver.metric_services() >= NAMES, within_s=30)
    await eventually(lambda: {"gen_ai.client.token.usage", "paracle.tasks"} <= set(receiver.metrics()), within_s=30)

    told = [repr(span) for span in receiver.spans()] + [repr(log) for log in receiver.logs()]
    told += [repr(metric) for metric in receiver.metrics().items()]
    told += [path.read_text(encoding="utf-8", errors="replace") for path in log_files(system)]
    for secret in (SECRET_INPUT, SECRET_OUTPUT, SECRET_PROMPT, CANARY):
        assert not [text[:500] for text in told if secret in text]


def log_files(system: System) -> list[Path]:
    found = [path for path in (system.stack.root / "logs").iterdir() if path.is_file()]
    assert len(found) > len(SERVICES)
    return found


def assert_one_trace(spans: list[ReceivedSpan], run_id: str) -> bool:
    """Both model calls of the run hang on the request at the edge, through the orchestrator and the agent runtime."""
    chats = [
        span for span in spans if span.attributes.get("paracle.run.id") == run_id and span.name.startswith("chat ")
    ]
    assert {chat.attributes["paracle.step"] for chat in chats} == {"first", "second"}
    assert len({chat.trace_id for chat in chats}) == 1
    of_trace = {span.span_id: span for span in spans if span.trace_id == chats[0].trace_id}
    for chat in chats:
        way = [span.service.removeprefix("paracle-") for span in ancestors(chat, of_trace)]
        assert in_order(way, ["provider_gateway", "agent_runtime", "orchestrator", "api_gateway"]), way
    return True


def ancestors(span: ReceivedSpan, of_trace: dict[str, ReceivedSpan]) -> list[ReceivedSpan]:
    """`span` and what it hangs on, up to the root, which has to be there."""
    way = [span]
    while way[-1].parent_id:
        assert way[-1].parent_id in of_trace, f"the parent of {way[-1].name} of {way[-1].service} is not there"
        way.append(of_trace[way[-1].parent_id])
    return way


def in_order(found: list[str], wanted: list[str]) -> bool:
    """Whether `wanted` occurs within `found` in its order."""
    rest = iter(found)
    return all(name in rest for name in wanted)
