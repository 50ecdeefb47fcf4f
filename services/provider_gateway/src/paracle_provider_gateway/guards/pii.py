"""Personal data in texts: found by its form, and taken out. Pure, and in time that is linear in the text.

Names and addresses have no form, so they are not found; nor is what is encoded, or spread over several texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from string import digits, hexdigits
from typing import Final

from paracle_domain.guard.spec import PersonalData
from paracle_provider_gateway.guards.folding import fold
from paracle_provider_gateway.guards.numbers import cards, phones

type Span = tuple[int, int]

_PASSES: Final = 4
"""After one, all is taken out of any text that was not made to defeat it."""

_DOMAIN: Final = re.compile(
    r"@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:xn--[a-z0-9-]{1,59}|[^\W\d_]{2,63})", re.IGNORECASE
)
_LOCAL: Final = frozenset("._%+-'")
_LONGEST_QUOTED: Final = 66
_IPV4: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_COLONS: Final = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6: Final = re.compile(
    r"(?<![\w:])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,8}(?:\.[0-9]{1,3}){0,3}(?![\w:])", re.IGNORECASE
)
_LONGEST_GROUP: Final = 4
_US_SSN: Final = re.compile(r"([0-9]{3})([ -])([0-9]{2})\2([0-9]{4})")
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[ ._-]{0,2}[0-9][ ._-]{0,2}[0-9]")
_IBAN_GAP: Final = frozenset(" ._-")
_IBAN_LENGTHS: Final[Mapping[str, int]] = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """Something that was found, and where in the text it stands."""

    start: int
    end: int
    kind: PersonalData


def find(text: str, kinds: Iterable[PersonalData]) -> list[Found]:
    """What of `kinds` is in `text`, in its order; what overlaps is one, of the kind that says most."""
    folded = fold(text)
    wanted = frozenset(kinds)
    spans = [
        (*folded.span(start, end), rank)
        for rank, (kind, finder) in enumerate(_FINDERS.items())
        if kind in wanted
        for start, end in finder(folded.text)
    ]
    merged: list[tuple[int, int, int]] = []
    for start, end, rank in sorted(spans):
        if merged and start < merged[-1][1]:
            before = merged.pop()
            merged.append((before[0], max(before[1], end), min(before[2], rank)))
        else:
            merged.append((start, end, rank))
    kinds_by_rank = tuple(_FINDERS)
    return [Found(start, end, kinds_by_rank[rank]) for start, end, rank in merged]


def redact(text: str, kinds: Iterable[PersonalData]) -> tuple[str, Counter[PersonalData]]:
    """`text` with all of `kinds` replaced by placeholders, and how many there were; nothing is left to be found.

    Raises
    ------
    ValueError
        If there is always something left: the text was made so.
    """
    counts: Counter[PersonalData] = Counter()
    wanted = tuple(kinds)
    for _ in range(_PASSES):
        found = find(text, wanted)
        if not found:
            return text, counts
        counts.update(one.kind for one in found)
        text = replaced(text, ((one.start, one.end, one.kind.placeholder) for one in found))
    if find(text, wanted):
        raise ValueError("personal data cannot be taken out of this text: some is left each time")
    return text, counts


def replaced(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    """`text` with something else in each of `spans`, which are in order."""
    pieces: list[str] = []
    done = 0
    for start, end, instead in spans:
        pieces += (text[done:start], instead)
        done = end
    return "".join((*pieces, text[done:]))


def _emails(text: str) -> Iterator[Span]:
    done = 0
    for found in _DOMAIN.finditer(text):
        start = _local_part(text, done, found.start())
        if start < found.start():
            yield start, found.end()
            done = found.end()


def _local_part(text: str, first: int, at: int) -> int:
    """Where the part before the `@` begins; at the `@` if there is none."""
    start = at
    if start > first and text[start - 1] == '"':
        quote = text.rfind('"', max(first, start - _LONGEST_QUOTED), start - 1)
        return start if quote < 0 else quote
    while start > first and (text[start - 1].isalnum() or text[start - 1] in _LOCAL):
        start -= 1
    while start < at and not (text[start].isalnum() or text[start] == "_"):
        start += 1
    return start


def _ips(text: str) -> Iterator[Span]:
    for found in _IPV4.finditer(text):
        start, end = found.span()
        longer = _is_digit(text, start - 1) or _is_digit(text, end)
        more = (text[start - 1 : start] == "." and _is_digit(text, start - 2)) or (
            text[end : end + 1] == "." and _is_digit(text, end + 1)
        )
        if not longer and not more and all(int(octet) <= 255 for octet in found[0].split(".")):
            yield start, end
    yield from _ipv6s(text)


def _ipv6s(text: str) -> Iterator[Span]:
    done = 0
    for colons in _COLONS.finditer(text):
        start = colons.start()
        while start > done and colons.start() - start < _LONGEST_GROUP and text[start - 1] in hexdigits:
            start -= 1
        if start < done or (found := _IPV6.match(text, start)) is None:
            continue
        done = found.end()
        shown = found[0]
        if shown.endswith(":") and not shown.endswith("::"):
            shown = shown[:-1]
        if any(character.isdigit() for character in shown) and _is_ip(shown):
            yield start, start + len(shown)


def _is_digit(text: str, place: int) -> bool:
    return 0 <= place < len(text) and text[place] in digits


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _ssns(text: str) -> Iterator[Span]:
    for found in _US_SSN.finditer(text):
        area, _, group, serial = found.groups()
        given = area not in {"000", "666"} and area[0] != "9" and group != "00" and serial != "0000"
        if given and not _is_digit(text, found.start() - 1) and not _is_digit(text, found.end()):
            yield found.span()


def _ibans(text: str) -> Iterator[Span]:
    for found in _IBAN.finditer(text):
        start = found.start()
        length = _IBAN_LENGTHS.get(text[start : start + 2].upper())
        if length is not None and (end := _iban_end(text, start, length)) is not None:
            yield start, end


def _iban_end(text: str, start: int, length: int) -> int | None:
    """Where the IBAN of `length` that begins at `start` ends; `None` if it is none."""
    found: list[str] = []
    place, gap = start, 0
    while place < len(text) and len(found) < length:
        character = text[place]
        if _is_plain(character):
            found.append(character)
            gap = 0
        elif character in _IBAN_GAP and gap < 2:
            gap += 1
        else:
            return None
        place += 1
    whole = len(found) == length and not (place < len(text) and _is_plain(text[place]))
    return place if whole and _checks_97("".join(found)) else None


def _is_plain(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _checks_97(iban: str) -> bool:
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


_FINDERS: Final[Mapping[PersonalData, Callable[[str], Iterator[Span]]]] = {
    PersonalData.EMAIL: _emails,
    PersonalData.IBAN: _ibans,
    PersonalData.CREDIT_CARD: cards,
    PersonalData.US_SSN: _ssns,
    PersonalData.IP: _ips,
    PersonalData.PHONE: phones,
}
"""By kind; where two find the same, the first says more."""
