"""Both providers over real HTTP against their wire formats: what they say, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from provider_gateway_samples import CANARY, CONTEXT, SEARCH, TASK, Peer, ask, gateway, openai_like
from pydantic import SecretStr

from paracle_chassis.testing.eventually import eventually, leap
from paracle_chassis.testing.fake_anthropic import SIGNATURE
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.fake_responses import ENCRYPTED
from paracle_chassis.testing.wire import ToolUse, Turn, call, cut, fail, page, reset, say
from paracle_domain.errors import (
    Cancelled,
    ContentRefused,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    ParacleError,
    ProviderFailed,
    ProviderUnavailable,
    RateLimited,
)
from paracle_domain.inference.chat import (
    ChatMessage,
    ReasoningPart,
    Sampling,
    ToolCallPart,
)
from paracle_domain.inference.deltas import EndDelta, TextDelta, assemble
from paracle_domain.inference.request import AbortCall
from paracle_domain.inference.response import FinishReason
from paracle_embedded import free_port
from paracle_provider_gateway.adapters.config import KeyHeader, ProviderConfig, fixed
from paracle_provider_gateway.adapters.create import create_provider
from paracle_provider_gateway.plans import Timeouts
from paracle_provider_gateway.retries import RetryPolicy

both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class TestReplies:
    @both_ways
    async def test_words(self, peer: Peer, stream: bool):
        peer.server.script(say("Good morning to you.", cached_tokens=4))
        answer = await peer.complete(peer.ask(stream=stream))
        assert answer.message == ChatMessage.assistant("Good morning to you.")
        assert (answer.finish_reason, answer.provider, answer.sandbox) == (FinishReason.STOP, peer.name, False)
        assert (answer.model, answer.attempts, answer.usage.model_calls) == ("fake-model", 1, 1)
        assert (answer.usage.output_tokens, answer.usage.cached_tokens) == (7, 4)
        assert answer.usage.input_tokens == (15 if peer.name == "anthropic" else 11)
        assert answer.usage.cost_usd is None, "a model without a known price has no known cost"
        assert (answer.first_token_s is not None) is stream

    @both_ways
    async def test_tool_calls(self, peer: Peer, stream: bool):
        uses = (ToolUse("search", '{"q": "cats"}', "id-1"), ToolUse("search", '{"q": "dögs"}', "id-2"))
        peer.server.script(Turn(text="Let me see.", tools=uses))
        answer = await peer.complete(peer.ask(stream=stream, tools=(SEARCH,)))
        assert answer.finish_reason is FinishReason.TOOL_CALLS
        assert answer.message.text == "Let me see."
        assert answer.message.tool_calls == (
            ToolCallPart(id="id-1", name="search", arguments={"q": "cats"}),
            ToolCallPart(id="id-2", name="search", arguments={"q": "dögs"}),
        )

    async def test_a_stream_is_published_while_it_comes_and_adds_up_to_the_answer(self, peer: Peer):
        use = ToolUse("search", '{"q": 1}')
        peer.server.script(Turn(reasoning="Let us think.", text="Some words.", tools=(use,), drip_s=0.01))
        answer = await peer.complete(peer.ask(stream=True))
        deltas = peer.gateway.outbox.deltas
        assert peer.gateway.outbox.tenants == {"acme"}
        assert [delta.seq for delta in deltas] == list(range(len(deltas)))
        assert isinstance(deltas[-1].change, EndDelta)
        assert sum(isinstance(delta.change, TextDelta) for delta in deltas) > 1
        assert assemble(deltas) == answer.message

    @both_ways
    async def test_reasoning_survives_the_round_trip(self, peer: Peer, stream: bool):
        peer.server.script(Turn(reasoning="It is a cat.", text="A cat."), say("Bye."))
        first = await peer.complete(peer.ask(stream=stream))
        thought = first.message.parts[0]
        assert isinstance(thought, ReasoningPart)
        assert thought.text == "It is a cat."
        await peer.complete(peer.ask(messages=(ChatMessage.user("?"), first.message, ChatMessage.user("!"))))
        body = peer.server.journal[-1].body
        sent = body["input" if peer.name == "responses" else "messages"][1]
        if peer.name == "anthropic":
            assert sent["content"][0] == {"type": "thinking", "thinking": "It is a cat.", "signature": SIGNATURE}
        elif peer.name == "responses":
            summary = [{"type": "summary_text", "text": "It is a cat."}]
            known = {"type": "reasoning", "id": "rs_fake", "encrypted_content": ENCRYPTED}
            assert sent == known | {"summary": summary}
        else:
            assert sent == {"role": "assistant", "content": "A cat."}

    @pytest.mark.parametrize(
        ("turn", "reason"),
        [
            (say("Half a", finish="length"), "openai"),
            (say("Half a", finish="max_output_tokens"), "responses"),
            (say("Half a", finish="max_tokens"), "anthropic"),
        ],
    )
    @both_ways
    async def test_a_reply_that_was_cut_by_its_limit_says_so(self, peer: Peer, turn: Turn, reason: str, stream: bool):
        if peer.name == reason:
            peer.server.script(turn)
            assert (await peer.complete(peer.ask(stream=stream))).finish_reason is FinishReason.LENGTH

    async def test_arguments_that_are_no_json_are_kept_and_marked(self, peer: Peer):
        peer.server.script(call("search", '{"q": "cats'))
        answer = await peer.complete(peer.ask(stream=True, tools=(SEARCH,)))
        (made,) = answer.message.tool_calls
        assert (made.arguments, made.invalid) == ({}, '{"q": "cats')

    async def test_a_server_that_forgets_ids_gets_calls_with_ids(self):
        async with FakeOpenAI() as server:
            provider = openai_like(server.url, name="openai-compatible")
            over = gateway(provider)
            for stream_to in (None, TASK):
                server.script(Turn(tools=(ToolUse("now", "{}"),)))
                request = ask(stream_to=stream_to)
                (made,) = (await over.completions.complete(request, CONTEXT)).message.tool_calls
                assert made.id
            await provider.close()


class TestFailures:
    @both_ways
    async def test_retry_after_is_honoured(self, peer: Peer, stream: bool):
        peer.server.script(fail(429, code="rate_limit_error", retry_after=3), say("At last."))
        answer = await peer.complete(peer.ask(stream=stream))
        assert (answer.message.text, answer.attempts) == ("At last.", 2)
        assert peer.gateway.waits == pytest.approx([3.25]), "what the provider asks for, and half of the first back-off"

    async def test_a_wait_past_the_deadline_is_not_begun(self, peer: Peer):
        peer.server.script(fail(429, retry_after=60))
        with pytest.raises(RateLimited) as caught:
            await peer.complete(peer.ask(timeout_s=5))
        assert (caught.value.retry_after_s, len(peer.server.journal), peer.gateway.waits) == (60, 1, [])

    @both_ways
    @pytest.mark.parametrize("status", [500, 502, 503, 529, 408, 409])
    async def test_failures_that_may_pass_are_tried_again(self, peer: Peer, status: int, stream: bool):
        peer.server.script(fail(status), fail(status), say("Up again."))
        answer = await peer.complete(peer.ask(stream=stream))
        assert (answer.message.text, answer.attempts) == ("Up again.", 3)
        assert peer.gateway.waits == pytest.approx([0.25, 0.5])

    async def test_failures_that_do_not_pass_end_after_the_last_attempt(self, peer: Peer):
        peer.server.otherwise = fail(503, message="overloaded")
        with pytest.raises(ProviderUnavailable, match="503: overloaded"):
            await peer.complete(peer.ask())
        assert len(peer.server.journal) == RetryPolicy().attempts

    @both_ways
    @pytest.mark.parametrize(
        ("turn", "error"),
        [
            (fail(400, code="invalid_request_error", message="bad tools"), ProviderFailed),
            (fail(401, message="who are you"), ProviderFailed),
            (fail(404, message="no such model"), NotFound),
            (fail(400, code="content_filter", message="no"), ContentRefused),
            (fail(429, code="insufficient_quota", message="pay first"), ProviderFailed),
            (page(), ProviderFailed),
        ],
        ids=["400", "401", "404", "filtered prompt", "no quota", "web page"],
    )
    async def test_failures_that_stay_are_told_at_once(
        self, peer: Peer, turn: Turn, error: type[ParacleError], stream: bool
    ):
        peer.server.script(turn)
        with pytest.raises(error) as caught:
            await peer.complete(peer.ask(stream=stream))
        assert caught.value.code == error.code
        assert len(peer.server.journal) == 1
        assert peer.name in caught.value.message

    @both_ways
    @pytest.mark.parametrize(
        "turn",
        [reset(), reset(after=2), reset(after=5), cut(after=2), cut(after=5), Turn(no_choices=True)],
        ids=["reset at once", "reset early", "reset midway", "cut early", "cut midway", "nothing in it"],
    )
    async def test_a_reply_that_broke_off_is_never_a_success(self, peer: Peer, turn: Turn, stream: bool):
        peer.server.otherwise = turn
        with pytest.raises(ProviderUnavailable):
            await peer.complete(peer.ask(stream=stream))
        assert len(peer.server.journal) == RetryPolicy().attempts
        assert all(outcome.lost for _, outcome in peer.gateway.accounts.settled), "it may have to be paid"

    async def test_after_a_break_the_stream_starts_anew(self, peer: Peer):
        peer.server.script(reset(after=4), say("Whole at last."))
        answer = await peer.complete(peer.ask(stream=True))
        assert {delta.attempt for delta in peer.gateway.outbox.deltas} == {1, 2}
        assert assemble(peer.gateway.outbox.deltas) == answer.message == ChatMessage.assistant("Whole at last.")
        assert [outcome.first_token_s is None for _, outcome in peer.gateway.accounts.settled] == [False, False]

    @both_ways
    async def test_a_filtered_reply_is_refused(self, peer: Peer, stream: bool):
        finish = "refusal" if peer.name == "anthropic" else "content_filter"
        peer.server.script(say("I cannot say th", finish=finish))
        with pytest.raises(ContentRefused):
            await peer.complete(peer.ask(stream=stream))

    @both_ways
    @pytest.mark.parametrize("raw", [b'{"choices": "none", "content": 3, "model": "m"}', b"[]", b'"hello"'])
    async def test_json_of_another_shape_is_an_error(self, peer: Peer, raw: bytes, stream: bool):
        body = b"data: " + raw + b"\n\n" if stream else raw
        peer.server.script(Turn(raw=body, content_type="text/event-stream" if stream else "application/json"))
        with pytest.raises(ProviderFailed, match="does not follow the protocol") as caught:
            await peer.complete(peer.ask(stream=stream))
        assert not caught.value.retryable

    async def test_an_error_within_a_stream(self, peer: Peer):
        events = {
            "openai": b'data: {"error": {"message": "gpu on fire", "type": "server_error"}}\n\n',
            "responses": b'data: {"type": "error", "code": "server_error", "message": "gpu on fire"}\n\n',
            "anthropic": b'data: {"type": "error", "error": {"type": "overloaded_error", "message": "on fire"}}\n\n',
        }
        peer.server.script(Turn(raw=events[peer.name], content_type="text/event-stream"), say("Cooled."))
        assert (await peer.complete(peer.ask(stream=True))).message.text == "Cooled."

    async def test_nobody_listens(self, peer: Peer):
        provider = openai_like(f"http://127.0.0.1:{free_port()}/v1", model="m")
        over = gateway(provider)
        with pytest.raises(ProviderUnavailable, match=r"no connection to 127\.0\.0\.1:\d+: Connection refused"):
            await over.completions.complete(ask(), CONTEXT)
        assert len(over.waits) == RetryPolicy().attempts - 1
        assert not any(outcome.lost for _, outcome in over.accounts.settled), "nobody can ask for money"
        await provider.close()


class TestTime:
    @both_ways
    async def test_the_time_limit_holds_and_closes_the_connection(self, peer: Peer, stream: bool):
        peer.server.otherwise = Turn(text="Never comes.", hang_after=0)
        asking = asyncio.create_task(peer.complete(peer.ask(stream=stream, timeout_s=50)))
        await eventually(lambda: peer.server.journal)
        leap(50)
        with pytest.raises(DeadlineExceeded, match="within 50 s"):
            await asking
        await asyncio.wait_for(peer.server.journal[0].gone.wait(), 30)

    @pytest.mark.parametrize(
        ("turn", "timeouts"),
        [
            (Turn(text="Never comes.", hang_after=0), Timeouts(first_token_s=30, between_tokens_s=300)),
            (say("Slow words come late.", hang_after=5), Timeouts(first_token_s=300, between_tokens_s=30)),
        ],
        ids=["before the first", "between two"],
    )
    async def test_a_silent_stream_is_given_up_and_tried_again(self, peer: Peer, turn: Turn, timeouts: Timeouts):
        over = gateway(peer.provider, timeouts=timeouts)
        peer.server.script(turn, say("Quick."))
        asking = asyncio.create_task(over.completions.complete(peer.ask(stream=True, timeout_s=600), CONTEXT))
        await eventually(lambda: peer.server.journal and (over.outbox.deltas or turn.hang_after == 0))
        leap(30)
        answer = await asking
        assert (answer.message.text, answer.attempts) == ("Quick.", 2)
        await asyncio.wait_for(peer.server.journal[0].gone.wait(), 30)

    @both_ways
    async def test_an_abort_closes_the_connection(self, peer: Peer, stream: bool):
        peer.server.script(Turn(text="Never comes.", hang_after=0))
        request = peer.ask(stream=stream)
        asking = asyncio.create_task(peer.complete(request))
        await eventually(lambda: len(peer.server.journal) == 1)
        await peer.gateway.completions.abort("acme", AbortCall(call_id=request.call_id, reason="the run was cancelled"))
        with pytest.raises(Cancelled, match="the run was cancelled"):
            await asking
        await asyncio.wait_for(peer.server.journal[0].gone.wait(), 30)


class TestSecrets:
    async def test_the_key_is_sent_and_never_shown(self, peer: Peer, caplog: pytest.LogCaptureFixture):
        caplog.set_level(logging.INFO)
        peer.server.script(fail(401, message=f"Incorrect API key provided: {CANARY}"), say("Hi."))
        with pytest.raises(ParacleError) as caught:
            await peer.complete(peer.ask())
        await peer.complete(peer.ask())
        assert CANARY in json.dumps(peer.server.journal[0].headers)
        shown = [str(caught.value), json.dumps(caught.value.to_problem()), caplog.text, repr(peer.provider.__dict__)]
        shown += [str(record.__dict__) for record in caplog.records]
        assert not any(CANARY in text for text in shown)
        assert "[redacted]" in caught.value.message


class TestDefaults:
    async def test_a_compatible_server_without_a_named_model_gives_its_first(self):
        async with FakeOpenAI(say("From the first.")) as server:
            provider = openai_like(server.url, name="openai-compatible", key="k-1")
            answer = await gateway(provider).completions.complete(ask(), CONTEXT)
            assert answer.model == "fake-model"
            assert "max_tokens" not in server.journal[0].body
            server.models = ()
            empty = openai_like(server.url, model_source="PARACLE_OPENAI_MODEL")
            with pytest.raises(NotFound, match="PARACLE_OPENAI_MODEL"):
                await empty.default_model()
            await provider.close()
            await empty.close()


class TestConfig:
    async def test_a_key_that_rotates_is_the_one_sent_and_neither_is_shown(self):
        keys = iter(["first-secret", "second-secret"])
        async with FakeOpenAI(fail(400, message="not first-secret, not second-secret")) as server:
            config = ProviderConfig("mine", "openai-chat", server.url, key=lambda: SecretStr(next(keys)))
            provider = create_provider(config)
            with pytest.raises(ProviderFailed):
                await provider.ask("fake-model", ask())
            with pytest.raises(ProviderFailed) as caught:
                await provider.ask("fake-model", ask())
            assert [seen.headers["Authorization"] for seen in server.journal] == [
                "Bearer first-secret",
                "Bearer second-secret",
            ]
            assert "secret" not in caught.value.message
            await provider.close()

    async def test_azure_is_spoken_to_in_its_own_way(self):
        async with FakeOpenAI(say("From Azure.")) as server:
            config = ProviderConfig(
                "azure",
                "openai-chat",
                server.url,
                key=fixed(SecretStr("k-1")),
                key_header=KeyHeader("api-key", ""),
                headers={"x-team": "blue"},
                query={"api-version": "2026-01-01"},
            )
            provider = create_provider(config)
            await provider.ask("gpt/5", ask())
            [seen] = server.journal
            assert seen.path == "/v1/chat/completions?api-version=2026-01-01"
            assert (seen.headers["api-key"], seen.headers["x-team"]) == ("k-1", "blue")
            assert "Authorization" not in seen.headers
            await provider.close()

    async def test_redirects_are_not_followed(self, peer: Peer):
        turn = Turn(status=307, headers=(("Location", f"{peer.server.origin}/elsewhere"),))
        peer.server.script(turn)
        with pytest.raises(ProviderFailed, match="redirects are not followed"):
            await peer.complete(peer.ask())
        assert len(peer.server.journal) == 1

    @pytest.mark.parametrize("name", ["model", "stream", "n", "max_tokens", "max_completion_tokens"])
    async def test_what_is_accounted_for_is_no_parameter(self, peer: Peer, name: str):
        with pytest.raises(InvalidInput, match=f"{name} cannot be a parameter"):
            await peer.complete(peer.ask(sampling=Sampling(params={name: 3})))
        assert peer.server.journal == []
