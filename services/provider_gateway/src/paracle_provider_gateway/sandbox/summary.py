"""Short words for long ones: the first sentences that say something, and overviews of records."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from paracle_provider_gateway.sandbox import lexicon
from paracle_provider_gateway.sandbox.reading import Record, identity, informative, main_text, title_of

NOTHING: Final = "The text is empty."
LEVELS: Final = ("low", "normal", "high", "critical")
_LEVEL_OF: Final = {
    "lowest": 0, "low": 0, "minor": 0, "trivial": 0, "p4": 0, "info": 0,
    "normal": 1, "medium": 1, "moderate": 1, "p3": 1, "standard": 1,
    "high": 2, "major": 2, "p2": 2, "elevated": 2,
    "urgent": 3, "critical": 3, "blocker": 3, "emergency": 3, "highest": 3, "p1": 3, "p0": 3, "severe": 3,
}  # fmt: skip
_SENTENCE: Final = re.compile(r"(?:[^.!?\n]|[.!?](?=[^\s.!?]))+[.!?]*", re.UNICODE)
_GREETING: Final = re.compile(
    r"^(?:hi|hello|hey|dear|good (?:morning|afternoon|evening)|hallo|guten|liebe[rs]?|sehr geehrte|bonjour|bonsoir|"
    r"cher|chère|hola|buen[oa]s|estimad|ciao|buon|salve|gentil|spett)\b|^(?:thanks|thank you|danke|merci|gracias|"
    r"grazie|regards|best|cheers|grüße|cordialement|saludos|saluti|mit freundlichen|viele grüße|beste grüße|"
    r"bien à vous|un saludo|cordiali|distinti)\b[^.!?]{0,30}$|^(?:from|to|date|subject|re|fwd?):",
    re.IGNORECASE,
)
_READ: Final = 20_000
_SUMMARY: Final = 160
_CATEGORY_LENGTH: Final = 24


def summarise(text: str, title: str = "", limit: int = _SUMMARY) -> str:
    """The first sentences of `text` that say something, as many as fit into `limit` characters."""
    found = ""
    for sentence in _sentences(text):
        longer = f"{found} {sentence}".strip()
        if found and len(longer) > limit:
            break
        found = longer
    found = found or title.strip() or text.strip() or NOTHING
    if " " in found and found.partition(" ")[0].isalpha():
        found = found[:1].upper() + found[1:]
    return shorten(found, limit)


def shorten(text: str, limit: int) -> str:
    """`text` within `limit` characters, cut at a word."""
    if len(text) <= limit:
        return text
    cut = text[: max(0, limit - 1)]
    return (cut.rpartition(" ")[0] or cut) + "…" if limit > 0 else ""


def level(text: str) -> int:
    """How urgent `text` is: an index of `LEVELS`."""
    if not text.strip() or lexicon.hits("spam", text) > 1:
        return 0
    urgent, outage = lexicon.hits("urgent", text), lexicon.hits("outage", text) + lexicon.hits("security", text)
    if outage and urgent:
        return 3
    if urgent or outage or lexicon.hits("negative", text) > 1:
        return 2
    wishes = lexicon.hits("feature", text) + lexicon.hits("calm", text)
    return 0 if wishes > lexicon.hits("bug", text) else 1


def level_named(word: str) -> int | None:
    """The level that `word` names, if it names one."""
    return _LEVEL_OF.get(word.casefold())


def record_level(record: Record) -> int:
    """How urgent `record` is: as one of its fields says, or else its words."""
    named = [level_named(value) for value in record.values() if isinstance(value, str)]
    known = [found for found in named if found is not None]
    return max(known) if known else level(f"{title_of(record)}\n{main_text(record)}")


def most_urgent(records: Sequence[Record]) -> list[Record]:
    """`records` by urgency, the order otherwise kept."""
    return sorted(records, key=record_level, reverse=True)


def categories(records: Sequence[Record]) -> dict[str, Counter[str]]:
    """Fields of `records` that sort them into few kinds, with how many there are of each, in order of appearance."""
    fields: dict[str, list[str]] = {}
    for record in records:
        for key, value in record.items():
            if isinstance(value, str) and informative(value) and len(value) <= _CATEGORY_LENGTH and " " not in value:
                fields.setdefault(key, []).append(value)
    names = {identity(record) for record in records}
    return {
        key: Counter(values)
        for key, values in fields.items()
        if len(values) * 2 > len(records) and not names >= set(values)
    }


def main_category(records: Sequence[Record]) -> tuple[str, Counter[str]] | None:
    """The field that best says what each record is about: one named so, or else the first that is no level."""
    found = categories(records)
    for key in ("category", "type", "kind", "topic", "label", "status"):
        if key in found:
            return key, found[key]
    return next(((k, v) for k, v in found.items() if level_named(next(iter(v))) is None), None)


def overview(records: Sequence[Record]) -> str:
    """How many records there are, of which kinds, and which need attention first."""
    parts = [f"{len(records)} item{'' if len(records) == 1 else 's'}"]
    category = main_category(records)
    if category is not None:
        parts.append(": " + ", ".join(f"{count} {name}" for name, count in category[1].most_common()))
    pressing = [record for record in most_urgent(records) if record_level(record) == len(LEVELS) - 1]
    if pressing:
        names = ", ".join(name for record in pressing if (name := identity(record)) is not None)
        parts.append(f"; critical: {names or len(pressing)}")
    return "".join(parts) + "."


def highlight(record: Record) -> str:
    """One line about `record`."""
    words = summarise(main_text(record), title_of(record))
    name = identity(record)
    return f"{name}: {words}" if name else words


def _sentences(text: str) -> list[str]:
    found = [sentence.strip() for sentence in _SENTENCE.findall(text[:_READ])]
    telling = [s for s in found if len(s) > 2 and any(c.isalnum() for c in s)]
    return [s for s in telling if not _GREETING.match(s)] or telling
