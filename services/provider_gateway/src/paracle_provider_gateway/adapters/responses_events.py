"""The events of a streamed OpenAI response as stream items. Pure.

Source: the OpenAI API reference, "Streaming events".
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from paracle_domain.inference.deltas import Change, EndDelta, ReasoningDelta, TextDelta, ToolCallDelta
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import FinishReason
from paracle_provider_gateway.adapters.responses_wire import BETWEEN, WireItem, WireState, thought_data
from paracle_provider_gateway.adapters.wire import Place, check, parse_event
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Closing, Piece, StreamItem

_WORDS: Final = frozenset({"response.output_text.delta", "response.refusal.delta"})
_THOUGHTS: Final = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


class WireEvent(BaseModel):
    """A stream event of any type."""

    type: str
    output_index: Place = 0
    summary_index: int = 0
    content_index: int = 0
    delta: str = ""
    item: WireItem | None = None
    response: WireState | None = None


class ResponseReader:
    """Folds stream events into stream items; each item of the output is a part."""

    def __init__(self, request: Complete, origin: Origin) -> None:
        self._request = request
        self._origin = origin
        self._end: WireState | None = None
        self._called = False
        self._refused = False
        self._told = set[int]()
        self._thought: dict[int, tuple[str, int]] = {}
        self.finished = False

    def read(self, data: bytes) -> list[StreamItem]:
        """What an event adds; most hold words alone, which are read without looking at the rest."""
        match parse_event(data, self._origin):
            case {"type": "response.output_text.delta", "output_index": int(index), "delta": str(words)} if index >= 0:
                self._told.add(index)
                return [Piece(index, TextDelta(text=words))]
            case {"type": "error", **about}:
                raise self._origin.from_event({"error": about.get("error") or about})
            case {"error": dict(failure), **about} if "type" not in about:
                raise self._origin.from_event({"error": failure})
            case found:
                event = check(found, WireEvent, self._origin)
                return [Piece(event.output_index, change) for change in self._read(event)]

    def close(self) -> list[StreamItem]:
        """The end of the stream; empty if the provider never said that it had finished."""
        if self._end is None:
            return []
        reason = self._end.finish(self._origin, called=self._called, refused=self._refused)
        if reason is FinishReason.STOP and not self._told:
            raise self._origin.lost("the reply has no output")
        return [Piece(0, EndDelta(finish_reason=reason)), Closing(reason, self._end.used(), self._end.model)]

    def _read(self, event: WireEvent) -> list[Change]:
        """What `event` adds; types that are not known add nothing."""
        if event.type in _ENDS and event.response is not None:
            self._end, self.finished = event.response, True
        elif event.type in _WORDS:
            self._told.add(event.output_index)
            self._refused |= event.type == "response.refusal.delta"
            return [TextDelta(text=event.delta)]
        elif event.type in _THOUGHTS:
            return [self._thinks(event)]
        elif event.type == "response.function_call_arguments.delta":
            self._told.add(event.output_index)
            return [ToolCallDelta(arguments=event.delta)]
        elif event.item is not None:
            return self._item(event.type, event.output_index, event.item)
        return []

    def _thinks(self, event: WireEvent) -> Change:
        """More of a thought; its texts are apart."""
        self._told.add(event.output_index)
        place = (event.type, event.summary_index + event.content_index)
        before = self._thought.get(event.output_index, place)
        self._thought[event.output_index] = place
        return ReasoningDelta(text=event.delta if before == place else BETWEEN + event.delta)

    def _item(self, event: str, index: int, item: WireItem) -> list[Change]:
        match event, item.type:
            case "response.output_item.added", "function_call":
                self._called = True
                identity = item.call_id or f"{self._request.call_id}.{index}"
                return [ToolCallDelta(id=identity, name=item.name)]
            case "response.output_item.done", "function_call":
                return [ToolCallDelta(arguments=item.arguments)] if item.arguments and self._untold(index) else []
            case "response.output_item.done", "message":
                self._refused |= item.refused
                return [TextDelta(text=item.words)] if item.words and self._untold(index) else []
            case "response.output_item.done", "reasoning":
                text = BETWEEN.join(each.text for each in item.thoughts) if self._untold(index) else ""
                return [ReasoningDelta(text=text, provider=self._origin.provider, data=thought_data(item))]
            case _:
                return []

    def _untold(self, index: int) -> bool:
        """Whether nothing of the item came in pieces: some servers send it whole, at its end."""
        untold = index not in self._told
        self._told.add(index)
        return untold
