"""What a conversation says: its texts, the JSON documents in it, and the records that those list."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from paracle_domain.inference.chat import ChatMessage, Role, ToolCallPart, ToolResultPart

type Record = dict[str, Any]

_DECODER: Final = json.JSONDecoder()
_OPENERS: Final = re.compile(r"[{\[]")
_SCANS: Final = 50
_TEXT_KEYS: Final = ("text", "body", "content", "message", "description", "input", "question", "prompt", "summary")
_TITLE_KEYS: Final = ("subject", "title", "headline")
_IDENTITY_KEYS: Final = ("id", "key", "path", "file", "filename", "name", "number", "url")
_NO_INFORMATION: Final = frozenset({"", "unknown", "none", "null", "n/a", "und", "tbd", "?"})


@dataclass(frozen=True)
class Matter:
    """What a value is to be about: a text with its title, the record it is from, and the records below it.

    `nth` counts values about the same thing, so that they can differ.
    """

    text: str = ""
    title: str = ""
    record: Record = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    nth: int = 0

    @cached_property
    def words(self) -> str:
        """Title and text."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    @classmethod
    def of(cls, record: Record, *, nth: int = 0) -> Matter:
        """One record as a matter of its own."""
        return cls(main_text(record), title_of(record), record, tuple(_inner_records(record)), nth)

    def again(self, nth: int) -> Matter:
        """The same matter, for another value about it."""
        return Matter(self.text, self.title, self.record, self.records, nth)


@dataclass(frozen=True)
class Reading:
    """A conversation, read.

    Attributes
    ----------
    request
        What the user wrote, whole.
    instructions
        What the system messages say.
    prose
        What the user wrote outside of JSON documents.
    documents
        JSON documents of the user's, then those of tool results.
    answers
        Calls with their results, in order; failed ones left out.
    calls
        Every call that was made so far.
    """

    request: str
    instructions: str
    prose: str
    documents: tuple[Any, ...]
    answers: tuple[tuple[ToolCallPart, ToolResultPart], ...]
    calls: tuple[ToolCallPart, ...]

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """Every object that the documents list, those of the same identity made one."""
        found = [record for document in self.documents for record in _listed(document)]
        if found:
            return _merged(found)
        return _merged(list(self._told)) if len(self._told) > 1 else ()

    @cached_property
    def _told(self) -> tuple[Record, ...]:
        """What each call told about what it was asked for; bare lists are no tellings."""
        told = [_with_arguments(call, result) for call, result in self.answers]
        return tuple(record for record in told if record is not None)

    @cached_property
    def matter(self) -> Matter:
        """The conversation as one matter."""
        fields: Record = {}
        for document in self.documents:
            if isinstance(document, dict):
                fields |= {key: value for key, value in document.items() if informative(value)}
        if len(self._told) == 1:
            fields |= self._told[0]
        results = () if len(self._told) == 1 else tuple(self._plain_results)
        texts = [self.prose.strip(), main_text(fields), *results]
        if not any(texts):
            texts = [main_text(record) for record in self.records]
        return Matter("\n".join(text for text in texts if text), title_of(fields), fields, self.records)

    @property
    def _plain_results(self) -> Iterator[str]:
        for _, result in self.answers:
            if not documents_in(result.content)[0]:
                yield result.content


def read(messages: Sequence[ChatMessage]) -> Reading:
    """Take a conversation in."""
    users = "\n\n".join(message.text for message in messages if message.role is Role.USER)
    system = "\n\n".join(message.text for message in messages if message.role is Role.SYSTEM)
    calls = tuple(call for message in messages for call in message.tool_calls)
    results = {result.call_id: result for message in messages for result in message.tool_results}
    answers = tuple((call, results[call.id]) for call in calls if call.id in results and not results[call.id].is_error)
    documents, prose = documents_in(users)
    if not documents and not prose.strip():
        documents, prose = documents_in(system)
    found = [*documents, *(d for _, result in answers for d in documents_in(result.content)[0])]
    return Reading(users, system, prose, tuple(found), answers, calls)


def documents_in(text: str) -> tuple[list[Any], str]:
    """The JSON objects and arrays in `text`, and what is around them."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return _scan(text)
    return ([whole], "") if isinstance(whole, (dict, list)) else ([], str(whole))


def leaves(document: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar with the key that it stands under; list members stand under their list's."""
    match document:
        case dict():
            for name, value in document.items():
                yield from leaves(value, name)
        case list():
            for value in document:
                yield from leaves(value, key)
        case _:
            yield key, document


def main_text(record: Record) -> str:
    """What `record` says: the field that is its text, or else all its longer words."""
    for key in _TEXT_KEYS:
        if isinstance(value := record.get(key), str):
            return value
    texts = [value for key, value in record.items() if isinstance(value, str) and key not in _IDENTITY_KEYS]
    return "\n".join(text for text in texts if " " in text)


def title_of(record: Record) -> str:
    """The title of `record`, if it has one."""
    return next((value for key in _TITLE_KEYS if isinstance(value := record.get(key), str)), "")


def identity(record: Record) -> str | None:
    """What tells `record` from its neighbours: its id, path, name…"""
    for key, value in record.items():
        if (key in _IDENTITY_KEYS or key.endswith(("_id", "Id"))) and isinstance(value, (str, int)):
            return str(value)
    return None


def informative(value: object) -> bool:
    """Whether a value says something, unlike `null`, `""` or `unknown`."""
    return value is not None and not (isinstance(value, str) and value.strip().casefold() in _NO_INFORMATION)


def _scan(text: str) -> tuple[list[Any], str]:
    found: list[Any] = []
    prose: list[str] = []
    position = 0
    for _ in range(_SCANS):
        opener = _OPENERS.search(text, position)
        if opener is None:
            break
        try:
            value, end = _DECODER.raw_decode(text, opener.start())
        except (ValueError, RecursionError):
            value, end = None, opener.end()
        prose.append(text[position : opener.start()] if value else text[position:end])
        found.extend([value] if value else [])
        position = end
    prose.append(text[position:])
    return found, "".join(prose)


def _listed(document: Any) -> Iterator[Record]:
    """Objects in lists, outermost lists first; lists within records belong to these."""
    if isinstance(document, list):
        yield from (item for item in document if isinstance(item, dict))
    elif isinstance(document, dict):
        for value in document.values():
            yield from _listed(value)


def _inner_records(record: Record) -> Iterator[Record]:
    for value in record.values():
        yield from _listed(value)


def _merged(records: list[Record]) -> tuple[Record, ...]:
    """Records of the same identity as one; what a later one knows better counts."""
    found: dict[str, Record] = {}
    for number, record in enumerate(records):
        name = identity(record) or f"\0{number}"
        found[name] = found.get(name, {}) | {key: value for key, value in record.items() if informative(value)}
        found[name] = {key: value for key, value in record.items() if key not in found[name]} | found[name]
    return tuple(found.values())


def _with_arguments(call: ToolCallPart, result: ToolResultPart) -> Record | None:
    documents, prose = documents_in(result.content)
    answer: Any = documents[0] if documents else {"text": prose}
    if not isinstance(answer, dict) or not any(isinstance(value, str) for value in answer.values()):
        return None
    return {**call.arguments, **answer}
