"""JSON logs on stderr, one object a line, with the ids of the story that they belong to, and never a payload."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, override

from paracle_domain.envelope import Envelope

_story: ContextVar[dict[str, str]] = ContextVar("paracle_story", default={})  # noqa: B039  # never mutated, only replaced
_STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
_QUIET: Final = ("nats", "faststream", "uvicorn", "uvicorn.access", "asyncio", "opentelemetry")


@contextmanager
def story(**ids: str | None) -> Iterator[None]:
    """Within it, every log line carries `ids` (those that are not `None`) besides the ones around it."""
    token = _story.set(_story.get() | {name: value for name, value in ids.items() if value is not None})
    try:
        yield
    finally:
        _story.reset(token)


def envelope_story(envelope: Envelope) -> dict[str, str | None]:
    """The ids that log lines about a message carry."""
    context = envelope.context
    return {
        "tenant": context.tenant,
        "message_id": envelope.id,
        "correlation_id": context.correlation_id,
        "causation_id": context.causation_id,
        "trace_id": context.traceparent[3:35] if context.traceparent else None,
    }


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; `extra` values are members of their own."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "story", {}),
        }
        line.update((name, value) for name, value in record.__dict__.items() if name not in _STANDARD | {"story"})
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _StoryFilter(logging.Filter):
    """Attaches the story at the moment of logging, on the task that logs."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        record.story = _story.get()
        return True


def configure(service: str, level: str) -> None:
    """Log as JSON to stderr from now on; libraries only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    handler.addFilter(_StoryFilter())
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, JsonFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
