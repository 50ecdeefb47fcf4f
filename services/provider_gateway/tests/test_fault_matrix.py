"""Everything that goes wrong between a provider and us, over real sockets: of every API, whole and streamed, over
both transports. Each fault has its right outcome; none is a success, and none makes anybody wait.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from provider_gateway_samples import CONTEXT, SEARCH, TASK, Gateway, ask, gateway
from pydantic import SecretStr
from raw_peer import Act, RawPeer, chunk, head, raw_peer, response, stream_head
from wire_formats import FORMATS, Format

from paracle_chassis.testing.wire import ToolUse, Turn, say
from paracle_domain.errors import (
    ContentRefused,
    ContextExceeded,
    DeadlineExceeded,
    ParacleError,
    ProviderFailed,
    ProviderUnavailable,
    RateLimited,
)
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion, FinishReason
from paracle_provider_gateway.adapters.config import ProviderConfig, TransportName, fixed
from paracle_provider_gateway.adapters.create import create_provider
from paracle_provider_gateway.plans import Timeouts
from paracle_provider_gateway.retries import RetryPolicy

HELLO = say("Good morning to all of you.")
LONG = say("x" * 10_000_000)
CALL = '{"q": "cats"}'
NOBODY_WAITS_S = 30


@dataclass(frozen=True)
class Fault:
    """What is sent, and what comes of it: an error, or a reply that `check` looks at.

    What is `slow` ends when the stream was silent for too long or, if it comes whole, when the call's time is over.
    """

    acts: Callable[[Format, bool], tuple[Act, ...]]
    error: type[ParacleError] | None = None
    check: Callable[[Completion], bool] = lambda _: False
    slow: bool = False
    retry_after_s: float | None = None


def status(number: int, *, code: str = "some_error", message: str = "as scripted", **headers: str) -> Fault:
    """An HTTP error."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    kinds = {429: RateLimited, 500: ProviderUnavailable, 503: ProviderUnavailable, 529: ProviderUnavailable}
    return Fault(
        lambda api, _: (response(json.dumps(api.error(code, message)).encode(), status=number, headers=lines),),
        kinds.get(number, ProviderFailed),
        retry_after_s=float(headers["Retry_After"]) if "Retry_After" in headers else None,
    )


def tools(arguments: str, name: str = "search") -> Turn:
    return Turn(tools=(ToolUse(name, arguments, "id-1"),))


def odd_arguments(api: Format, stream: bool) -> tuple[Act, ...]:
    """Arguments that are no JSON; in a whole reply of Anthropic, they are JSON of another kind."""
    if api.api == "anthropic" and not stream:
        return (response(api.whole(tools(CALL)).replace(CALL.encode(), b'"cats"')),)
    return (api.reply(tools('{"q": "cats'), stream=stream),)


def empty_choice(api: Format, stream: bool) -> tuple[Act, ...]:
    """A choice, or its like, with nothing in it, not even why it ended."""
    bodies = {
        "openai-chat": {"model": "m", "choices": [{"index": 0}]},
        "openai-responses": {"model": "m", "status": "in_progress", "output": []},
        "anthropic": {"model": "m", "type": "message", "content": [], "stop_reason": None},
    }
    if stream:
        return (api.streamed(api.events(Turn(no_choices=True))[:1]) + chunk(b""),)
    return (response(json.dumps(bodies[api.api]).encode()),)


def error_event(code: str) -> Callable[[Format, bool], tuple[Act, ...]]:
    """An error in the middle of a stream, or as a good answer's body."""

    def acts(api: Format, stream: bool) -> tuple[Act, ...]:
        told = api.error(code, "in the middle")
        if not stream:
            return (response(json.dumps(told).encode()),)
        half = api.events(HELLO)[:4]
        return (api.streamed(half) + chunk(b"data: " + json.dumps(told).encode() + b"\n\n") + chunk(b""),)

    return acts


def drip(api: Format, stream: bool) -> tuple[Act, ...]:
    """Each piece comes, and never soon enough."""
    if stream:
        return (stream_head(), *(act for event in api.events(HELLO) for act in (chunk(event), 5.0)))
    body = api.whole(HELLO)
    start = head("application/json", headers=(f"Content-Length: {len(body)}",))
    return (start, *(act for place in range(len(body)) for act in (body[place : place + 1], 0.2)))


def endless(api: Format, stream: bool) -> tuple[Act, ...]:
    """More than anybody can bear, and then silence."""
    start = stream_head() if stream else head("application/json", headers=("Transfer-Encoding: chunked",))
    return (start, *[chunk(b"x" * 2**20)] * 33, "hang")


FAULTS: dict[str, Fault] = {
    "429": status(429, code="rate_limit_exceeded", Retry_After="7"),
    "429 without a time": status(429),
    "429 without quota": Fault(status(429, code="insufficient_quota").acts, ProviderFailed),
    "500": status(500),
    "503": status(503, Retry_After="2"),
    "529": status(529, code="overloaded_error"),
    "400": status(400),
    "401": status(401),
    "too long": Fault(status(400, code="context_length_exceeded").acts, ContextExceeded),
    "filtered prompt": Fault(status(400, code="content_filter").acts, ContentRefused),
    "refusal of 10 MB": Fault(
        lambda _, __: (response(b"no " * 3_500_000, "text/plain", status=500),), ProviderUnavailable
    ),
    "reset at once": Fault(lambda _, __: ("reset",), ProviderUnavailable),
    "end at once": Fault(lambda _, __: ("end",), ProviderUnavailable),
    "reset within the head": Fault(lambda _, __: (b"HTTP/1.1 200 OK\r\nContent-Ty", "reset"), ProviderUnavailable),
    "reset in the middle": Fault(lambda api, s: (api.cut(HELLO, stream=s), "reset"), ProviderUnavailable),
    "end in the middle": Fault(lambda api, s: (api.cut(HELLO, stream=s), "end"), ProviderUnavailable),
    "reset before the last word": Fault(
        lambda api, s: (api.cut(HELLO, stream=s, share=0.7), "reset"), ProviderUnavailable
    ),
    "no HTTP": Fault(lambda _, __: (b"220 mail.example ESMTP\r\n\r\n", "end"), ProviderUnavailable),
    "truncated JSON": Fault(
        lambda api, s: (
            (api.streamed([b'data: {"model": "m", "ch\n\n']) + chunk(b""),)
            if s
            else (response(api.whole(HELLO)[:-20]),)
        ),
        ProviderUnavailable,
    ),
    "a stream without its end": Fault(
        lambda api, s: (
            (api.streamed(api.events(HELLO)[:-3]) + chunk(b""),) if s else (response(api.whole(HELLO)[:-1]),)
        ),
        ProviderUnavailable,
    ),
    "a web page": Fault(lambda _, __: (response(b"<html>Welcome</html>", "text/html"),), ProviderFailed),
    "the other content type": Fault(lambda api, s: (api.reply(HELLO, stream=not s),), ProviderFailed),
    "no content": Fault(lambda _, __: (b"HTTP/1.1 204 No Content\r\n\r\n",), ProviderFailed),
    "JSON of another shape": Fault(
        lambda _, s: (
            (stream_head(), chunk(b"data: [1]\n\n"), chunk(b"")) if s else (response(b'{"choices": 1, "output": 2}'),)
        ),
        ProviderFailed,
    ),
    "a slow drip": Fault(drip, slow=True),
    "silence": Fault(lambda _, __: ("hang",), slow=True),
    "silence after the head": Fault(
        lambda _, s: (stream_head() if s else head("application/json", headers=("Content-Length: 9",)), "hang"),
        slow=True,
    ),
    "10 MB": Fault(
        lambda api, s: (long_stream(api) if s else api.reply(LONG, stream=False),),
        check=lambda c: len(c.message.text) == 10_000_000,
    ),
    "33 MiB": Fault(endless, ProviderFailed),
    "invalid tool arguments": Fault(
        odd_arguments, check=lambda c: [(t.arguments, bool(t.invalid)) for t in c.message.tool_calls] == [({}, True)]
    ),
    "unknown tool name": Fault(
        lambda api, s: (api.reply(tools(CALL, "no_such_tool"), stream=s),),
        check=lambda c: (
            c.finish_reason is FinishReason.TOOL_CALLS
            and [(t.name, t.arguments) for t in c.message.tool_calls] == [("no_such_tool", {"q": "cats"})]
        ),
    ),
    "no choices": Fault(lambda api, s: (api.reply(Turn(no_choices=True), stream=s),), ProviderUnavailable),
    "empty choice": Fault(empty_choice, ProviderUnavailable),
    "content filter": Fault(
        lambda api, s: (api.reply(say("I cannot say th", finish=api.filtered), stream=s),), ContentRefused
    ),
    "an error as an event": Fault(error_event("server_error"), ProviderUnavailable),
    "a refusal as an event": Fault(error_event("invalid_request_error"), ProviderFailed),
    "a filter as an event": Fault(error_event("content_filter"), ContentRefused),
    "nothing wrong": Fault(lambda api, s: (api.reply(HELLO, stream=s),), check=lambda c: c.message.text == HELLO.text),
}


def long_stream(api: Format) -> bytes:
    """Ten million characters in pieces of ten thousand, as no fake of ours cuts them."""
    events = api.events(say("WORD"))
    piece = events.index(next(event for event in events if b"WORD" in event and b"delta" in event))
    many = [events[piece].replace(b"WORD", b"x" * 10_000)] * 1_000
    return api.streamed([*events[:piece], *many, *events[piece + 1 :]]) + chunk(b"")


@asynccontextmanager
async def asked_once(raw: RawPeer, api: Format, transport: TransportName, patience_s: float) -> AsyncIterator[Gateway]:
    """A gateway that asks the peer once, and waits so long for each piece."""
    key = fixed(SecretStr("sk-canary-1234567"))
    provider = create_provider(ProviderConfig("peer", api.api, raw.url, key=key, transport=transport))
    timeouts = Timeouts(first_token_s=patience_s, between_tokens_s=patience_s)
    try:
        yield gateway(provider, timeouts=timeouts, retry=RetryPolicy(attempts=1))
    finally:
        await provider.close()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_each_fault_has_its_outcome(fault: Fault, transport: TransportName) -> None:
    kinds = [(name, stream) for name in FORMATS for stream in (False, True)]
    wrong = await asyncio.gather(*(_wrong(fault, FORMATS[name], transport, stream) for name, stream in kinds))
    assert {kind: what for kind, what in zip(kinds, wrong, strict=True) if what} == {}


async def _wrong(fault: Fault, api: Format, transport: TransportName, stream: bool) -> str | None:
    """What is wrong about what became of `fault`; `None` if it is what it should be."""
    times, outcome = await _asked(fault, api, transport, stream, 1.0 if fault.slow else 20.0)
    if not times:  # its time was over before the peer had the request: the machine is busy
        times, outcome = await _asked(fault, api, transport, stream, 20.0)
    if times != 1:
        return f"asked {times} times"
    if isinstance(outcome, Completion):
        return None if fault.check(outcome) else f"a success: {outcome!r:.300}"
    wanted = (ProviderUnavailable if stream else DeadlineExceeded) if fault.slow else fault.error
    if wanted is None or outcome.code != wanted.code or outcome.retry_after_s != fault.retry_after_s:
        return repr(outcome)
    return str(outcome) if "canary" in str(outcome) else None


async def _asked(
    fault: Fault, api: Format, transport: TransportName, stream: bool, patience_s: float
) -> tuple[int, Completion | ParacleError]:
    """How often the peer was asked, by a call that has so long for each piece, or for all, and what came of it."""
    timeout_s = 20.0 if stream else patience_s
    request = ask(model="peer/m", tools=(SEARCH,), timeout_s=timeout_s, stream_to=TASK if stream else None)
    async with raw_peer() as raw:
        raw.script(*fault.acts(api, stream))
        async with asked_once(raw, api, transport, patience_s) as over:
            outcome = await asyncio.wait_for(_outcome(over, request), NOBODY_WAITS_S)
    return len(raw.requests), outcome


async def _outcome(over: Gateway, request: Complete) -> Completion | ParacleError:
    try:
        return await over.completions.complete(request, CONTEXT)
    except ParacleError as error:
        return error
