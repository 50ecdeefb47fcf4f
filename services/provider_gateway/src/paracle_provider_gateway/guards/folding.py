"""Text as it reads, for finding what is written in other characters than it seems to be. Pure.

Digits of any script, full-width letters, dashes, dots and spaces of all kinds become those of ASCII; marks and
characters that cannot be seen are left out. What JSON writes with a backslash is what it stands for, since much of what
tools and models say is JSON. Every place in the result is known in the original.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_UNSEEN: Final = frozenset({"Cf", "Mn", "Me"})
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0")
_DOTS: Final = frozenset("\u3002\uff61")
_MINUS: Final = frozenset("\u2043\u02d7\u2212")
_ASCII_UNSEEN: Final = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
_ESCAPE: Final = re.compile(
    r"""\\(?:["\\/bfnrt]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4})"""
)


@dataclass(frozen=True, slots=True)
class Folded:
    """`text` is folded; `places` says where each character, and the end, is in the original (`None`: where it is)."""

    text: str
    places: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A span in the original; what was left out belongs to the character before it."""
        return (start, end) if self.places is None else (self.places[start], self.places[end])


def fold(text: str) -> Folded:
    """`text` as it reads."""
    read = _unescaped(text)
    if read.text.isascii() and _ASCII_UNSEEN.search(read.text) is None:
        return read
    folded = read.text.translate(_FOLDS)
    if len(folded) == len(read.text):
        return Folded(folded, read.places)
    seen = [place for place, character in enumerate(read.text) if _FOLDS[ord(character)]]
    seen.append(len(read.text))
    return Folded(folded, seen if read.places is None else [read.places[place] for place in seen])


def _unescaped(text: str) -> Folded:
    pieces: list[str] = []
    places: list[int] = []
    done = 0
    for found in _ESCAPE.finditer(text):
        start, end = found.span()
        pieces += (text[done:start], json.loads(f'"{found[0]}"'))
        places += range(done, start + 1)
        done = end
    if not pieces:
        return Folded(text)
    return Folded("".join((*pieces, text[done:])), [*places, *range(done, len(text) + 1)])


class _Folds(dict[int, str]):
    """What each character becomes: one character, or nothing. Found out when it is first met."""

    def __missing__(self, code: int) -> str:
        made = self[code] = _folded(chr(code))
        return made


def _folded(character: str) -> str:
    category = unicodedata.category(character)
    if category in _UNSEEN or character in _FILLERS:
        return ""
    if category == "Cc":
        return character if character.isspace() else ""
    if category == "Zs":
        return " "
    if category == "Pd" or character in _MINUS:
        return "-"
    if character in _DOTS:
        return "."
    if (digit := unicodedata.digit(character, None)) is not None:
        return str(digit)
    plain = unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 else character


_FOLDS: Final = _Folds()
