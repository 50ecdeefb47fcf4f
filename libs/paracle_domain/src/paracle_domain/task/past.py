"""What a turn of a session begins with: what was said before it, or a summary of that and what came after.

The messages of all turns are kept as they were said. A `Recap` changes none of them: it says from where on models are
told them word by word, and what they are told instead of those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import Field

from paracle_domain.inference.chat import ChatMessage
from paracle_domain.messages import Value

_REQUEST: Final = "Sum up what we said before this."
SUMMED_UP: Final = 2
"""How many messages a summary is: somebody asks for it, and the model gives it, so that speakers still take turns."""


def summed_up(summary: str) -> tuple[ChatMessage, ...]:
    """A summary as models are told it."""
    return (ChatMessage.user(_REQUEST), ChatMessage.assistant(summary))


class Recap(Value):
    """A summary that models are told instead of the turns before number `turn`; nothing of those is lost.

    Of that turn itself, it may stand for what an agent did on the way: then models are told the message number
    `question` of the turn (counted from 0), and those from number `resume` on.
    """

    summary: str
    turn: int = Field(ge=1)
    question: int = Field(default=0, ge=0)
    resume: int = Field(default=0, ge=0)
    made_in: int = Field(ge=1, description="the turn in which it was made")
    made_at: datetime | None = None
    model: str = Field(default="", description="provider/model that wrote it")


@dataclass(frozen=True, slots=True)
class Summed:
    """A summary within a task: the model is told `text` instead of the messages before number `upto`."""

    upto: int
    text: str
    model: str


@dataclass(frozen=True, slots=True)
class KeptTurn:
    """A turn as it was kept. `tokens`: how long the provider counted the conversation to be at its end."""

    number: int
    messages: Sequence[ChatMessage]
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What was said before turn `turn`, as its model is told.

    `starts` says where in `messages` each earlier turn begins, by number. `summary` counts the messages at the
    beginning that are a summary. `tokens` is how long the provider counted all of it to be, with all else that an agent
    is told, if it did.
    """

    turn: int = 1
    messages: tuple[ChatMessage, ...] = ()
    starts: tuple[tuple[int, int], ...] = ()
    summary: int = 0
    tokens: int | None = None

    def recap(self, summed: Summed, asked: int) -> Recap:
        """What `summed`, made in this turn, whose question is message `asked`, stands for in the session."""
        fields: dict[str, int] = {"turn": next((turn for at, turn in self.starts if at == summed.upto), self.turn)}
        own = len(self.messages)
        if summed.upto > own:
            fields |= {"question": asked - own, "resume": summed.upto - own}
        return Recap(summary=summed.text, made_in=self.turn, model=summed.model, **fields)


NO_PAST: Final = Past()
"""That of a task which is no turn, or the first one."""


def remembered(turn: int, turns: Sequence[KeptTurn], recap: Recap | None) -> Past:
    """What turn number `turn` begins with, after `turns`. Those that `recap` stands for need not be among them."""
    messages = summed_up(recap.summary) if recap is not None else ()
    summary, starts, tokens = len(messages), list[tuple[int, int]](), None
    for kept in turns:
        told = _told(kept, recap)
        if not told:
            continue
        starts.append((len(messages), kept.number))
        messages += told
        tokens = kept.tokens if recap is None or kept.number >= recap.made_in else None
    return Past(turn, messages, tuple(starts), summary, tokens)


def _told(kept: KeptTurn, recap: Recap | None) -> tuple[ChatMessage, ...]:
    said = tuple(kept.messages)
    if recap is None or kept.number > recap.turn:
        return said
    if kept.number < recap.turn:
        return ()
    question = said[recap.question : recap.question + 1] if recap.question < recap.resume else ()
    return question + said[recap.resume :]
