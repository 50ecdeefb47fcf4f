"""Dead letters: messages that could not be handled, where they are looked at, and what can be done about them.

A dead letter is the message as it was, with headers that say what became of it (`DEAD_…`). It is redriven (published
again where it was published first) or dropped (given up, with a reason); either is kept in the audit log as the one
event of the entity `dead_letter` with its id.
"""

from __future__ import annotations

from typing import Final

from pydantic import AwareDatetime, Field

from paracle_domain.ids import DeadLetterId, RunId, id_from_key
from paracle_domain.messages import Message, Moment, Plain, Request, Value

DEAD_SUBJECT: Final = "paracle-dead-subject"
"""The subject that it was published on."""
DEAD_STREAM: Final = "paracle-dead-stream"
DEAD_SEQ: Final = "paracle-dead-seq"
DEAD_CONSUMER: Final = "paracle-dead-consumer"
DEAD_CODE: Final = "paracle-dead-code"
DEAD_REASON: Final = "paracle-dead-reason"
DEAD_TRIES: Final = "paracle-dead-tries"
DEAD_ID: Final = "paracle-dead-id"
"""The id that it had as a message."""
DEAD_TOLD: Final = "paracle-dead-told"
"""Its run was told of the failure in another way, so it does not wait for this message."""
DEAD_AGAIN: Final = "paracle-dead-again"
"""It was a dead letter already when it could not be handled; it does not become one once more."""
DEAD_PREFIX: Final = "paracle-dead-"
REDRIVEN_FROM: Final = "paracle-redriven-from"
"""On a message that was redriven: the dead letter that it was."""

SHOWN_BYTES: Final = 1024 * 1024


class DeadLetter(Value):
    """A message that could not be handled, and why.

    `service` is the one that could not; `subject`, where it was published (unknown if somebody put it there by hand),
    `message_id`, `type` and `principal` are those of the message. `at` is when it was given up, `tries` how often it
    had been delivered by then. `redriven_from` is the dead letter that it was before, if it is not its first time.
    """

    id: DeadLetterId
    service: str
    code: str
    reason: str
    subject: str | None = None
    type: str
    message_id: str
    principal: str
    run_id: RunId | None = None
    stream: str | None = None
    stream_seq: int | None = None
    tries: int = 0
    size: int = 0
    at: AwareDatetime
    redriven_from: DeadLetterId | None = None


class DeadLetterPage(Message, type_name="dead_letter.page"):
    """Dead letters, newest first; `next_cursor` asks for the page after it."""

    letters: tuple[DeadLetter, ...]
    next_cursor: str | None = None


class DeadLetterView(Message, type_name="dead_letter.view"):
    """One dead letter, whole: with the headers that it came with, and its body.

    A body is `text` if it is UTF-8, `base64` otherwise; of one above a mebibyte, that is only its beginning.
    """

    letter: DeadLetter
    headers: dict[str, str] = {}
    text: str | None = None
    base64: str | None = None
    truncated: bool = False


class DeadLetterFilter(Value):
    """Which dead letters: those that all given fields fit. `since` is included, `until` is not."""

    service: Plain | None = Field(default=None, max_length=64)
    code: Plain | None = Field(default=None, max_length=64)
    run_id: RunId | None = None
    since: Moment | None = None
    until: Moment | None = None


class Refusal(Value):
    """A dead letter that was left as it is, and why."""

    id: DeadLetterId
    message: str


class DeadLettersSettled(Message, type_name="dead_letter.settled"):
    """Dead letters that are none any more.

    `more`: there may be others that fit; ask again with `until` (when the first of these was asked) and `after`, so
    that those that come back are not taken again and again.
    """

    settled: tuple[DeadLetterId, ...]
    refused: tuple[Refusal, ...] = ()
    more: bool = False
    until: Moment | None = None
    after: str | None = None


class LetterGone(Message, type_name="dead_letter.gone"):
    """To a run, on `result.{run_id}`: the dead letter that it may wait for has been redriven or dropped."""

    run_id: RunId
    dead_letter: DeadLetterId


class ListDeadLetters(
    Request[DeadLetterPage], service="observability", method="list_dead_letters", answer=DeadLetterPage, query=True
):
    """Dead letters, newest first."""

    which: DeadLetterFilter = DeadLetterFilter()
    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = None


class GetDeadLetter(
    Request[DeadLetterView], service="observability", method="get_dead_letter", answer=DeadLetterView, query=True
):
    """One dead letter with its body."""

    id: DeadLetterId


class RedriveDeadLetter(
    Request[DeadLettersSettled], service="observability", method="redrive_dead_letter", answer=DeadLettersSettled
):
    """Publish one again where it was published first, on behalf of whoever it was from."""

    id: DeadLetterId


class RedriveDeadLetters(
    Request[DeadLettersSettled], service="observability", method="redrive_dead_letters", answer=DeadLettersSettled
):
    """Redrive those that fit, oldest first."""

    which: DeadLetterFilter = DeadLetterFilter()
    limit: int = Field(default=100, ge=1, le=500)
    after: str | None = None


class DropDeadLetter(
    Request[DeadLettersSettled], service="observability", method="drop_dead_letter", answer=DeadLettersSettled
):
    """Give one up for good."""

    id: DeadLetterId
    reason: Plain = Field(min_length=1, max_length=1_000)


class DropDeadLetters(
    Request[DeadLettersSettled], service="observability", method="drop_dead_letters", answer=DeadLettersSettled
):
    """Give up those that fit, oldest first."""

    which: DeadLetterFilter = DeadLetterFilter()
    reason: Plain = Field(min_length=1, max_length=1_000)
    limit: int = Field(default=100, ge=1, le=500)
    after: str | None = None


def dead_letter_id(key: str, time_ms: int = 0) -> str:
    """The id of the dead letter whose message id in its stream is `key`: the same death, the same id."""
    return id_from_key("dead", key, time_ms)
