"""Calls with guards, through the whole gateway: what the provider sees, what comes back, what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, override

import pytest
from guard_samples import MemoryAsker
from provider_gateway_samples import CONTEXT, TASK, Gateway, ask, gateway, openai_like

from paracle_chassis.testing.eventually import leap
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Turn, call, fail, say
from paracle_domain.envelope import Context
from paracle_domain.errors import (
    BudgetExceeded,
    Conflict,
    ContentRefused,
    DeadlineExceeded,
    InternalError,
    ToolUnavailable,
    Unavailable,
)
from paracle_domain.guard.messages import GuardAnswer, GuardQuestion
from paracle_domain.inference.caching import CachePolicy
from paracle_domain.inference.chat import ChatMessage, ReasoningPart, ToolCallPart, ToolResultPart
from paracle_domain.inference.deltas import assemble
from paracle_domain.inference.request import CallLabels, Complete
from paracle_domain.inference.response import Completion
from paracle_provider_gateway.accounts import GRANTED, MadeElsewhere
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.guards.asked import Telling
from paracle_provider_gateway.guards.verdicts import Outcome
from paracle_provider_gateway.ports import Held, Reply
from paracle_provider_gateway.pricing import ListPrices

PII: dict[str, Any] = {"name": "no-mail", "type": "pii", "entities": ["email", "credit_card"]}
LABELS = CallLabels(run_id="run_01JD0000000000000000000000", agent="writer")


@pytest.fixture
async def provider() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def world(provider: FakeOpenAI) -> AsyncIterator[Gateway]:
    found = openai_like(provider.url)
    yield gateway(found)
    await found.close()


async def complete(world: Gateway, *guards: dict[str, Any], text: str = "Hello?", **more: Any) -> Completion:
    request = ask(text, **{"model": "openai/fake-model", "guards": guards, "labels": LABELS} | more)
    return await world.completions.complete(request, CONTEXT)


def told(world: Gateway) -> list[tuple[str, str, str, dict[str, int]]]:
    return [(hit.guard, hit.direction, hit.verdict.outcome, dict(hit.verdict.found)) for hit in world.audit.hits]


async def test_what_goes_in_is_redacted_wherever_it_stands(world: Gateway, provider: FakeOpenAI):
    provider.script(say("I wrote to jane@example.com."))
    messages = (
        ChatMessage.system("Answer to boss@example.com."),
        ChatMessage.user("I am me@example.com, card 4111 1111 1111 1111."),
        ChatMessage.assistant("Asking.", ToolCallPart(id="c", name="look", arguments={"who": "me@example.com"})),
        ChatMessage.tool(ToolResultPart(call_id="c", content='{"mail": "me@example.com"}')),
    )
    answer = await complete(world, PII, messages=messages)
    sent = str(provider.journal[0].body)
    assert "@" not in sent
    assert "4111" not in sent
    assert sent.count("[EMAIL]") == 4
    assert answer.message.text == "I wrote to [EMAIL]."
    assert told(world) == [
        ("no-mail", "input", "redacted", {"email": 4, "credit_card": 1}),
        ("no-mail", "output", "redacted", {"email": 1}),
    ]


async def test_what_nobody_minds_goes_through_as_it_is(world: Gateway, provider: FakeOpenAI):
    provider.script(say("Hi."))
    answer = await complete(world, PII, stream_to=TASK)
    assert answer.message.text == "Hi."
    assert assemble(world.outbox.deltas) == answer.message
    assert told(world) == []


async def test_a_guard_of_one_side_leaves_the_other_alone(world: Gateway, provider: FakeOpenAI):
    provider.script(say("To a@example.com."), say("To a@example.com."))
    answer = await complete(world, PII | {"on": "input"}, text="b@example.com", stream_to=TASK)
    assert answer.message.text == "To a@example.com."
    assert len(world.outbox.deltas) > 2, "deltas flow where no guard looks at the output"
    await complete(world, PII | {"on": "output"}, text="b@example.com")
    assert "b@example.com" in str(provider.journal[1].body)


@pytest.mark.parametrize("stream_to", [None, TASK])
async def test_what_is_refused_on_its_way_in_is_not_asked(world: Gateway, provider: FakeOpenAI, stream_to: str | None):
    with pytest.raises(ContentRefused) as refused:
        await complete(world, PII | {"on_hit": "refuse"}, text="me@example.com", stream_to=stream_to)
    assert refused.value.message == "guard 'no-mail' of agent 'writer' refused the input: email (1)"
    assert refused.value.details == {"guard": "no-mail", "type": "pii", "direction": "input"}
    assert not refused.value.retryable
    assert provider.journal == []
    assert world.accounts.opened == []
    assert told(world) == [("no-mail", "input", "refused", {"email": 1})]


async def test_what_is_refused_on_its_way_out_is_paid_and_not_told(world: Gateway, provider: FakeOpenAI):
    provider.script(Turn(text="Write to me@example.com", reasoning="It is me@example.com"))
    with pytest.raises(ContentRefused, match="refused the output: email"):
        await complete(world, PII | {"on_hit": "refuse"}, stream_to=TASK)
    assert world.outbox.deltas == []
    ((_, outcome),) = world.accounts.settled
    assert outcome.reply is not None
    assert outcome.reply.usage.output_tokens == 7


async def test_what_comes_out_is_streamed_once_it_has_passed(world: Gateway, provider: FakeOpenAI):
    provider.script(reset_in_between(), Turn(text="To me@example.com.", reasoning="me@example.com it is", tools=()))
    answer = await complete(world, PII, stream_to=TASK)
    thought, words = answer.message.parts
    assert thought == ReasoningPart(text="[EMAIL] it is")
    assert answer.message.text == "To [EMAIL]."
    assert words.type == "text"
    assert assemble(world.outbox.deltas) == answer.message
    assert [delta.attempt for delta in world.outbox.deltas] == [1, 1, 1]
    assert provider.journal[1].body["stream"] is True, "the provider is heard while it speaks all the same"


def reset_in_between() -> Turn:
    return Turn(text="To me@example.com, and more than that.", break_after=3)


async def test_arguments_of_calls_are_redacted_and_stay_json(world: Gateway, provider: FakeOpenAI):
    provider.script(call("send", {"to": ["me@example.com"], "card": 4111111111111111, "n": 3}))
    answer = await complete(world, PII)
    (made,) = answer.message.tool_calls
    assert made.arguments == {"to": ["[EMAIL]"], "card": "[CREDIT_CARD]", "n": 3}


async def test_guards_are_asked_in_turn_about_what_is_left(world: Gateway, provider: FakeOpenAI):
    provider.script(say("Fine."))
    later = {"name": "later", "type": "regex", "pattern": "example", "on": "input"}
    await complete(world, PII, later, text="me@example.com")
    with pytest.raises(ContentRefused, match="guard 'later'"):
        await complete(world, later, PII, text="me@example.com")
    assert len(provider.journal) == 1


async def test_a_warning_changes_nothing_and_is_told(world: Gateway, provider: FakeOpenAI):
    provider.script(say("Fine."))
    guards = [{"name": "w", "type": "regex", "pattern": "(?i)hel+o", "on_hit": "warn"}, PII | {"on_hit": "warn"}]
    await complete(world, *guards, text="Hello, me@example.com")
    assert "Hello, me@example.com" in str(provider.journal[0].body)
    assert [hit[2] for hit in told(world)] == ["warned", "warned"]


async def test_a_pattern_is_redacted(world: Gateway, provider: FakeOpenAI):
    provider.script(say("The project is Apollo."))
    guard = {"name": "secret", "type": "regex", "pattern": "apollo", "ignore_case": True, "on_hit": "redact"}
    answer = await complete(world, guard, text="What is ápollo, Apollo?")
    assert "ápollo, [REDACTED]?" in str(provider.journal[0].body)
    assert answer.message.text == "The project is [REDACTED]."


async def test_answers_must_hold_what_is_required(world: Gateway, provider: FakeOpenAI):
    guard = {"name": "signed", "type": "regex", "pattern": "— The team$", "required": True, "on": "output"}
    provider.script(say("Hi. — The team"), call("look", {}), say("Hi."))
    await complete(world, guard)
    await complete(world, guard)  # which calls a tool, and answers later
    with pytest.raises(ContentRefused, match=r"no_match \(1\)"):
        await complete(world, guard)


async def test_answers_must_be_json_of_the_schema(world: Gateway, provider: FakeOpenAI):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    guard = {"name": "shape", "type": "json_schema", "json_schema": schema}
    provider.script(say('{"n": 1}'), call("look", {}), say("secret"), say('{"n": "secret"}'), say('{"n": "x"}'))
    await complete(world, guard)
    await complete(world, guard)
    with pytest.raises(ContentRefused, match=r"no_json \(1\)$"):
        await complete(world, guard)
    with pytest.raises(ContentRefused, match=r"violation \(1\): properties/n/type of its schema$"):
        await complete(world, guard)
    await complete(world, guard | {"on_hit": "warn"})
    assert [hit[2] for hit in told(world)] == ["refused", "refused", "warned"]


async def test_a_large_text_does_not_hold_up_others(world: Gateway, provider: FakeOpenAI):
    provider.script(say("Fine."))
    await complete(world, PII, text="me@example.com " * 10_000)
    assert told(world)[0][3] == {"email": 10_000}


NATS: dict[str, Any] = {"name": "ours", "type": "nats", "guard": "check"}
OUTPUT = NATS | {"on": "output"}


def replace_hello(question: GuardQuestion) -> GuardAnswer:
    return GuardAnswer.replaced(*(shown.text.replace("Hello", "Bye") for shown in question.passages))


async def test_a_process_of_the_tenant_decides(world: Gateway, provider: FakeOpenAI):
    world.asker.answers["check"] = replace_hello
    provider.script(say("Hello!"), call("look", {"a": "b"}))
    answer = await complete(world, NATS, text="Hello you")
    assert "Bye you" in str(provider.journal[0].body)
    assert answer.message.text == "Bye!"
    first, second = world.asker.asked
    assert (first.guard, first.direction, first.agent, first.run_id) == ("ours", "input", "writer", LABELS.run_id)
    assert [(shown.speaker, shown.text) for shown in first.passages] == [("user", "Hello you")]
    assert (second.direction, second.calls_tools) == ("output", False)
    await complete(world, NATS, text="Nothing")
    assert world.asker.asked[-1].calls_tools
    assert [hit[2:] for hit in told(world)] == [("redacted", {"replaced": 1})] * 2


async def test_a_process_of_the_tenant_refuses(world: Gateway):
    world.asker.answers["check"] = lambda _: GuardAnswer.refused("not on Sundays")
    with pytest.raises(ContentRefused, match="guard 'ours' of agent 'writer' refused the input: not on Sundays"):
        await complete(world, NATS)
    world.asker.answers["check"] = lambda _: GuardAnswer.refused("")
    with pytest.raises(ContentRefused, match=r"refused the input$"):
        await complete(world, NATS, labels=CallLabels())


async def test_whoever_watches_is_told_that_nobody_serves_a_guard(world: Gateway):
    with pytest.raises(Unavailable):
        await complete(world, NATS, stream_to=TASK)
    [told] = world.outbox.retries
    assert (told.tried, told.error.code) == (0, "unavailable")
    assert told.error.message == "guard 'ours' cannot be asked about the input: nobody listens on check"


def broken(error: Exception) -> Any:
    def judge(_question: GuardQuestion) -> GuardAnswer:
        raise error

    return judge


@pytest.mark.parametrize(
    ("answer", "kind", "what"),
    [
        (broken(ToolUnavailable("busy")), Unavailable, "cannot be asked about the input.*: busy"),
        (broken(DeadlineExceeded("slow")), Unavailable, "cannot be asked about the input.*: slow"),
        (broken(InternalError("bug")), ContentRefused, "could not judge the input, .*: bug"),
        (broken(RuntimeError("secret")), ContentRefused, "could not judge the input, .*: RuntimeError; see"),
        (lambda _: GuardAnswer.replaced("a", "b"), ContentRefused, "could not judge the input, .*: ValueError"),
    ],
)
async def test_without_a_judgement_nothing_passes_unless_it_may(
    world: Gateway, provider: FakeOpenAI, answer: Any, kind: type[Exception], what: str
):
    world.asker.answers["check"] = answer
    with pytest.raises(kind, match=f"guard 'ours' of agent 'writer' {what}") as failed:
        await complete(world, NATS)
    assert "secret" not in str(failed.value)
    assert type(failed.value) is kind
    assert provider.journal == []
    assert told(world)[0][2] == Outcome.FAILED
    provider.script(say("Fine."))
    passed = await complete(world, NATS | {"on_error": "pass", "on": "input"})
    assert passed.message.text == "Fine."
    assert told(world)[1][2] == Outcome.SKIPPED


@pytest.mark.parametrize("stream_to", [None, TASK])
@pytest.mark.parametrize("away", [ToolUnavailable("busy"), DeadlineExceeded("slow")])
async def test_a_guard_that_is_away_is_asked_again_about_the_same_answer(
    world: Gateway, provider: FakeOpenAI, away: Exception, stream_to: str | None
):
    provider.script(say("Paid once."), say("Paid again."))
    world.asker.answers["check"] = broken(away)
    for _ in range(2):
        with pytest.raises(Unavailable, match=f"cannot be asked about the output.*: {away}"):
            await complete(world, OUTPUT, call_id="same", stream_to=stream_to)
    assert world.outbox.deltas == []
    world.asker.answers["check"] = lambda _: GuardAnswer.replaced("Paid, and seen.")
    answer = await complete(world, OUTPUT, call_id="same", stream_to=stream_to)
    assert answer.message.text == "Paid, and seen."
    assert answer == await complete(world, OUTPUT, call_id="same", stream_to=stream_to), "as it was let out"
    assert [question.passages[0].text for question in world.asker.asked] == ["Paid once."] * 3
    assert (len(provider.journal), len(world.accounts.opened)) == (1, 1)
    assert stream_to is None or assemble(world.outbox.deltas) == answer.message


async def test_what_is_refused_on_its_way_out_is_not_paid_again(world: Gateway, provider: FakeOpenAI):
    provider.script(say("Write to me@example.com"), say("Nothing to see."))
    for _ in range(2):
        with pytest.raises(ContentRefused, match="refused the output: email"):
            await complete(world, PII | {"on_hit": "refuse"}, call_id="same")
    assert len(provider.journal) == 1
    with pytest.raises(Conflict, match="'same' was made before with another request"):
        await complete(world, PII | {"on_hit": "refuse"}, call_id="same", text="Something else?")


async def test_what_cannot_be_told_of_an_answer_is_no_reason_to_pay_again(world: Gateway, provider: FakeOpenAI):
    provider.script(say("To me@example.com"), say("Paid again."))
    world.audit.away = Unavailable("no NATS")
    with pytest.raises(Unavailable, match="no NATS"):
        await complete(world, PII, call_id="same")
    world.audit.away = None
    assert (await complete(world, PII, call_id="same")).message.text == "To [EMAIL]"
    assert len(provider.journal) == 1


async def test_an_answer_that_another_replica_holds_is_judged_here(world: Gateway, provider: FakeOpenAI):
    provider.script(say("Paid once."))
    answer = await complete(world)
    world.accounts.answers[:] = [MadeElsewhere("other")]
    world.neighbours.answers[:] = [Held(answer)]
    world.asker.answers["check"] = broken(ToolUnavailable("busy"))
    with pytest.raises(Unavailable, match="busy"):
        await complete(world, OUTPUT, call_id="same")
    world.asker.answers["check"] = lambda _: GuardAnswer.passed()
    assert (await complete(world, OUTPUT, call_id="same")).message.text == "Paid once."
    assert len(provider.journal) == len(world.accounts.opened) - 1 == 1, "neither is asked again"
    assert world.accounts.taken_over == []


async def test_time_that_guards_use_up_does_not_cost_the_answer():
    class Slow(MemoryAsker):
        @override
        async def ask(
            self, guard: str, question: GuardQuestion, _context: Context, timeout_s: float, tell: Telling
        ) -> GuardAnswer:
            if not self.asked:
                self.asked.append(question)
                leap(60)
                await asyncio.Event().wait()
            return GuardAnswer.passed()

    sandbox = Counting()
    world = gateway(sandbox, asker=Slow())
    with pytest.raises(Unavailable, match="sandbox/rules has answered, but guards did not judge that within 60 s"):
        await complete(world, OUTPUT, model="sandbox/rules", call_id="same", timeout_s=60)
    assert (await complete(world, OUTPUT, model="sandbox/rules", call_id="same")).sandbox
    assert sandbox.asked == 1


class Counting(SandboxProvider):
    """Counts what it is asked."""

    asked = 0

    @override
    async def ask(self, model: str, request: Complete) -> Reply:
        self.asked += 1
        return await super().ask(model, request)


async def test_a_schema_that_is_none_is_no_judgement(world: Gateway, provider: FakeOpenAI):
    provider.script(say("1"))
    with pytest.raises(ContentRefused, match=r"could not judge the output.*the guard's schema is no JSON Schema"):
        await complete(world, {"name": "s", "type": "json_schema", "json_schema": {"type": "nonsense"}})


async def test_what_cannot_be_told_is_not_done(world: Gateway, provider: FakeOpenAI):
    world.audit.away = Unavailable("no NATS")
    with pytest.raises(Unavailable, match="no NATS"):
        await complete(world, PII, text="me@example.com")
    assert provider.journal == []


async def test_a_repeated_call_is_answered_with_what_passed(world: Gateway, provider: FakeOpenAI):
    provider.script(say("To me@example.com."))
    more: dict[str, Any] = {"call_id": "same"}
    first, second = await asyncio.gather(complete(world, PII, **more), complete(world, PII, **more))
    assert first is second
    assert first.message.text == "To [EMAIL]."
    assert len(provider.journal) == 1


async def test_an_answer_is_kept_as_it_was_let_out(world: Gateway, provider: FakeOpenAI):
    provider.script(say("To me@example.com."), say("Never asked."))
    more: dict[str, Any] = {"cache": CachePolicy(ttl_s=60)}
    first = await complete(world, PII, text="from a@example.com", **more)
    again = await complete(world, PII, text="from b@example.com", stream_to=TASK, **more)
    assert first.message == again.message == assemble(world.outbox.deltas)
    assert first.message.text == "To [EMAIL]."
    assert len(provider.journal) == 1, "what guards made the same is the same question"
    other = await complete(world, text="from [EMAIL]", **more)
    assert other.message.text == "Never asked.", "without these guards it is another one"


async def test_what_a_guard_could_not_look_at_is_not_kept(world: Gateway, provider: FakeOpenAI):
    provider.script(say("unseen"), say("seen"))
    guard, policy = NATS | {"on_error": "pass", "on": "output"}, CachePolicy(ttl_s=60)
    world.asker.answers["check"] = broken(ToolUnavailable("busy"))
    assert (await complete(world, guard, cache=policy)).message.text == "unseen"
    world.asker.answers["check"] = lambda _: GuardAnswer.passed()
    assert [(await complete(world, guard, cache=policy)).message.text for _ in range(2)] == ["seen", "seen"]


# ── models for moderation ────────────────────────────────────────────────────────────────────────────────────────


MODERATED: dict[str, Any] = {
    "name": "kind", "type": "moderation", "model": "openai/omni-moderation-latest", "on": "input",
}  # fmt: skip


async def test_a_model_for_moderation_is_asked_and_accounted(world: Gateway, provider: FakeOpenAI):
    provider.script(say("kill"))
    messages = (ChatMessage.user("I kill you"), ChatMessage.user("Fine."), ChatMessage.user("Fine."))
    with pytest.raises(ContentRefused, match=r"guard 'kind' of agent 'writer' refused the input: violence \(1\)"):
        await complete(world, MODERATED, messages=messages)
    (seen,) = provider.journal
    assert (seen.path, seen.body) == (
        "/v1/moderations",
        {"model": "omni-moderation-latest", "input": ["I kill you", "Fine."]},
    )
    ((attempt, outcome),) = world.accounts.settled
    assert attempt.deployment.name == "openai/omni-moderation-latest"
    assert attempt.request.labels == LABELS
    assert outcome.reply is not None
    assert outcome.reply.usage.input_tokens > 0
    cost = ListPrices("sandbox").cost(attempt.deployment, attempt.deployment.model, outcome.reply.usage)
    assert cost == 0, "OpenAI's own cost nothing, and that is known"
    assert world.accounts.ended[0] == ("acme", attempt.request.call_id)


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ({}, True), ({"categories": ["hate"]}, False), ({"categories": ["violence"]}, True),
        ({"threshold": 0.95}, False), ({"threshold": 0.9}, True), ({"threshold": 0.3, "categories": ["hate"]}, True),
    ],
)  # fmt: skip
async def test_what_counts_is_in_the_manifest(
    world: Gateway, provider: FakeOpenAI, more: dict[str, Any], refused: bool
):
    provider.script(say("kill"), say("Fine."))
    if refused:
        with pytest.raises(ContentRefused):
            await complete(world, MODERATED | more, text="I kill you")
    else:
        assert (await complete(world, MODERATED | more, text="I kill you")).message.text == "Fine."


async def test_many_texts_are_asked_about_in_turns(world: Gateway, provider: FakeOpenAI):
    provider.script(say(""), say(""), say("Fine."))
    await complete(world, MODERATED, messages=tuple(ChatMessage.user(f"text {n}") for n in range(40)))
    assert [len(seen.body["input"]) for seen in provider.journal[:2]] == [32, 8]


async def test_where_there_is_no_text_nobody_is_asked(world: Gateway, provider: FakeOpenAI):
    provider.script(say("Fine."))
    await complete(world, MODERATED, text=" ")
    assert len(provider.journal) == 1


async def test_a_model_that_fails_is_tried_again_and_then_waited_for(world: Gateway, provider: FakeOpenAI):
    provider.script(fail(503), say(""), say("Fine."))
    assert (await complete(world, MODERATED)).message.text == "Fine."
    provider.script(*[fail(503)] * 10)
    with pytest.raises(Unavailable, match="guard 'kind' of agent 'writer' cannot be asked about the input"):
        await complete(world, MODERATED)


async def test_a_model_that_is_silent_is_not_waited_for_longer(world: Gateway, provider: FakeOpenAI):
    provider.script(Turn(hang_after=0))
    with pytest.raises(Unavailable, match=r"omni-moderation-latest did not answer within 0\.2 s"):
        await complete(world, MODERATED | {"timeout_s": 0.2})


async def test_nonsense_is_no_judgement(world: Gateway, provider: FakeOpenAI):
    provider.script(Turn(raw=b'{"results": []}'))
    with pytest.raises(ContentRefused, match=r"could not judge the input.*answered 0 judgements to 1 texts"):
        await complete(world, MODERATED)


async def test_a_provider_without_such_models_is_named(world: Gateway):
    with pytest.raises(ContentRefused, match="sandbox/rules is no model for moderation"):
        await complete(gateway(SandboxProvider()), MODERATED | {"model": "sandbox/rules"}, model="sandbox/rules")
    with pytest.raises(ContentRefused, match="set ANTHROPIC_API_KEY"):
        await complete(world, MODERATED | {"model": "anthropic/x"})


async def test_a_budget_that_is_used_up_is_told_as_such(world: Gateway):
    world.accounts.answers.append(BudgetExceeded("used up", details={"budget": "b", "model": "openai/cheap"}))
    with pytest.raises(BudgetExceeded, match="used up") as exceeded:
        await complete(world, MODERATED)
    assert exceeded.value.details == {"budget": "b"}, "the other model is no other one for this call"


async def test_once_there_is_money_for_the_guard_it_goes_on_with_what_the_model_has_said(
    world: Gateway, provider: FakeOpenAI
):
    provider.script(say("Paid once."), say(""), say("Paid again."))
    world.accounts.answers[:] = [GRANTED, BudgetExceeded("used up", details={"budget": "b", "on_hit": "ask"})]
    guarded = MODERATED | {"on": "output"}
    with pytest.raises(BudgetExceeded, match="used up"):
        await complete(world, guarded, call_id="same")
    assert (await complete(world, guarded, call_id="same")).message.text == "Paid once."
    assert [seen.path for seen in provider.journal] == ["/v1/chat/completions", "/v1/moderations"]
