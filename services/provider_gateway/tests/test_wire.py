"""Reading bodies: any way to cut them gives the same, and none can take the memory of all."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_gateway_samples import ask
from pydantic import BaseModel

from paracle_domain.errors import ProviderFailed
from paracle_provider_gateway.adapters import wire
from paracle_provider_gateway.adapters.openai_wire import ChunkReader
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.sandbox.rules import answer

ORIGIN = Origin("somewhere", "SOME_KEY")


class Chunks:
    """A response that arrives in `chunks`."""

    def __init__(self, kind: str, chunks: list[bytes]) -> None:
        self._kind = kind
        self._chunks = chunks

    @property
    def headers(self) -> Mapping[str, str]:
        return {"content-type": self._kind}

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(text) + 1) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(
    st.lists(st.text(max_size=8), min_size=1, max_size=5),
    st.lists(st.integers(0, 500)),
    st.sampled_from(["\n", "\r\n"]),
)
def test_events_are_the_same_however_the_stream_is_cut(texts: list[str], places: list[int], end: str) -> None:
    said = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    stream = "".join(f"event: x{end}data: {each}{end}: comment{end}{end}" for each in said)
    events = wire.EventSplitter()
    found = [data for chunk in cut(stream.encode("utf-8", "replace"), places) for data in events.feed(chunk)]
    assert found == [each.encode("utf-8", "replace") for each in said]


def test_line_separators_within_data_end_no_line() -> None:
    data = '"a\u2028b\x85c"'.encode()
    assert wire.EventSplitter().feed(b"data: " + data + b"\n\n") == [data]


class Anything(BaseModel):
    """Any object."""


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_reply_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    monkeypatch.setattr(wire, "MAX_REPLY_BYTES", 1_000)
    body = Chunks("text/event-stream" if streamed else "application/json", [b"a" * 300] * 1_000)
    read = (
        anext(wire.read_stream(body, ChunkReader(ask(), ORIGIN), ORIGIN))
        if streamed
        else wire.read_json(body, Anything, ORIGIN)
    )
    with pytest.raises(ProviderFailed, match="larger than 1,000 bytes"):
        await read


@pytest.mark.parametrize(("length", "apart"), [(1_000, False), (60_000, True)])
async def test_long_work_of_the_sandbox_leaves_the_event_loop_free(
    monkeypatch: pytest.MonkeyPatch, length: int, apart: bool
) -> None:
    threads = list[int]()

    def noted(*arguments: object) -> object:
        threads.append(threading.get_ident())
        return answer(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("paracle_provider_gateway.adapters.sandbox.answer", noted)
    await asyncio.wait_for(SandboxProvider().ask("rules", ask("a " * (length // 2))), 30)
    assert (threads[0] != threading.get_ident()) is apart
