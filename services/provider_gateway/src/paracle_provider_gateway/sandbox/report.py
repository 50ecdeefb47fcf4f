"""What a report about records holds: counts, highlights, actions, and one entry each."""

from __future__ import annotations

from typing import Final

from paracle_provider_gateway.sandbox.classify import name_words
from paracle_provider_gateway.sandbox.fields import plain, same_field, singular
from paracle_provider_gateway.sandbox.reading import Matter, Record, identity
from paracle_provider_gateway.sandbox.summary import (
    categories,
    highlight,
    main_category,
    most_urgent,
    record_level,
)

PLURALS: Final = frozenset(
    {"items", "tickets", "mails", "emails", "messages", "documents", "files", "records", "entries", "requests"}
)
"""Names that speak of all records."""

_ACTING: Final = frozenset(
    {"action", "actions", "recommendation", "recommendations", "next", "steps", "todos", "tasks"}
)
_TELLING: Final = frozenset({"highlights", "highlight", "findings", "insights", "notable", "points", "key"})
_NAMING: Final = frozenset({"ids", "references", "tickets", "mails", "items"})
_SORTING: Final = frozenset({"languages", "categories", "urgencies", "priorities", "labels", "topics"})
_HIGHLIGHTS: Final = 3
_PRESSING: Final = 2
_ACTIONS: Final = {
    "bug": "Have engineering reproduce and fix",
    "outage": "Restore the service first and tell those who are affected:",
    "billing": "Have accounting check and correct the charges of",
    "refund": "Decide on the refunds asked for in",
    "feature": "Hand over to product planning:",
    "account": "Help these customers back into their accounts:",
    "spam": "Close without an answer:",
    "security": "Escalate to the security team at once:",
}
_ANY_ACTION: Final = "Read and answer"


def counts(matter: Matter, name: str) -> dict[str, int]:
    """How many records there are of each kind: of the field that `name` speaks of, or else of all of them."""
    found = categories(matter.records)
    asked = {singular(word) for word in name_words(name)}
    for field, counted in found.items():
        if plain(singular(field)) in asked:
            return dict(counted)
    main = main_category(matter.records)
    if name and main is not None:
        return dict(main[1])
    return {value: count for counted in found.values() for value, count in counted.items()}


def members(matter: Matter, name: str) -> list[Matter]:
    """What each object of an array is about: an action, a highlight, a kind, or a record."""
    asked = name_words(name)
    if asked & _ACTING:
        return [_about_group(kind, group) for kind, group in _groups(matter.records)]
    if asked & _TELLING:
        return [Matter.of(record) for record in _notable(matter.records)]
    field = main_category(matter.records)
    if field is not None and {singular(word) for word in asked} & {singular(field[0])}:
        return [_about_group(kind, group) for kind, group in _groups(matter.records)]
    if matter.records:
        return [Matter.of(record) for record in matter.records]
    return [matter] if matter.words.strip() or matter.record else []


def lines(matter: Matter, name: str) -> list[Matter]:
    """What each text of an array says."""
    asked = name_words(name)
    listed = next((found for field, found in categories(matter.records).items() if same_field(name, field)), None)
    if listed is not None:
        return [Matter(text=value) for value in listed]
    if asked & _ACTING:
        return [Matter(text=action(kind, group)) for kind, group in _groups(matter.records)]
    if asked & _NAMING and matter.records:
        return [Matter(text=found) for record in matter.records if (found := identity(record)) is not None]
    if matter.records:
        return [Matter(text=highlight(record)) for record in _notable(matter.records)]
    return [matter] if matter.words.strip() else []


def member_name(name: str) -> str:
    """What one member of the array `name` is called; empty where its texts say it all."""
    return "" if name_words(name) & (_ACTING | _TELLING | _NAMING | _SORTING) else singular(name)


def action(kind: str, group: list[Record]) -> str:
    """What to do about records of a kind, the most urgent ones first."""
    names = [name for record in most_urgent(group) if (name := identity(record)) is not None]
    what = ", ".join(names) or f"{len(group)} of {kind}"
    return f"{_ACTIONS.get(kind, _ANY_ACTION)} {what}"


def _about_group(kind: str, group: list[Record]) -> Matter:
    text = action(kind, group)
    ids = [name for record in group if (name := identity(record)) is not None]
    record: Record = {"action": text, "category": kind, "name": kind, "count": len(group), "ids": ids}
    urgency = ("low", "normal", "high", "critical")[max(record_level(one) for one in group)]
    return Matter(text, kind, record | {"priority": urgency, "urgency": urgency}, tuple(group))


def _groups(records: tuple[Record, ...]) -> list[tuple[str, list[Record]]]:
    """Records by kind, the kind with the most urgent record first."""
    main = main_category(records)
    if main is None:
        return [("all", list(records))] if records else []
    groups = [(kind, [record for record in records if record.get(main[0]) == kind]) for kind in main[1]]
    return sorted(groups, key=lambda pair: max(record_level(record) for record in pair[1]), reverse=True)


def _notable(records: tuple[Record, ...]) -> list[Record]:
    """The most urgent records: all that press, or the first few."""
    ordered = most_urgent(records)
    pressing = [record for record in ordered if record_level(record) >= _PRESSING]
    return pressing or ordered[:_HIGHLIGHTS]
