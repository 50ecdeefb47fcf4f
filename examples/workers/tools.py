"""Two functions as tools: `python tools.py manifests` prints what `paracle apply` takes, `python tools.py` answers."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated

from pydantic import BaseModel, Field

from paracle_client.worker import ToolCall, ToolFailed, Worker

worker = Worker()
issued: dict[str, str] = {}


class Word(BaseModel):
    """A word and how often it came."""

    word: str
    times: int


@worker.tool(effect="none", timeout_s=10)
def frequent_words(text: str, most: Annotated[int, Field(ge=1, le=100)] = 3) -> list[Word]:
    """The most frequent words of a text."""
    counted = Counter(re.findall(r"\w+", text.lower()))
    return [Word(word=word, times=times) for word, times in counted.most_common(most)]


@worker.tool(effect="idempotent", timeout_s=10)
async def issue_ticket(title: str, call: ToolCall) -> str:
    """Open a ticket, and give its number."""
    if not title.strip():
        raise ToolFailed("a ticket needs a title")
    # The same key is the same call, asked again: it gets the same ticket.
    return issued.setdefault(call.key or "", f"T-{len(issued) + 1}")


if __name__ == "__main__":
    worker.main()
