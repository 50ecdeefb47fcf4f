"""What is told when runs are dropped since their time is over."""

from __future__ import annotations

from typing import Final

from paracle_domain.ids import RunId
from paracle_domain.messages import Message

ENTITY: Final = "purge"


class RunsPurged(Message, type_name="runs.purged"):
    """These runs of a tenant, which had ended before `ended_before`, are not kept any more: neither is what is theirs.

    The data of the event `evt.purge.{id}.runs_purged`. After a crash it may be told before they are gone, and again.
    """

    runs: tuple[RunId, ...]
    ended_before: str
    workflow_keep_s: float | None = None
