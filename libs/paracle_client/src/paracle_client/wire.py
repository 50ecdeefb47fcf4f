"""What both clients share: from responses to messages and errors, when to try again, and server-sent events."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import httpx2

from paracle_domain.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    MalformedMessage,
    ParacleError,
    Unavailable,
    from_problem,
    quote,
)
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Message
from paracle_domain.task.output import TaskOutput

USER_AGENT: Final = "paracle-client/1.0"
ATTEMPTS: Final = 3
STREAM_TIMEOUT: Final = httpx2.Timeout(10.0, read=45.0)
STREAM_PATIENCE_S: Final = 60.0
PRINCIPAL: Final = "x-paracle-principal"
ROLES: Final = "x-paracle-roles"
TERMINAL_EVENTS: Final = frozenset({"run.completed", "run.degraded", "run.failed", "run.cancelled", "run.timed_out"})
_EVENT_STREAM: Final = "text/event-stream"
_QUOTED: Final = 300
_UNSENDABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST_PAUSE_S: Final = 5.0


def options(url: str, timeout_s: float, principal: str | None, roles: Sequence[str]) -> dict[str, Any]:
    """Arguments for an HTTP client that talks to Paracle at `url`; a proxy is never asked for this machine's own."""
    host = _host_of(url)
    if not host:
        message = f"url: {url!r} is not an address such as http://127.0.0.1:8080"
        raise InvalidInput(message, path="url")
    local = host in {"127.0.0.1", "localhost", "::1"}
    return {
        "base_url": url.rstrip("/"),
        "timeout": timeout_s,
        "trust_env": not local,
        "headers": {"user-agent": USER_AGENT} | _identity(principal, roles),
    }


def _host_of(url: str) -> str | None:
    """The host that `url` names; nothing, if it is no address."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises, if it is none
    except ValueError:
        return None
    return parts.hostname if parts.scheme in {"http", "https"} else None


def _identity(principal: str | None, roles: Sequence[str]) -> dict[str, bytes]:
    """Headers that say who calls: believed only by an API that was told to, and refused by any other."""
    found = {} if principal is None else {PRINCIPAL: header_value(principal, "principal")}
    return found | ({ROLES: header_value(",".join(roles), "roles")} if roles else {})


def headers(given: Mapping[str, str]) -> dict[bytes, bytes]:
    """The headers of a call."""
    return {name.encode(): header_value(value, name.replace("-", "_")) for name, value in given.items()}


def header_value(text: str, field: str) -> bytes:
    """`text` as a header carries it.

    Raises
    ------
    InvalidInput
        If no header can; it names the `field`.
    """
    if _UNSENDABLE.search(text) or text != text.strip():
        message = f"{quote(text)} cannot be sent: it has a blank at its end, a control character, or is no text"
        raise InvalidInput(message, path=field)
    return text.encode()


def pause_s(attempt: int, error: ParacleError | None = None) -> float:
    """Seconds before try number `attempt + 1`: as the server says, else doubling from 0.1."""
    if error is not None and error.retry_after_s is not None:
        return min(error.retry_after_s, _LONGEST_PAUSE_S)
    return min(0.1 * 2.0 ** min(attempt - 1, 10), _LONGEST_PAUSE_S)


def timeout(patience_s: float | None) -> Any:
    """How long a call may take: its own time, if it has one, else the client's."""
    return httpx2.USE_CLIENT_DEFAULT if patience_s is None else patience_s


def worth_retrying(error: ParacleError, attempt: int) -> bool:
    """Whether to send the same again: a part of Paracle was not there, or silent, and we have not tried often.

    Where the caller's own patience (`timeout_s`) is over, it is not asked for again.
    """
    impatient = isinstance(error.__cause__, httpx2.TimeoutException)
    return isinstance(error, (Unavailable, DeadlineExceeded)) and not impatient and attempt < ATTEMPTS


def answer[R: Message](response: httpx2.Response, kind: type[R]) -> R:
    """The message in `response`; its problem, raised, if it is one."""
    if response.is_success:
        try:
            return kind.model_validate_json(response.content)
        except ValueError as error:
            message = f"{response.request.url} answered something that is not a {kind.type_name}; is it Paracle?"
            raise MalformedMessage(message) from error
    raise failure(response)


def failure(response: httpx2.Response) -> ParacleError:
    """The error that `response` (whose body is read) tells of."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "code" in problem:
        return from_problem(problem)
    text = response.text[:_QUOTED]
    message = f"{response.request.method} {response.request.url} was answered with {response.status_code}: {text}"
    return Unavailable(message) if response.status_code in {502, 503, 504} else InternalError(message)


def unreachable(error: httpx2.RequestError, url: str) -> ParacleError:
    """What a failure of the connection means to a caller."""
    if isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout):
        return DeadlineExceeded(f"Paracle at {url} did not answer in time; see `paracle status`")
    reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    return Unavailable(f"cannot reach Paracle at {url} ({reason}); `paracle up` starts it here, --url names another")


def require_stream(response: httpx2.Response) -> None:
    """Refuse to read events from what is no event stream."""
    kind = response.headers.get("content-type", "")
    if not kind.startswith(_EVENT_STREAM):
        message = f"{response.request.url} answered {kind or 'nothing'} instead of an event stream; is it Paracle?"
        raise MalformedMessage(message)


def stream_headers(after: int) -> dict[str, str]:
    """Headers that ask for what comes after `after`."""
    return {"accept": _EVENT_STREAM, "last-event-id": str(after)}


@dataclass(slots=True)
class EventLines:
    """Turns the lines of a server-sent event stream into events. Comments and unknown fields are ignored."""

    _data: list[str] = field(default_factory=list)

    def feed(self, line: str) -> EventRecord | None:
        """Take one line, without its end; an empty one ends an event."""
        text = self.text(line)
        return None if text is None else _record(text)

    def text(self, line: str) -> str | None:
        """Take one line; the data of the event that it ends, if it does."""
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
            return None
        if not self._data:
            return None
        text, self._data = "\n".join(self._data), []
        return text


def output_of(text: str) -> TaskOutput:
    """What a task said, as an event of its stream has it."""
    value = _object(text)
    try:
        return TaskOutput.model_validate(value)
    except ValueError:
        _not_an_event(text)


def _record(text: str) -> EventRecord:
    """The event in `text`."""
    value = _object(text)
    try:
        return EventRecord.model_validate(value)
    except ValueError:
        _not_an_event(text)


def _object(text: str) -> dict[str, Any]:
    """The data of an event; an error that the server sent within the stream is raised."""
    try:
        value = json.loads(text)
    except ValueError:
        _not_an_event(text)
    if not isinstance(value, dict):
        _not_an_event(text)
    if "code" in value and "seq" not in value:
        raise from_problem(value)
    return value


def _not_an_event(text: str) -> NoReturn:
    message = f"the event stream holds something that is not an event: {text[:_QUOTED]}"
    raise MalformedMessage(message)


@dataclass(slots=True)
class Cursor:
    """Where a follower of a run or a task stands: `after` is the last number that it saw.

    `failing_since` is when it began to fail, which is not when the server last sent anything: a reader may take its
    time with what came.
    """

    after: int = 0
    done: bool = False
    failing_since: float | None = None
    failures: int = 0
    told: str = ""

    def heard(self) -> None:
        self.failing_since, self.failures = None, 0

    def pause_s(self, error: ParacleError | None) -> float:
        """Seconds until the broken stream is asked for again; raises `error` if that is no use any more."""
        now = time.monotonic()
        self.failing_since = now if self.failing_since is None else self.failing_since
        if error is not None and (not error.retryable or now - self.failing_since > STREAM_PATIENCE_S):
            raise error
        self.failures += 1
        return pause_s(self.failures, error)

    def take(self, record: EventRecord) -> Iterator[EventRecord]:
        """`record`, unless it was seen before (a resumed stream may begin with what was the last).

        What is told beside the history (that the run is stuck) has no number in it.
        """
        if record.entity != "run":
            told, self.told = self.told, f"{record.id}.{record.seq}"
            if told != self.told:
                yield record
            return
        if record.seq <= self.after:
            return
        self.after = record.seq
        self.done = record.type in TERMINAL_EVENTS
        yield record

    def hear(self, output: TaskOutput) -> None:
        """Take what a task said. Its cursors may start anew, after a restart of NATS."""
        self.after = output.seq
        self.done = output.ended
