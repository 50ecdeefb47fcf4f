"""The envelope of a message: CloudEvents 1.0 attributes as NATS headers (binary mode), plus who and why.

Everything in it has a default, so that a message from a bare NATS client without any header is a full citizen:
its id is then its place in the stream, its type that of its subject.

Source: CloudEvents 1.0.2 and its NATS protocol binding; W3C Trace Context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Self

from paracle_domain.ids import new_id
from paracle_domain.records import record
from paracle_domain.subjects import takes_answers

SPEC_VERSION: Final = "1.0"
MSG_ID: Final = "Nats-Msg-Id"
_MSG_ID: Final = MSG_ID.lower()
CE_ID: Final = "ce-id"
CE_TYPE: Final = "ce-type"
CE_SOURCE: Final = "ce-source"
CE_TIME: Final = "ce-time"
CE_SPECVERSION: Final = "ce-specversion"
TRACEPARENT: Final = "traceparent"
CORRELATION: Final = "paracle-correlation-id"
CAUSATION: Final = "paracle-causation-id"
PRINCIPAL: Final = "paracle-principal"
ROLES: Final = "paracle-roles"
REPLY_TO: Final = "paracle-reply-to"
CLAIM: Final = "paracle-claim"
ERROR: Final = "paracle-error"
"""Marks an answer as a problem; its value is the code."""
PROGRESS: Final = "paracle-rpc"
WORKING: Final = "working"
"""The value of `PROGRESS` where somebody still works on an answer."""

ANONYMOUS: Final = "anonymous"

_VALUE: Final = r"(\S.*)(?<=\S)\r\n"
_ALWAYS: Final = (MSG_ID, CE_SPECVERSION, CE_ID, CE_TYPE, CE_SOURCE, CE_TIME, PRINCIPAL)
_AT_TIMES: Final = (ROLES, CORRELATION, CAUSATION, TRACEPARENT, REPLY_TO)
_WRITTEN: Final = re.compile(
    r"NATS/1\.0\r\n"
    + "".join([f"{name}: {_VALUE}" for name in _ALWAYS])
    + "".join([f"(?:{name}: {_VALUE})?" for name in _AT_TIMES])
    + r"\r\n"
)
"""A block of headers as `Envelope.headers` gives them: in its order, with nothing else in it and nothing to strip."""


@record
class Context:
    """On whose behalf and in which story something happens; handed on from message to message.

    `correlation_id` is the id of the whole story (for everything that a run causes: the run's id), `causation_id`
    that of the message which led to this one. `roles` are those of the principal, as whoever let him in says.
    """

    tenant: str
    principal: str = ANONYMOUS
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    roles: tuple[str, ...] = ()

    def caused_by(self, message_id: str, correlation_id: str | None = None) -> Context:
        """The context of what follows from the message `message_id`."""
        return Context(  # spelled out, since `replace` takes twice as long and every message needs one
            self.tenant,
            self.principal,
            correlation_id or self.correlation_id,
            message_id,
            self.traceparent,
            self.roles,
        )


@record
class Envelope:
    """Headers of one message, as values."""

    id: str
    type: str
    source: str
    context: Context
    time: datetime | None = None
    reply_to: str | None = None

    @classmethod
    def wrap(cls, type_name: str, source: str, context: Context, *, id: str | None = None) -> Self:  # CloudEvents' word
        """An envelope for a new message, stamped now; `id` if its id follows from what caused it."""
        return cls(id or new_id("msg"), type_name, source, context, datetime.now(UTC))

    def headers(self) -> dict[str, str]:
        """The headers as they go on the wire; the message id doubles as JetStream's de-duplication id."""
        found = {
            MSG_ID: self.id,
            CE_SPECVERSION: SPEC_VERSION,
            CE_ID: self.id,
            CE_TYPE: self.type,
            CE_SOURCE: self.source,
            CE_TIME: rfc3339(self.time or datetime.now(UTC)),
            PRINCIPAL: self.context.principal,
        }
        context = self.context
        if context.roles:
            found[ROLES] = ",".join(context.roles)
        if context.correlation_id is not None:
            found[CORRELATION] = context.correlation_id
        if context.causation_id is not None:
            found[CAUSATION] = context.causation_id
        if context.traceparent is not None:
            found[TRACEPARENT] = context.traceparent
        if self.reply_to is not None:
            found[REPLY_TO] = self.reply_to
        return found

    @classmethod
    def read(cls, headers: Mapping[str, str] | None, *, tenant: str, default_id: str, default_type: str) -> Self:
        """The envelope of a received message; what a bare client left out is filled in."""
        headers = headers or {}
        found = dict(zip(_lowered(tuple(headers)), headers.values(), strict=True))
        if "\x00" in "".join(found.values()):  # NATS lets it pass, and PostgreSQL has no such text
            found = {name: value.replace("\x00", "\ufffd") for name, value in found.items()}
        get = found.get
        time, reply_to, roles = get(CE_TIME), get(REPLY_TO), get(ROLES)
        return cls(  # by place, as is the context: names take as long again, and every message is read
            get(CE_ID) or get(_MSG_ID) or default_id,
            get(CE_TYPE) or default_type,
            get(CE_SOURCE, "client"),
            Context(
                tenant,
                get(PRINCIPAL, ANONYMOUS),
                get(CORRELATION),
                get(CAUSATION),
                get(TRACEPARENT),
                read_roles(roles) if roles else (),
            ),
            _parse_time(time) if time else None,
            reply_to if reply_to and takes_answers(reply_to) else None,
        )

    @classmethod
    def scan(cls, head: bytes, *, tenant: str) -> Self | None:
        """The envelope in a block of headers that a service wrote, as nearly all are; `None` of any other.

        It is what `read` gives, in less than half of the time.
        """
        text = head.decode("utf-8", "replace")
        written = _WRITTEN.fullmatch(text)
        if written is None or "\x00" in text:
            return None
        _, _, own, kind, source, time, principal, roles, story, cause, trace, reply_to = written.groups()
        return cls(
            own,
            kind,
            source,
            Context(tenant, principal, story, cause, trace, read_roles(roles) if roles else ()),
            _parse_time(time),
            reply_to if reply_to and takes_answers(reply_to) else None,
        )


@lru_cache(maxsize=64)
def _lowered(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of headers, which mean the same in any case. Services write the same few ones again and again."""
    return tuple(name.lower() for name in names)


def read_roles(text: str | None) -> tuple[str, ...]:
    """The roles that a header names, separated by commas; each once, in its order."""
    if not text:
        return ()
    return tuple(dict.fromkeys(role for part in text.split(",") if (role := part.strip())))


@lru_cache(maxsize=64)
def rfc3339(time: datetime) -> str:
    """`time` (of UTC) as it stands in messages. What is decided together has one time, so a few are remembered."""
    return time.isoformat().replace("+00:00", "Z")


def _parse_time(text: str) -> datetime | None:
    """A foreign `ce-time`; one that is not RFC 3339 is no reason to refuse the message."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
