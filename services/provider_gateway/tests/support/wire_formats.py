"""What each API says on the wire, byte by byte: good replies, and the same with something wrong in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raw_peer import chunk, head, response, stream_head

from paracle_chassis.testing.fake_anthropic import FakeAnthropic
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Turn, WireServer
from paracle_provider_gateway.adapters.config import Api


@dataclass(frozen=True)
class Format:
    """One API. `filtered` and `cut_short` are its words for why it stopped."""

    api: Api
    fake: Callable[[], WireServer]
    asked: dict[str, Any]
    filtered: str
    error: Callable[[str, str], Any]

    def whole(self, turn: Turn) -> bytes:
        """The body of a reply."""
        return json.dumps(self.fake().whole(turn, self.asked)).encode()

    def events(self, turn: Turn) -> list[bytes]:
        """The events of a streamed one."""
        return [f"{event}\n\n".encode() for event in self.fake().events(turn, self.asked)]

    def reply(self, turn: Turn, *, stream: bool) -> bytes:
        """A response with nothing wrong about it."""
        return self.streamed(self.events(turn)) + chunk(b"") if stream else response(self.whole(turn))

    def streamed(self, events: list[bytes]) -> bytes:
        """A response with these events, up to its end."""
        return stream_head() + b"".join(chunk(event) for event in events)

    def cut(self, turn: Turn, *, stream: bool, share: float = 0.5) -> bytes:
        """The first part of a response that promises more."""
        if stream:
            events = self.events(turn)
            return self.streamed(events[: max(1, int(len(events) * share))])
        body = self.whole(turn)
        return head("application/json", headers=(f"Content-Length: {len(body)}",)) + body[: int(len(body) * share)]


def _openai_error(code: str, message: str) -> Any:
    return {"error": {"message": message, "type": code, "code": code}}


def _anthropic_error(code: str, message: str) -> Any:
    return {"type": "error", "error": {"type": code, "message": message}}


_ASKED = {"model": "m", "stream_options": {"include_usage": True}}
FORMATS = {
    "chat": Format("openai-chat", FakeOpenAI, _ASKED, "content_filter", _openai_error),
    "responses": Format("openai-responses", FakeOpenAI, _ASKED | {"input": []}, "content_filter", _openai_error),
    "anthropic": Format("anthropic", FakeAnthropic, _ASKED, "refusal", _anthropic_error),
}
