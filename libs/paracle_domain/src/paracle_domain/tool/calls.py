"""Calls of tools that workers answer, as they travel over NATS: `paracle.v1.{tenant}.rpc.tools.{tool}`.

The body is the arguments, the answer's body the result, both JSON. An answer with the header `paracle-error` is a
problem instead. Everything else is in headers, so that a worker in any language needs a NATS client and nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from paracle_domain import subjects
from paracle_domain.envelope import PRINCIPAL, rfc3339

SERVICE: Final = "tools"
KEY: Final = "paracle-idempotency-key"
TASK: Final = "paracle-task-id"
RUN: Final = "paracle-run-id"
DEADLINE: Final = "paracle-deadline"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: of which tool, for whom, and until when anybody waits for its answer.

    `key` is there if the tool has an effect: it is the same however often the call is made, so a worker that
    remembers it does nothing twice.
    """

    tool: str
    tenant: str
    key: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    deadline_at: datetime | None = None
    principal: str | None = None

    @property
    def subject(self) -> str:
        return subject_of(self.tool, self.tenant)

    def headers(self) -> dict[str, str]:
        """What is known of it, as it goes over the wire."""
        deadline = rfc3339(self.deadline_at.astimezone(UTC)) if self.deadline_at else None
        named = {KEY: self.key, TASK: self.task_id, RUN: self.run_id, DEADLINE: deadline, PRINCIPAL: self.principal}
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def read(cls, subject: str, headers: Mapping[str, str] | None) -> Self:
        """The call that came on `subject`. What a bare client left out is absent; so is a deadline that is no time."""
        found = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(
            tool=subject.rpartition(".")[2],
            tenant=subjects.tenant_of(subject),
            key=found.get(KEY),
            task_id=found.get(TASK),
            run_id=found.get(RUN),
            deadline_at=_time(found.get(DEADLINE)),
            principal=found.get(PRINCIPAL),
        )

    def late(self, now: datetime) -> bool:
        """Whether nobody waits for it any more: then it must not be carried out."""
        return self.deadline_at is not None and now >= self.deadline_at


def subject_of(tool: str, tenant: str) -> str:
    """Where the workers of `tool` listen for `tenant`."""
    return subjects.rpc(tenant, SERVICE, tool)


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
