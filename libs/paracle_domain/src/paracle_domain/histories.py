"""Which histories there are: asked by the services that keep copies of them, of all tenants at once.

Only services may ask on behalf of `subjects.EVERYONE`, which no tenant can be called.
"""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from paracle_domain.messages import Message, Request, Value


class Begun(Value):
    """A run or a task, and when its first event happened."""

    tenant: str
    id: str
    at: AwareDatetime


class Beginnings(Message, type_name="histories.begun"):
    """Histories in the order in which they began. A full page may not be the last."""

    begun: tuple[Begun, ...]


class ListRunsBegun(
    Request[Beginnings], service="orchestrator", method="list_runs_begun", answer=Beginnings, query=True
):
    """Runs that began from `since` on and before `until`; of those that began at `since`, the ids after `after`."""

    since: AwareDatetime
    until: AwareDatetime
    after: str = ""
    limit: int = Field(default=1_000, ge=1, le=10_000)


class ListTasksBegun(
    Request[Beginnings], service="agent_runtime", method="list_tasks_begun", answer=Beginnings, query=True
):
    """Tasks with a history that began from `since` on and before `until`; like `ListRunsBegun`."""

    since: AwareDatetime
    until: AwareDatetime
    after: str = ""
    limit: int = Field(default=1_000, ge=1, le=10_000)
