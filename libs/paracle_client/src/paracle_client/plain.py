"""Text from elsewhere, made fit for a terminal."""

from __future__ import annotations

import unicodedata
from typing import Final

_BIDI: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def safe(text: str, *, lines: bool = False) -> str:
    """`text` without control characters, which a model, a tool or a file could use to take over the terminal.

    Line breaks stay if `lines`; else they become spaces.
    """
    text = text.replace("\r\n", "\n")
    if not lines:
        text = text.replace("\n", " ")
    return "".join("\N{REPLACEMENT CHARACTER}" if _takes_over(one) else one for one in text)


def safe_json(text: str) -> str:
    """The same for JSON, which loses nothing by it: there such characters stand within strings, and are escaped."""
    return text if text.isascii() else "".join(f"\\u{ord(one):04x}" if _takes_over(one) else one for one in text)


def _takes_over(one: str) -> bool:
    return (unicodedata.category(one) in {"Cc", "Cs"} and one not in "\n\t") or one in _BIDI
