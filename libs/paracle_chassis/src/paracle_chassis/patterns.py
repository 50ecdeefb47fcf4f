"""Regular expressions of strangers: RE2's, which take time that is linear in the text, whatever the expression.

Python's own, and all that look back, can be made to take for ever by whoever writes the expression or the text. RE2 has
no lookaround and no references back for that, and refuses expressions that would take much memory.

While it looks for an expression, RE2 remembers what it has found out about it, in as much memory as it was given. So
each gets the least that it can do with, and compiled ones are kept within a bound for all of them together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock
from typing import Final

import re2

from paracle_domain.errors import InvalidInput, quote
from paracle_domain.strict_json import whole_text

_SIZES: Final = (256 << 10, 1 << 20, 4 << 20)
"""Bytes for what RE2 makes of an expression, before and while it is looked for: the first of these that will do."""
MOST_BYTES: Final = 32 << 20
"""Of all expressions that are kept. Those that were not used longest give way, and are compiled anew."""


class Pattern:
    """A compiled expression. `size`: the most bytes that it takes."""

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        for self.size in _SIZES:
            try:
                self._compiled = re2.compile(text, _options(self.size, ignore_case=ignore_case))
            except re2.error as error:
                if self.size == _SIZES[-1] or not _is_too_large(error):
                    raise InvalidInput(f"{quote(text)} is no regular expression of RE2: {_why(error)}") from error
            else:
                break
        re2.purge()  # it would keep what it compiled itself, beyond any bound

    def matches(self, text: str) -> bool:
        """Whether it matches anywhere in `text`."""
        return self._compiled.search(whole_text(text)) is not None

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where in `text` it matches: start and end of each, the empty ones left out."""
        for found in self._compiled.finditer(whole_text(text)):
            start, end = found.span()
            if start < end:
                yield start, end


class _Shelf:
    """Compiled expressions, which threads share."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, bool], Pattern] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def pattern(self, text: str, *, ignore_case: bool) -> Pattern:
        key = (text, ignore_case)
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return found
            made = self._kept[key] = Pattern(text, ignore_case=ignore_case)
            self._bytes += made.size
            while self._bytes > MOST_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].size
            return made


_shelf: Final = _Shelf()


def pattern(text: str, *, ignore_case: bool = False) -> Pattern:
    """The expression `text`, compiled once, as long as there is room for it.

    Raises
    ------
    InvalidInput
        If it is none.
    """
    return _shelf.pattern(text, ignore_case=ignore_case)


def _options(size: int, *, ignore_case: bool) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = size
    options.case_sensitive = not ignore_case
    return options


def _is_too_large(error: re2.error) -> bool:
    return _why(error).startswith("pattern too large")


def _why(error: re2.error) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
