"""YAML (and so JSON) to plain data and back: every mistake with its line and column, every bomb refused.

Scalars follow the core schema of YAML 1.2, in which `on`, `no` and dates are text. Anchors and aliases work as long as
what they expand to is bearable; duplicate keys, merge keys and tags are errors, since each hides something.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml
from yaml import events

from paracle_domain.errors import PayloadTooLarge, SpecInvalid, quote
from paracle_domain.manifest import MAX_DOCUMENT_DEPTH
from paracle_domain.messages import JsonObject
from paracle_domain.registry import MAX_TEXT_BYTES

MAX_EXPANDED_CHARS: Final = 4 * MAX_TEXT_BYTES
MAX_DOCUMENTS: Final = 10_000
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_PLAIN_TAGS: Final = frozenset({None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,999})|0o[0-7]{1,999}|0x[0-9a-fA-F]{1,999}")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def read_documents(text: str, source: str) -> list[object]:
    """The documents of `text`; empty ones are left out.

    Raises
    ------
    PayloadTooLarge
        If `text` is longer than `MAX_TEXT_BYTES`, or its aliases expand to too much.
    SpecInvalid
        If it is no YAML; the path is `source:line:column`.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_TEXT_BYTES:
        raise PayloadTooLarge(
            f"{source} has {size:,} bytes; at most {MAX_TEXT_BYTES:,} can be applied at once: split it", path=source
        )
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _error(source, mark, str(error.problem or error.context)) from None
    except yaml.YAMLError as error:  # characters that YAML does not allow at all
        raise SpecInvalid(f"no YAML: {' '.join(str(error).split())}", path=source) from None
    return [document for document in builder.documents if document is not None]


def _error(source: str, mark: Any, message: str) -> SpecInvalid:
    return SpecInvalid(message, path=_place(source, mark))


def _place(source: str, mark: Any) -> str:
    return f"{source}:{mark.line + 1}:{mark.column + 1}" if mark is not None else source


@dataclass(slots=True)
class _Open:
    """A list or object that is being filled."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    chars_before: int
    key: str | None = None


@dataclass(slots=True)
class _Builder:
    """Builds data from parse events, without recursion."""

    source: str
    documents: list[object] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[object, int]] = field(default_factory=dict)
    chars: int = 0

    def take(self, event: events.Event) -> None:
        match event:
            case events.ScalarEvent():
                self._scalar(event)
            case events.MappingStartEvent():
                self._begin(event, {})
            case events.SequenceStartEvent():
                self._begin(event, [])
            case events.MappingEndEvent() | events.SequenceEndEvent():
                self._finish(event)
            case events.AliasEvent():
                self._alias(event)
            case events.DocumentStartEvent():
                self.anchors.clear()
            case _:
                pass

    def _scalar(self, event: events.ScalarEvent) -> None:
        if event.tag not in _PLAIN_TAGS:
            self._fail(event, f"tag {quote(event.tag)} is not available; write plain text, numbers, lists and objects")
        frame = self.stack[-1] if self.stack else None
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            self._key(event, frame, frame.value)
            return
        plain = not event.style and event.tag is None
        value = _plain_value(event.value) if plain else event.value
        self._put(value, event.anchor, len(event.value) + 1, event)

    def _key(self, event: events.ScalarEvent, frame: _Open, target: dict[str, Any]) -> None:
        if event.value in target:
            self._fail(event, f"key {quote(event.value)} stands here twice")
        if event.value == "<<" and not event.style:
            self._fail(
                event, "merge keys (`<<`) are not available; write the fields out, or let the agent extend another"
            )
        self._charge(len(event.value) + 1, event)
        frame.key = event.value

    def _begin(self, event: events.CollectionStartEvent, value: list[Any] | dict[str, Any]) -> None:
        if event.tag not in _PLAIN_TAGS:
            self._fail(event, f"tag {quote(event.tag)} is not available; write plain lists and objects")
        if len(self.stack) >= MAX_DOCUMENT_DEPTH:
            self._fail(event, f"nested more than {MAX_DOCUMENT_DEPTH} levels deep")
        self._refuse_as_key(event)
        self.stack.append(_Open(value, event.anchor, self.chars))

    def _finish(self, event: events.Event) -> None:
        frame = self.stack.pop()
        self._charge(1, event)
        if frame.anchor is not None:
            self.anchors[frame.anchor] = (frame.value, self.chars - frame.chars_before)
        self._place(frame.value, event)

    def _alias(self, event: events.AliasEvent) -> None:
        self._refuse_as_key(event)
        if event.anchor not in self.anchors:
            self._fail(event, f"alias *{event.anchor} stands for nothing that is complete before it")
        value, chars = self.anchors[event.anchor]
        self._charge(chars, event)
        self._place(value, event)

    def _put(self, value: object, anchor: str | None, chars: int, event: events.Event) -> None:
        self._charge(chars, event)
        if anchor is not None:
            self.anchors[anchor] = (value, chars)
        self._place(value, event)

    def _place(self, value: object, event: events.Event) -> None:
        if not self.stack:
            if len(self.documents) >= MAX_DOCUMENTS:
                self._fail(event, f"more than {MAX_DOCUMENTS:,} documents; split the text")
            self.documents.append(value)
            return
        frame = self.stack[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is not None:
            frame.value[frame.key] = value
            frame.key = None

    def _refuse_as_key(self, event: events.Event) -> None:
        frame = self.stack[-1] if self.stack else None
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            self._fail(event, "a key must be text")

    def _charge(self, chars: int, event: events.Event) -> None:
        self.chars += chars
        if self.chars > MAX_EXPANDED_CHARS:
            message = f"its aliases expand to more than {MAX_EXPANDED_CHARS:,} characters"
            raise PayloadTooLarge(message, path=_place(self.source, event.start_mark))

    def _fail(self, event: events.Event, message: str) -> NoReturn:
        raise _error(self.source, event.start_mark, message)


def _plain_value(text: str) -> object:
    """What an unquoted scalar means in the core schema."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def write_document(document: JsonObject) -> str:
    """`document` as YAML, its fields in the order that they have."""
    text: str = yaml.dump(document, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=120)
    return text
