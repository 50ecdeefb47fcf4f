"""Regular expressions of strangers: RE2's, which take time that is linear in the text, whatever the expression.

Python's own, and all that look back, can be made to take for ever by whoever writes the expression or the text. RE2 has
no lookaround and no references back for that, and refuses expressions that would take much memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import re2

from paracle_domain.errors import InvalidInput, quote
from paracle_domain.strict_json import whole_text

_KEPT: Final = 128
_MOST_BYTES: Final = 4 << 20
"""Of what RE2 makes of an expression, before and while it is looked for."""


class Pattern:
    """A compiled expression."""

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MOST_BYTES
        options.case_sensitive = not ignore_case
        try:
            self._compiled = re2.compile(text, options)
        except re2.error as error:
            raise InvalidInput(f"{quote(text)} is no regular expression of RE2: {_why(error)}") from error

    def matches(self, text: str) -> bool:
        """Whether it matches anywhere in `text`."""
        return self._compiled.search(whole_text(text)) is not None

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where in `text` it matches: start and end of each, the empty ones left out."""
        for found in self._compiled.finditer(whole_text(text)):
            start, end = found.span()
            if start < end:
                yield start, end


@lru_cache(maxsize=_KEPT)
def pattern(text: str, *, ignore_case: bool = False) -> Pattern:
    """The expression `text`, compiled once.

    Raises
    ------
    InvalidInput
        If it is none.
    """
    return Pattern(text, ignore_case=ignore_case)


def _why(error: re2.error) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
