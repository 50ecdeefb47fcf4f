"""What the name of a field asks for, and where a record has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from paracle_provider_gateway.sandbox.reading import Record, informative

_SAME: Final = (
    frozenset({"id", "identifier", "key", "ref", "reference", "number"}),
    frozenset({"subject", "title", "headline"}),
    frozenset({"text", "body", "content", "message"}),
    frozenset({"path", "file", "filename", "filepath"}),
    frozenset({"folder", "directory", "dir"}),
    frozenset({"from", "sender", "author"}),
    frozenset({"date", "sentat", "receivedat", "received", "createdat"}),
    frozenset({"query", "q", "question", "search", "searchterm", "keywords"}),
    frozenset({"url", "uri", "link", "href"}),
)


def plain(name: str) -> str:
    """`ticket_id`, `ticketId` → `ticketid`."""
    return re.sub(r"[\W_]+", "", name).casefold()


def singular(name: str) -> str:
    """`files` → `file`, `categories` → `category`."""
    if name.endswith("ies"):
        return name[:-3] + "y"
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name


def same_field(asked: str, there: str) -> bool:
    """Whether a field `there` is what `asked` calls for: the same name, a synonym, or an id of something."""
    one, other = plain(asked), plain(there)
    if one == other or singular(one) == singular(other):
        return True
    if any({singular(one), singular(other)} <= group for group in _SAME):
        return True
    return (one.endswith("id") and other == "id") or (one == "id" and other.endswith("id") and len(other) > 3)


def lookup(record: Record, name: str, fits: Callable[[Any], bool]) -> Iterator[Any]:
    """Values of `record` that `name` asks for and that fit: the field of just that name first."""
    exact = [value for key, value in record.items() if plain(key) == plain(name)]
    alike = [value for key, value in record.items() if plain(key) != plain(name) and same_field(name, key)]
    for value in (*exact, *alike):
        if informative(value) and fits(value):
            yield value
