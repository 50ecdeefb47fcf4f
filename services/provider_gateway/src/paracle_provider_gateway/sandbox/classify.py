"""Chooses among options by the words of a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from paracle_provider_gateway.sandbox import language, lexicon
from paracle_provider_gateway.sandbox.reading import Matter, informative
from paracle_provider_gateway.sandbox.summary import level, level_named, record_level

_LAST_RESORTS: Final = ("other", "unknown", "general", "misc", "none", "neutral", "normal", "medium", "n/a")
_TITLE_WEIGHT: Final = 2
_NAME_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_PRESSING: Final = 2


def choose(options: Sequence[object], matter: Matter) -> object:
    """The option that fits `matter` best: by level, by language, or by the words that speak for each."""
    words = [option for option in options if isinstance(option, str)]
    if not words:
        return options[matter.nth % len(options)]
    chosen = _by_level(words, matter) or _by_language(words, matter) or _by_words(words, matter)
    return options[(list(options).index(chosen) + matter.nth) % len(options)]


def is_true(name: str, matter: Matter) -> bool:
    """Whether what a field of this name asks holds of `matter`."""
    asked = name_words(name)
    if {"urgent", "critical", "escalate", "attention", "priority"} & asked:
        levels = [record_level(record) for record in matter.records or (matter.record,) if record]
        return max(levels, default=level(matter.words)) >= _PRESSING
    concepts = [concept for word in sorted(asked) if (concept := lexicon.concept_of(word)) is not None]
    if concepts:
        return any(lexicon.hits(concept, matter.words) for concept in concepts)
    said = matter.words.casefold()
    telling = {word for word in asked if len(word) > 3}
    return bool(telling) and all(word in said for word in telling)


def sentiment(matter: Matter) -> str:
    """`positive`, `negative` or `neutral`."""
    good, bad = lexicon.hits("positive", matter.words), lexicon.hits("negative", matter.words)
    if good == bad:
        return "neutral"
    return "positive" if good > bad else "negative"


def name_words(name: str) -> set[str]:
    """The words of a field's or tool's name: `isUrgent`, `is_urgent` → is, urgent."""
    return {word.casefold() for word in _NAME_WORDS.findall(name.replace("-", "_"))}


def _by_level(options: Sequence[str], matter: Matter) -> str | None:
    levels = {option: found for option in options if (found := level_named(option)) is not None}
    if len(levels) * 2 <= len(options):
        return None
    named = any(isinstance(value, str) and level_named(value) is not None for value in matter.record.values())
    wanted = record_level(matter.record) if named else level(matter.words)
    return min(levels, key=lambda option: abs(levels[option] - wanted))


def _by_language(options: Sequence[str], matter: Matter) -> str | None:
    spoken = {
        option: code
        for option in options
        for code, name in language.NAMES.items()
        if option.casefold().replace("_", "-").partition("-")[0] in {code, name}
    }
    if len(spoken) * 2 <= len(options):
        return None
    heard = language.detect(matter.words)
    return next((option for option, code in spoken.items() if code == heard), None) or _last_resort(options)


def _by_words(options: Sequence[str], matter: Matter) -> str:
    if {"positive", "negative"} <= {option.casefold() for option in options}:
        felt = sentiment(matter)
        return next((option for option in options if option.casefold() == felt), options[0])
    said_so = {str(value).casefold() for value in matter.record.values() if informative(value)}
    known = {lexicon.concept_of(option) for option in options}
    scores = {option: _score(option, matter, known) + (10 if option.casefold() in said_so else 0) for option in options}
    best = max(options, key=lambda option: scores[option])
    return best if scores[best] else _last_resort(options)


def _score(option: str, matter: Matter, known: set[str | None]) -> int:
    concept = lexicon.concept_of(option)
    if concept is not None:
        weight = _TITLE_WEIGHT * lexicon.hits(concept, matter.title) + lexicon.hits(concept, matter.text)
        if concept == "bug" and "outage" not in known:
            weight += lexicon.hits("outage", matter.words)
        return weight * 2 if concept == "spam" and weight > 1 else weight
    said = matter.words.casefold()
    return sum(1 for word in name_words(option) if len(word) > 2 and word in said)


def _last_resort(options: Sequence[str]) -> str:
    plain = {option.casefold(): option for option in reversed(options)}
    return next((plain[name] for name in _LAST_RESORTS if name in plain), options[0])
