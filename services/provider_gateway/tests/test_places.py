"""Which part of a reply a provider says that something belongs to: it may be anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from provider_gateway_samples import ask

from paracle_domain.errors import ProviderFailed
from paracle_provider_gateway.adapters.anthropic_wire import MessageReader
from paracle_provider_gateway.adapters.openai_wire import ChunkReader
from paracle_provider_gateway.adapters.responses_events import ResponseReader
from paracle_provider_gateway.adapters.wire import EventReader
from paracle_provider_gateway.faults import Origin

ORIGIN = Origin("somewhere", "SOME_KEY")
CALL = {"function": {"name": "f", "arguments": ""}}
PIECES: list[tuple[Callable[[], EventReader], dict[str, Any]]] = [
    (lambda: ChunkReader(ask(), ORIGIN), {"choices": [{"delta": {"tool_calls": [CALL | {"index": -3}]}}]}),
    (lambda: ResponseReader(ask(), ORIGIN), {"type": "response.output_text.delta", "output_index": -1, "delta": "a"}),
    (
        lambda: MessageReader(ORIGIN),
        {"type": "content_block_delta", "index": -1, "delta": {"type": "text_delta", "text": "a"}},
    ),
]


@pytest.mark.parametrize(("reader", "event"), PIECES, ids=["chat", "responses", "anthropic"])
def test_a_part_that_cannot_be_is_the_providers_fault(reader: Callable[[], EventReader], event: dict[str, Any]) -> None:
    with pytest.raises(ProviderFailed, match="does not follow the protocol at"):
        list(reader().read(json.dumps(event).encode()))
