"""Text as it reads, for finding what is written in other characters than it seems to be. Pure.

Digits of any script, full-width letters, dashes, dots and spaces of all kinds become those of ASCII; marks and
characters that cannot be seen are left out. Every place in the result is known in the original.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_UNSEEN: Final = frozenset({"Cf", "Mn", "Me"})
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0")
_DOTS: Final = frozenset("\u3002\uff61")
_MINUS: Final = frozenset("\u2043\u02d7\u2212")


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
    if text.isascii():
        return Folded(text)
    folded = text.translate(_FOLDS)
    if len(folded) == len(text):
        return Folded(folded)
    seen = [place for place, character in enumerate(text) if _FOLDS[ord(character)]]
    return Folded(folded, [*seen, len(text)])


class _Folds(dict[int, str]):
    """What each character becomes: one character, or nothing. Found out when it is first met."""

    def __missing__(self, code: int) -> str:
        made = self[code] = _folded(chr(code))
        return made


def _folded(character: str) -> str:
    category = unicodedata.category(character)
    if category in _UNSEEN or character in _FILLERS:
        return ""
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
