"""What OpenAI's Embeddings API answers on the wire.

Source: the OpenAI API reference, "Embeddings".
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any, Final

from paracle_chassis.testing.wire import Turn

LENGTH: Final = 8


def vector_of(text: str, length: int = LENGTH) -> list[float]:
    """Some numbers that are the same for the same text; exact in single precision."""
    data = hashlib.shake_128(text.encode()).digest(length)
    return [byte / 128 - 1 for byte in data]


def whole(turn: Turn, request: Any) -> Any:
    """The body of an answer."""
    length = request.get("dimensions") or request.get("output_dimension") or LENGTH
    vectors = [vector_of(text, length) for text in request["input"]]
    as_text = request.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_text else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": turn.input_tokens, "total_tokens": turn.input_tokens}
    return {"object": "list", "data": data, "model": request["model"], "usage": usage}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
