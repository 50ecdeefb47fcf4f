"""Cursors: where a page of a list ended, as one word that callers hand back as they got it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from paracle_domain.errors import InvalidInput, quote


def write_cursor(at: datetime, *words: str) -> str:
    """The cursor of a place in a list that goes by time: `at`, with a time zone, and words without spaces."""
    return base64.urlsafe_b64encode(" ".join((at.astimezone(UTC).isoformat(), *words)).encode()).decode()


def read_cursor[P](cursor: str, place: Callable[[datetime, Sequence[str]], P], *, path: str = "cursor") -> P:
    """What `place` makes of the time (in UTC) and the words that `write_cursor` was given.

    Raises
    ------
    InvalidInput
        If it is no cursor, or `place` raises a `ValueError`: callers may send anything. `path` names their field.
    """
    try:
        time, *words = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ")
        at = datetime.fromisoformat(time)
        if at.tzinfo is None:
            raise ValueError("the time has no zone")  # noqa: TRY301  # caught here, with all that is wrong otherwise
        return place(at.astimezone(UTC), words)
    except (ValueError, OverflowError) as error:
        what = f"{quote(cursor)} is no cursor; take the next_cursor of a page as it is"
        raise InvalidInput(what, path=path) from error
