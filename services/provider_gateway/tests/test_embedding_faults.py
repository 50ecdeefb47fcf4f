"""What goes wrong between a provider and us when it is asked for embeddings, over real sockets and both transports."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from provider_gateway_samples import CANARY, CONTEXT, embed, gateway, openai_like
from raw_peer import Act, chunk, head, raw_peer, response

from paracle_chassis.testing.eventually import eventually, leap
from paracle_domain.errors import (
    DeadlineExceeded,
    ParacleError,
    ProviderFailed,
    ProviderUnavailable,
    RateLimited,
)
from paracle_domain.inference.embedding import Embeddings, pack
from paracle_provider_gateway.adapters.config import TransportName
from paracle_provider_gateway.retries import RetryPolicy

TIME_S, NOBODY_WAITS_S = 50, 30


def told(*vectors: Any, places: Sequence[int | None] | None = None, **more: Any) -> bytes:
    """The body of an answer."""
    order = range(len(vectors)) if places is None else places
    data = [{"object": "embedding", "index": at, "embedding": one} for at, one in zip(order, vectors, strict=True)]
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    return json.dumps({"object": "list", "model": "m", "data": data, "usage": usage} | more).encode()


ONE, TWO = [1.0, 0.0], [0.0, 1.0]
GOOD = told(ONE, TWO)
DRIP: tuple[Act, ...] = (
    head("application/json", headers=(f"Content-Length: {len(GOOD)}",)),
    *(act for place in range(len(GOOD)) for act in (GOOD[place : place + 1], 0.2)),
)
FAULTS: dict[str, tuple[tuple[Act, ...], type[ParacleError]]] = {
    "429": ((response(b"{}", status=429, headers=["Retry-After: 7"]),), RateLimited),
    "500": ((response(b"{}", status=500),), ProviderUnavailable),
    "400": ((response(b'{"error": {"message": "no"}}', status=400),), ProviderFailed),
    "refusal of 10 MB": ((response(b"no " * 3_500_000, "text/plain", status=500),), ProviderUnavailable),
    "reset at once": (("reset",), ProviderUnavailable),
    "reset in the middle": ((response(GOOD)[:-20], "reset"), ProviderUnavailable),
    "end in the middle": ((response(GOOD)[:-20], "end"), ProviderUnavailable),
    "truncated JSON": ((response(GOOD[:-5]),), ProviderUnavailable),
    "a web page": ((response(b"<html>Welcome</html>", "text/html"),), ProviderFailed),
    "JSON of another shape": ((response(b'{"embeddings": [[1, 0], [0, 1]]}'),), ProviderFailed),
    "an error with status 200": ((response(b'{"error": {"code": "500", "message": "busy"}}'),), ProviderUnavailable),
    "33 MiB": (
        (head("application/json", headers=("Transfer-Encoding: chunked",)), *[chunk(b" " * 2**20)] * 33, "hang"),
        ProviderFailed,
    ),
    "a slow drip": (DRIP, DeadlineExceeded),
    "silence": (("hang",), DeadlineExceeded),
    "one vector too few": ((response(told(ONE)),), ProviderFailed),
    "one vector too many": ((response(told(ONE, TWO, ONE)),), ProviderFailed),
    "none": ((response(told()),), ProviderFailed),
    "the same place twice": ((response(told(ONE, TWO, places=[0, 0])),), ProviderFailed),
    "places that are not there": ((response(told(ONE, TWO, places=[1, 2])),), ProviderFailed),
    "a place for one alone": ((response(told(ONE, TWO, places=[0, None])),), ProviderFailed),
    "vectors of different lengths": ((response(told(ONE, [1.0])),), ProviderFailed),
    "vectors without numbers": ((response(told([], [])),), ProviderFailed),
    "no vector": ((response(told(ONE, None)),), ProviderFailed),
    "NaN": ((response(told(ONE, [float("nan"), 1.0])),), ProviderFailed),
    "infinity": ((response(told(ONE, [float("inf"), 1.0])),), ProviderFailed),
    "too large": ((response(told(ONE, [1e300, 1.0])),), ProviderFailed),
    "what is not base64": ((response(told("AAAA", "!")),), ProviderFailed),
    "half a number": ((response(told(base64.b64encode(b"12345").decode(), "AAAA")),), ProviderFailed),
    "NaN as base64": ((response(told(pack(ONE), base64.b64encode(b"\0\0\xc0\x7f" * 2).decode())),), ProviderFailed),
}
ODD: dict[str, bytes] = {
    "in another order": told(TWO, ONE, places=[1, 0]),
    "without places": told(ONE, TWO, places=[None, None]),
    "as base64": told(pack(ONE), pack(TWO)),
    "in both forms": told(ONE, pack(TWO)),
    "without usage": told(ONE, TWO, usage=None),
    "10 MB": told(ONE, TWO, filler="x" * 10_000_000),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_has_its_outcome(name: str, transport: TransportName):
    acts, error = FAULTS[name]
    with pytest.raises(error) as failed:
        await outcome(acts, transport, in_time=error is not DeadlineExceeded)
    assert failed.value.code == error.code, "no subclass with another meaning"
    assert CANARY not in str(failed.value)
    assert failed.value.retry_after_s == (7 if name == "429" else None)


@pytest.mark.parametrize("name", ODD)
async def test_what_can_be_read_is(name: str, transport: TransportName):
    answer = await outcome((response(ODD[name]),), transport)
    assert answer.numbers == [(1, 0), (0, 1)]
    assert answer.usage.cost_usd is None, "nobody knows its price"


async def outcome(acts: tuple[Act, ...], transport: TransportName, *, in_time: bool = True) -> Embeddings:
    async with raw_peer() as raw:
        raw.script(*acts)
        provider = openai_like(raw.url, name="peer", key=CANARY, transport=transport)
        over = gateway(provider, retry=RetryPolicy(attempts=1))
        try:
            request = embed("one", "two", model="peer/m", timeout_s=TIME_S)
            asking = asyncio.create_task(over.completions.embed(request, CONTEXT))
            await eventually(lambda: raw.requests)
            if not in_time:
                leap(TIME_S)
            return await asyncio.wait_for(asking, NOBODY_WAITS_S)
        finally:
            await provider.close()
            assert len(raw.requests) == 1
