"""Functions as tools: `python tools.py manifests` prints what `paracle apply` takes, `python tools.py` answers."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from paracle_client.worker import ToolCall, ToolFailed, Worker

worker = Worker()
issued: dict[str, str] = {}
letters = Path("letters")


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


@worker.tool(effect="at_most_once", timeout_s=10, probe="find_letter")
def send_letter(to: str, text: str, call: ToolCall) -> str:
    """Send a letter, and give its number."""
    letters.mkdir(exist_ok=True)
    with (letters / f"{call.key}.txt").open("x", encoding="utf-8") as letter:
        letter.write(f"To {to}\n\n{text}\n")
    return str(call.key)


@worker.tool(effect="none", timeout_s=10)
def find_letter(idempotency_key: str) -> dict[str, Any]:
    """Whether the letter of a call was sent: that of a call whose answer was lost, say."""
    sent = (letters / f"{idempotency_key}.txt").exists()
    return {"outcome": "done", "output": idempotency_key} if sent else {"outcome": "not_done"}


if __name__ == "__main__":
    worker.main()
