"""What is true of every guard, whatever it looks for."""

from __future__ import annotations

from typing import Any

import pytest
from guard_samples import MemoryAsker, MemoryModerator
from provider_gateway_samples import CONTEXT, Outbox, ask
from pydantic import TypeAdapter

from paracle_domain.guard.messages import GuardAnswer, GuardQuestion, Passage
from paracle_domain.guard.spec import Guard as GuardSpec
from paracle_provider_gateway.guards.verdicts import Guard, Outcome, Verdict
from paracle_provider_gateway.guards.workbench import Guards

SECRET = "jane@example.com"
SPECS = TypeAdapter[GuardSpec](GuardSpec)
ANSWER = {"type": "object", "properties": {"text": {"type": "string", "not": {"pattern": "@"}}}}
KINDS: dict[str, dict[str, Any]] = {
    "pii": {"type": "pii"},
    "regex": {"type": "regex", "pattern": "@"},
    "json_schema": {"type": "json_schema", "json_schema": ANSWER},
    "moderation": {"type": "moderation", "model": "openai/m"},
    "nats": {"type": "nats", "guard": "check"},
}


def judge(question: GuardQuestion) -> GuardAnswer:
    if not any(SECRET in shown.text for shown in question.passages):
        return GuardAnswer.passed()
    if question.guard == "redact":
        return GuardAnswer.replaced(*(shown.text.replace(SECRET, "*") for shown in question.passages))
    return GuardAnswer.refused("it is a secret")


def made(kind: str, **more: Any) -> Guard:
    guards = Guards(MemoryAsker({"check": judge}), MemoryModerator({SECRET: "privacy"}), Outbox())
    return guards.guard(SPECS.validate_python({"name": "g", **KINDS[kind], **more}))


async def verdict(guard: Guard, *texts: str, name: str = "g") -> Verdict:
    passages = tuple(Passage(speaker="assistant", text=text) for text in texts)
    question = GuardQuestion(guard=name, direction="output", passages=passages, call_id="c", model="m")
    return await guard.check(question, ask(), CONTEXT)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_clean_passes(kind: str):
    assert await verdict(made(kind), '{"text": "Hello."}') == Verdict()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("pii", {"on_hit": "refuse"}), ("regex", {}), ("json_schema", {}), ("moderation", {}), ("nats", {}),
    ],
)  # fmt: skip
async def test_a_refusal_says_what_kind_of_thing_was_found_and_never_the_thing(kind: str, more: dict[str, Any]):
    found = await verdict(made(kind, **more), f'{{"text": "{SECRET}"}}')
    assert found.outcome is Outcome.REFUSED
    assert found.reason
    assert sum(found.found.values()) == 1
    assert SECRET not in found.reason
    assert SECRET not in "".join(found.found)


@pytest.mark.parametrize("kind", ["pii", "regex", "nats"])
async def test_what_is_redacted_has_as_many_texts_and_is_clean_then(kind: str):
    more = {} if kind == "nats" else {"on_hit": "redact"}
    texts = ["Hello.", f"I am {SECRET}", ""]
    found = await verdict(made(kind, **more), *texts, name="redact")
    assert found.outcome is Outcome.REDACTED
    assert found.texts is not None
    assert (len(found.texts), found.texts[0], found.texts[2]) == (3, "Hello.", "")
    assert SECRET not in found.texts[1]
    assert await verdict(made(kind, **more), *found.texts, name="redact") == Verdict()


@pytest.mark.parametrize("kind", ["pii", "regex", "json_schema", "moderation"])
async def test_a_warning_leaves_texts_as_they_are(kind: str):
    found = await verdict(made(kind, on_hit="warn"), f'{{"text": "{SECRET}"}}')
    assert (found.outcome, found.texts) == (Outcome.WARNED, None)
