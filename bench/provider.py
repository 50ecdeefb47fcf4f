"""A provider of models that answers at once: `python provider.py`, which says where it listens.

It is there to be called, not to be measured: its answers are made before anybody asks, and a request is looked at only
for where it ends and whether it wants a stream (of 50 pieces).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, cast, override

import uvloop

PIECES: Final = 50
TEXT: Final = "".join(f"piece {number:02} of it " for number in range(PIECES))
MODEL: Final = "instant"
_USAGE: Final = {"prompt_tokens": 120, "completion_tokens": 80, "total_tokens": 200}
_END: Final = b"\r\n\r\n"
_BACKLOG: Final = 4_096
"""Connections that may come at once. The first packet of one too many is dropped, and sent anew a second later."""
_NAMED: Final = {"id": "chatcmpl-instant", "created": 1_700_000_000, "model": MODEL}


def _whole() -> bytes:
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps(_NAMED | {"object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _streamed() -> list[bytes]:
    """The head, an event for each piece, the end: each is written on its own."""
    size = len(TEXT) // PIECES
    pieces = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({"choices": [], "usage": _USAGE})
    texts = [json.dumps(_NAMED | {"object": "chat.completion.chunk"} | chunk) for chunk in chunks] + ["[DONE]"]
    events = [f"data: {text}\n\n".encode() for text in texts]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]


WHOLE: Final = _whole()
STREAMED: Final = _streamed()


class Answering(asyncio.Protocol):
    """One connection, kept open."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._came = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    @override
    def data_received(self, data: bytes) -> None:
        self._came += data
        while (end := self._came.find(_END)) >= 0:
            stop = end + len(_END) + _length(self._came[:end])
            if len(self._came) < stop:
                return
            request, self._came = self._came[:stop], self._came[stop:]
            self._answer(b'"stream":true' in request or b'"stream": true' in request)

    def _answer(self, streamed: bool) -> None:  # noqa: FBT001  # two kinds of answer are all there is
        assert self._transport is not None
        if not streamed:
            self._transport.write(WHOLE)
            return
        for part in STREAMED:
            self._transport.write(part)


def _length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=_BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
