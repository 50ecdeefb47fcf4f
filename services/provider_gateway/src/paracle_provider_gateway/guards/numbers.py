"""Numbers of cards and telephones in a folded text, however their digits are grouped. Pure.

Digits with little between them are one run of groups. What looks like a number begins and ends with a group, so that
no part of a longer one is taken for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

_RUN: Final = re.compile(r"[0-9]++(?:[ \t.\-_/()]{1,3}[0-9]++)*+")
_GROUP: Final = re.compile(r"[0-9]++")
_DATE: Final = re.compile(r"[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{2,4}(?![0-9])")

_CARD_DIGITS: Final = range(13, 20)
_ISSUED: Final = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|5[0-8][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|35[0-9]{14}|6[0-9]{15,18}|81[0-9]{14}"
)
"""How numbers of cards begin, and how long they are then: Visa, Mastercard, Maestro, American Express, Diners, JCB,
Discover and UnionPay.
"""
_CARD_GROUPS: Final = ([4, 6, 5], [4, 6, 4])

_PHONE_DIGITS: Final = range(8, 18)
_AMERICAN_GROUPS: Final = ([3, 3, 4], [1, 3, 3, 4])
_AMERICAN_STARTS: Final = ([3, 3, 4], [1, 3, 3])


class _Run:
    """Groups of digits: where they stand in `text`, and all their digits, with the places where each group ends."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text = text
        self.groups = [found.span() for found in _GROUP.finditer(text, start, end)]
        self.digits = "".join(text[start:end] for start, end in self.groups)
        self.ends = [0]
        for first, last in self.groups:
            self.ends.append(self.ends[-1] + last - first)

    def longest(self, first: int, lengths: range, test: Callable[[_Run, int, int, str], bool]) -> int | None:
        """The last of the most groups, from `first` on, that have so many digits and pass the test."""
        start, found = self.ends[first], None
        for last in range(first, len(self.groups)):
            size = self.ends[last + 1] - start
            if size >= lengths.stop:
                break
            if size in lengths and test(self, first, last, self.digits[start : start + size]):
                found = last
        return found

    def sizes(self, first: int, last: int) -> Sequence[int]:
        """How many digits each group has."""
        return [end - start for start, end in self.groups[first : last + 1]]


def cards(text: str) -> Iterator[tuple[int, int]]:
    """Where numbers of payment cards are: as issuers give them, grouped regularly, and with the right check digit."""
    for run in _runs(text, _CARD_DIGITS):
        yield from _numbers(run, _CARD_DIGITS, _may_be_card, _is_card)


def phones(text: str) -> Iterator[tuple[int, int]]:
    """Where numbers of telephones are: international with + or 00, national with 0, and North American in groups."""
    for run in _runs(text, _PHONE_DIGITS):
        for start, end in _numbers(run, _PHONE_DIGITS, _may_be_phone, _is_phone):
            yield _with_signs(text, start, end), end


def _runs(text: str, lengths: range) -> Iterator[_Run]:
    for found in _RUN.finditer(text):
        if found.end() - found.start() >= lengths.start:
            yield _Run(text, found.start(), found.end())


def _numbers(
    run: _Run, lengths: range, may_be: Callable[[_Run, int], bool], test: Callable[[_Run, int, int, str], bool]
) -> Iterator[tuple[int, int]]:
    group = 0
    while group < len(run.groups):
        last = run.longest(group, lengths, test) if may_be(run, group) else None
        if last is not None:
            yield run.groups[group][0], run.groups[last][1]
        group = (group if last is None else last) + 1


def _with_signs(text: str, start: int, end: int) -> int:
    """Where a number begins whose first digit is at `start`: at its plus, and at the parenthesis that it closes."""
    closes = text.count(")", start, end) > text.count("(", start, end)
    while start > 0 and (text[start - 1] == "+" or (closes and text[start - 1] == "(")):
        closes = closes and text[start - 1] != "("
        start -= 1
    return start


def _may_be_card(run: _Run, first: int) -> bool:
    return run.text[run.groups[first][0]] in "234568"


def _is_card(run: _Run, first: int, last: int, digits: str) -> bool:
    if not _ISSUED.fullmatch(digits) or not _checks_10(digits):
        return False
    sizes = run.sizes(first, last)
    return sizes in _CARD_GROUPS or (len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0])


def _checks_10(digits: str) -> bool:
    """Luhn's check."""
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(two - 9 if two > 9 else two for two in doubled)) % 10 == 0


def _may_be_phone(run: _Run, first: int) -> bool:
    start, end = run.groups[first]
    if run.text[start] == "0" or _has_plus(run, first):
        return True
    return end - start in {1, 3} and run.sizes(first, first + 2) in _AMERICAN_STARTS


def _has_plus(run: _Run, first: int) -> bool:
    start = run.groups[first][0]
    return start > 0 and run.text[start - 1] == "+"


def _is_phone(run: _Run, first: int, last: int, digits: str) -> bool:
    if _has_plus(run, first):
        return len(digits) <= 15 and digits[0] != "0"
    if _is_within_a_word(run, first, last):
        return False
    if digits.startswith("00"):
        return len(digits) >= 10 and digits[2] != "0"
    if digits[0] == "0":
        return digits[1] != "0" and 9 <= len(digits) <= 12 and not _is_decimal_or_date(run, first)
    own = digits.removeprefix("1")
    return run.sizes(first, last) in _AMERICAN_GROUPS and len(own) == 10 and own[0] > "1" and own[3] > "1"


def _is_within_a_word(run: _Run, first: int, last: int) -> bool:
    start, end = run.groups[first][0], run.groups[last][1]
    return run.text[max(0, start - 1) : start].isalpha() or run.text[end : end + 1].isalpha()


def _is_decimal_or_date(run: _Run, first: int) -> bool:
    start, end = run.groups[first]
    return (run.text.startswith("0.", start) and end - start == 1) or _DATE.match(run.text, start) is not None
