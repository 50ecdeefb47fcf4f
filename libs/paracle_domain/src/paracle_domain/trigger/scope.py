"""What the expressions of a trigger see, and what they come to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, tzinfo
from hashlib import sha256
from typing import Any, Final

from pydantic import JsonValue

from paracle_domain.envelope import rfc3339
from paracle_domain.errors import ExpressionFailed, quote
from paracle_domain.expressions import evaluate, truth
from paracle_domain.trigger.spec import SubjectSpec

SCHEDULE_FIELDS: Final = frozenset({"name", "scheduled_at", "scheduled_local"})
SUBJECT_FIELDS: Final = frozenset({"name", "subject", "id", "message"})
_READABLE_KEY: Final = 200

type Scope = Mapping[str, Any]


def schedule_scope(name: str, time: datetime, zone: tzinfo) -> Scope:
    """For a run at `time`: `trigger.scheduled_at` in UTC, `trigger.scheduled_local` in the schedule's zone."""
    local = time.astimezone(zone).isoformat()
    return {"trigger": {"name": name, "scheduled_at": rfc3339(time), "scheduled_local": local}}


def message_scope(name: str, topic: str, message_id: str, message: JsonValue) -> Scope:
    """For a run of a message: `message` is also `trigger.message`, beside its topic and its id."""
    return {
        "trigger": {"name": name, "subject": topic, "id": message_id, "message": message},
        "message": message,
    }


def topic_matches(pattern: str, topic: str) -> bool:
    """Whether `topic` is one of those that `pattern` (with `*` and `>`) stands for."""
    wanted, given = pattern.split("."), topic.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(w in {"*", g} for w, g in zip(wanted, given, strict=True))


def takes(spec: SubjectSpec, scope: Scope) -> bool:
    """Whether the filter lets the message of `scope` in.

    Raises
    ------
    ExpressionFailed
        If that cannot be said.
    """
    return spec.filter is None or truth(spec.filter, scope)


def dedupe_key(spec: SubjectSpec, scope: Scope) -> str | None:
    """What the message of `scope` has in common with those that start no further run; none if nothing does.

    Raises
    ------
    ExpressionFailed
        If it cannot be computed, or is null.
    """
    if spec.dedupe is None:
        return None
    value = evaluate(spec.dedupe, scope)
    if value is None:
        raise ExpressionFailed(f"{quote(spec.dedupe)} is null; a message needs a value to be told from others by")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return text if len(text) <= _READABLE_KEY else f"sha256:{sha256(text.encode()).hexdigest()}"
