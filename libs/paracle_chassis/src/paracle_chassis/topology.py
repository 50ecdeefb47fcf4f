"""Which streams, consumers and buckets there are: as data. `provision` makes them so, mailboxes mend their own.

Durability. What users publish (COMMANDS, INTAKE) and what failed (DEADLETTERS) is in a file at once, where a kill of
the server does not reach it, and flushed within a tenth of a second. Users are answered by the service that owns what
they sent, once PostgreSQL has what it led to.
TASKS, RESULTS and EVENTS say again what PostgreSQL holds, so on a single server they are written behind
(`persist_mode: async`): a crash of nats-server costs a delay, until tasks are handed out again and observability has
fetched the events that it misses. `Durability(relaxed=False)` writes them at once, too, as a cluster (`replicas=3`)
always does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from paracle_domain import subjects
from paracle_domain.subjects import (
    CLAIMS_BUCKET,
    COMMANDS,
    DEADLETTERS,
    DEFAULT_POOL,
    EVENTS,
    INTAKE,
    OUTPUT,
    RESULTS,
    TASKS,
)

__all__ = ["ANSWERED", "CLAIMS_BUCKET", "CLAIMS_TTL_S", "CONSUMERS", "STREAMS", "ConsumerSpec", "StreamSpec"]

_DAY_S: Final = 86_400
_NS: Final = 1_000_000_000
CLAIMS_TTL_S: Final = 7 * _DAY_S
# What is sent again must reach its service, which answers it again; only bursts of the same are cut off.
_AGAIN_S: Final = 0.1  # the least that a server takes
# Events are published again when a delivery comes again, which is within the ack wait; readers know later doubles.
_TOLD_AGAIN_S: Final = 20.0
_FIXED: Final = frozenset({"retention", "storage", "persist_mode"})


@dataclass(frozen=True, slots=True)
class Durability:
    """How much is done for streams not to be lost.

    Attributes
    ----------
    replicas
        Copies of each stream; a NATS cluster has 3.
    relaxed
        Write the streams that Postgres can rebuild (TASKS, RESULTS, EVENTS) behind. Only with one replica.
    """

    replicas: int = 1
    relaxed: bool = True


PLAIN: Final = Durability()


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream as it should be.

    Attributes
    ----------
    work_queue
        Whether a message is gone once it is acked.
    no_ack
        The server does not confirm publications: the service that takes them answers instead.
    rebuildable
        Whether Postgres can say again what it held; such streams may be relaxed.
    max_msgs
        The oldest go when there are more; 0 for as many as there are.
    kept_as
        Messages on subjects like the first are kept under subjects like the second (NATS's subject transform).
    """

    name: str
    kind: str
    work_queue: bool = False
    memory: bool = False
    no_ack: bool = False
    atomic: bool = False
    rebuildable: bool = False
    max_age_s: int = 0
    max_msgs: int = 0
    duplicate_window_s: float = 120
    kept_as: tuple[str, str] | None = None
    description: str = ""

    @property
    def subject(self) -> str:
        """The filter of everything in it."""
        tail = "*.*" if self.kind == "cmd" else ">"
        return f"{subjects.PREFIX}.*.{self.kind}.{tail}"

    def config(self, durability: Durability = PLAIN) -> dict[str, Any]:
        """The JSON that JetStream's API takes."""
        found: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "subjects": [self.subject],
            "retention": "workqueue" if self.work_queue else "limits",
            "storage": "memory" if self.memory else "file",
            "discard": "old",
            "num_replicas": durability.replicas,
            "max_age": self.max_age_s * _NS,
            "duplicate_window": int(self.duplicate_window_s * _NS),
            "no_ack": self.no_ack,
            "allow_direct": True,
            "max_msgs": self.max_msgs or -1,
            "max_bytes": -1,
            "max_consumers": -1,
            "max_msg_size": -1,
        }
        if self.kept_as is not None:
            found["subject_transform"] = dict(zip(("src", "dest"), self.kept_as, strict=True))
        if durability.relaxed and self.rebuildable and durability.replicas == 1:
            found["persist_mode"] = "async"
        elif self.atomic:
            found["allow_atomic"] = True
        return found


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer as it should be. Tries are counted by the mailbox, so the server sets no bound.

    Attributes
    ----------
    max_ack_pending
        Most messages that are out at once, with all replicas together; -1 for as many as those ask for.
    """

    stream: str
    durable: str
    filter: str
    ack_wait_s: float = 30.0
    max_ack_pending: int = 10_000

    def config(self) -> dict[str, Any]:
        """The JSON that JetStream's API takes."""
        return {
            "durable_name": self.durable,
            "name": self.durable,
            "filter_subject": self.filter,
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait_s * _NS),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_deliver": -1,
            "max_ack_pending": self.max_ack_pending,
        }


_OF_A_KIND: Final = (
    f"{subjects.PREFIX}.*.evt.*.*.*",
    f"{subjects.PREFIX}.{{{{wildcard(1)}}}}.evt.{{{{wildcard(2)}}}}.{subjects.UNNAMED}.{{{{wildcard(4)}}}}",
)

STREAMS: Final[Sequence[StreamSpec]] = (
    StreamSpec(
        COMMANDS,
        "cmd",
        work_queue=True,
        no_ack=True,
        duplicate_window_s=_AGAIN_S,
        description="Durable orders to services; answered by them, not by the server.",
    ),
    StreamSpec(
        TASKS, "task", work_queue=True, atomic=True, rebuildable=True, description="Step attempts for worker pools."
    ),
    StreamSpec(
        RESULTS, "result", work_queue=True, atomic=True, rebuildable=True, description="How tasks ended or progressed."
    ),
    StreamSpec(
        EVENTS,
        "evt",
        atomic=True,
        rebuildable=True,
        max_age_s=7 * _DAY_S,
        max_msgs=2_000_000,
        duplicate_window_s=_TOLD_AGAIN_S,
        kept_as=_OF_A_KIND,
        description="What happened, for seven days: the last two million messages.",
    ),
    StreamSpec(OUTPUT, "out", memory=True, max_age_s=600, description="Token deltas, for ten minutes."),
    StreamSpec(
        INTAKE,
        "in",
        work_queue=True,
        no_ack=True,
        duplicate_window_s=_AGAIN_S,
        description="Messages of users, on topics of theirs, until triggers have looked at them.",
    ),
    StreamSpec(
        DEADLETTERS, "dlq", max_age_s=90 * _DAY_S, duplicate_window_s=3600, description="What could not be handled."
    ),
)

ANSWERED: Final = frozenset(spec.name for spec in STREAMS if spec.no_ack)
"""Streams whose messages are answered by the service that takes them."""

_ALL: Final = f"{subjects.PREFIX}.*"


def pool_consumer(pool: str) -> ConsumerSpec:
    """The consumer of a worker pool's tasks, which all processes of the agent runtime that serve the pool share.

    A stream that is a work queue takes one consumer for a subject; a pool that somebody else serves has theirs. A lost
    process is noticed after the ack wait, which is more than a lease: what comes again can then be taken over at once.
    How many are out at once is bounded by the rooms of those processes, so the server sets no bound of its own: that
    would be one for all replicas and tenants, whatever they have room for.
    """
    durable = "agent_runtime" if pool == DEFAULT_POOL else f"agent_runtime-{pool}"
    return ConsumerSpec(TASKS, durable, subjects.task(subjects.ANY, pool), ack_wait_s=8.0, max_ack_pending=-1)


CONSUMERS: Final[Sequence[ConsumerSpec]] = (
    ConsumerSpec(COMMANDS, "orchestrator", f"{_ALL}.cmd.orchestrator.*", ack_wait_s=5.0),
    ConsumerSpec(RESULTS, "orchestrator", f"{_ALL}.result.*", ack_wait_s=5.0),
    ConsumerSpec(INTAKE, "orchestrator", f"{_ALL}.in.>", ack_wait_s=5.0),
    ConsumerSpec(EVENTS, "orchestrator", f"{_ALL}.evt.trigger.*.revised", ack_wait_s=5.0),
    ConsumerSpec(COMMANDS, "agent_runtime", f"{_ALL}.cmd.agent_runtime.*", ack_wait_s=5.0),
    pool_consumer(DEFAULT_POOL),
    ConsumerSpec(EVENTS, "agent_runtime", f"{_ALL}.evt.purge.*.runs_purged", ack_wait_s=5.0),
    ConsumerSpec(EVENTS, "observability", f"{_ALL}.evt.>"),
    ConsumerSpec(DEADLETTERS, "observability", f"{_ALL}.dlq.*"),
    ConsumerSpec(DEADLETTERS, "orchestrator", f"{_ALL}.dlq.*"),
)


_BY_KIND: Final = {spec.kind: spec for spec in STREAMS}


def stream_of_subject(subject: str) -> StreamSpec | None:
    """The stream that keeps what is published on `subject`."""
    return _BY_KIND.get(subject.split(".", 4)[3])


def differing(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where `found` differs from `wanted`, as `{key: (found, wanted)}`; what is left out of either is its zero."""
    return {
        key: (found.get(key), value)
        for key, value in wanted.items()
        if (found.get(key) or None) != (value or None) and not (value == -1 and found.get(key) is None)
    }


def unchangeable(changes: dict[str, tuple[Any, Any]]) -> list[str]:
    """Those of `changes` that a stream only takes when it is made anew."""
    return sorted(_FIXED & changes.keys())
