"""NATS subjects and streams of contract v1: built and taken apart here and nowhere else.

    paracle.v1.{tenant}.cmd.{service}.{verb}        stream COMMANDS
    paracle.v1.{tenant}.rpc.{service}.{method}      core request/reply, queue group = service
    paracle.v1.{tenant}.task.{pool}                 stream TASKS
    paracle.v1.{tenant}.result.{run_id}             stream RESULTS
    paracle.v1.{tenant}.evt.{entity}.{id}.{event}   stream EVENTS
    paracle.v1.{tenant}.out.{task_id}               stream OUTPUT
    paracle.v1.{tenant}.in.{topic…}                 stream INTAKE; a topic has one token or more
    paracle.v1.{tenant}.dlq.{service}               stream DEADLETTERS

The tenant is always the third token, so that the broker can enforce it.

The stream EVENTS keeps events of one kind under one subject, with `_` for the id: nats-server has every subject of a
stream in memory, and there is no end of ids. The body says whose event it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args, override

from paracle_domain.errors import MalformedMessage, quote

PREFIX: Final = "paracle.v1"
DEFAULT_TENANT: Final = "default"
DEFAULT_POOL: Final = "agents"
"""The worker pool of every task whose specs name no other."""
EVERYONE: Final = "_everyone"
"""Stands for all tenants where services ask one another; no tenant is called so."""

COMMANDS: Final = "COMMANDS"
TASKS: Final = "TASKS"
RESULTS: Final = "RESULTS"
EVENTS: Final = "EVENTS"
OUTPUT: Final = "OUTPUT"
INTAKE: Final = "INTAKE"
DEADLETTERS: Final = "DEADLETTERS"
CLAIMS_BUCKET: Final = "paracle-claims"

type SubjectKind = Literal["cmd", "rpc", "task", "result", "evt", "out", "in", "dlq"]

STREAM_OF: Final[dict[str, str]] = {
    "cmd": COMMANDS,
    "task": TASKS,
    "result": RESULTS,
    "evt": EVENTS,
    "out": OUTPUT,
    "in": INTAKE,
    "dlq": DEADLETTERS,
}
MAX_TOPIC_TOKENS: Final = 16
_TAIL_TOKENS: Final[dict[str, range]] = {
    "cmd": range(2, 3),
    "rpc": range(2, 3),
    "task": range(1, 2),
    "result": range(1, 2),
    "evt": range(3, 4),
    "out": range(1, 2),
    "in": range(1, MAX_TOPIC_TOKENS + 1),
    "dlq": range(1, 2),
}
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TAILS: Final = "|".join(
    rf"{kind}(?:\.[A-Za-z0-9_-]{{1,64}}){{{least[0]},{least[-1]}}}" for kind, least in _TAIL_TOKENS.items()
)
_SUBJECT: Final = re.compile(rf"paracle\.v1\.[A-Za-z0-9_-]{{1,64}}\.(?:{_TAILS})")
_ORDERS: Final = ("$", "paracle.")
MOST_INBOX: Final = 512
"""Characters of a subject that answers go to: with all else in its line far below the 4 KiB that a server takes."""
ANY: Final = "*"
UNNAMED: Final = "_"
"""For the id, in the subjects under which EVENTS keeps its messages."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A parsed subject. `str(subject)` is what goes on the wire."""

    tenant: str
    kind: SubjectKind
    tail: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take `text` apart.

        Raises
        ------
        MalformedMessage
            If it is no subject of contract v1.
        """
        parts = text.split(".")
        if len(parts) < 5 or ".".join(parts[:2]) != PREFIX:
            raise MalformedMessage(f"{quote(text)} is no subject of {PREFIX}: expected {PREFIX}.{{tenant}}.{{kind}}.…")
        tenant, kind, tail = parts[2], parts[3], tuple(parts[4:])
        if kind not in _TAIL_TOKENS:
            known = ", ".join(get_args(SubjectKind.__value__))
            raise MalformedMessage(f"subject {quote(text)}: kind {kind!r} is unknown; known are {known}")
        if len(tail) not in _TAIL_TOKENS[kind] or not all(_TOKEN.fullmatch(t) for t in (tenant, *tail)):
            raise MalformedMessage(f"subject {quote(text)}: {kind} takes {_bounds(kind)} tokens of [A-Za-z0-9_-]")
        return cls(tenant, kind, tail)  # type: ignore[arg-type]  # membership in _TAIL_TOKENS was just checked

    @override
    def __str__(self) -> str:
        return f"{PREFIX}.{self.tenant}.{self.kind}.{'.'.join(self.tail)}"


def _bounds(kind: str) -> str:
    allowed = _TAIL_TOKENS[kind]
    return str(allowed[0]) if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"


def tenant_of(subject: str) -> str:
    """The tenant token of a subject that this process is subscribed to."""
    return subject.split(".", 3)[2]


def is_subject(text: str) -> bool:
    """Whether `text` is a subject of contract v1: a quicker look than `Subject.parse`, which says what is wrong."""
    return _SUBJECT.fullmatch(text) is not None


def takes_answers(text: str) -> bool:
    """Whether an answer may go to `text`, which whoever asks has named: not to where it would be an order.

    Services may publish what their callers may not: what is below `$` is for servers, what is below `paracle` for us.
    A header has room for more than a server takes for a subject; it ends the connection of whoever says such a one.
    """
    return 0 < len(text) <= MOST_INBOX and not text.startswith(_ORDERS)


def is_token(text: str) -> bool:
    """Whether `text` can be a single subject token (and so a tenant, a service or a pool)."""
    return _TOKEN.fullmatch(text) is not None


def cmd(tenant: str, service: str, verb: str) -> str:
    return f"{PREFIX}.{tenant}.cmd.{service}.{verb}"


def rpc(tenant: str, service: str, method: str) -> str:
    return f"{PREFIX}.{tenant}.rpc.{service}.{method}"


def task(tenant: str, pool: str) -> str:
    return f"{PREFIX}.{tenant}.task.{pool}"


def result(tenant: str, run_id: str) -> str:
    return f"{PREFIX}.{tenant}.result.{run_id}"


def results(tenant: str) -> str:
    """Where results of several runs go together."""
    return f"{PREFIX}.{tenant}.result.together"


def evt(tenant: str, entity: str, entity_id: str, event: str) -> str:
    return f"{PREFIX}.{tenant}.evt.{entity}.{entity_id}.{event}"


def kept_as(subject: str) -> str:
    """The subject under which its stream keeps what is published on `subject`, which is one of contract v1."""
    found = Subject.parse(subject)
    if found.kind != "evt":
        return subject
    entity, _, event = found.tail
    return evt(found.tenant, entity, UNNAMED, event)


def out(tenant: str, task_id: str) -> str:
    return f"{PREFIX}.{tenant}.out.{task_id}"


def intake(tenant: str, topic: str) -> str:
    """Where a message on `topic` (tokens with dots between them) is published for triggers to take."""
    return f"{PREFIX}.{tenant}.in.{topic}"


def dlq(tenant: str, service: str) -> str:
    return f"{PREFIX}.{tenant}.dlq.{service}"
