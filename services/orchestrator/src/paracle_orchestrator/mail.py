"""What comes in for runs, a run as this replica knows it, and what became of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.records import record
from paracle_domain.run.inbox import RunMessage, Tick
from paracle_domain.run.machine import RunMachine
from paracle_domain.run.state import RunState
from paracle_orchestrator.plans import Pinned


@record
class Mail:
    """A message for a run. `cause` is its id; `pinned` and `facts` come with a `Begin`."""

    run_id: str
    cause: str
    message: RunMessage
    context: Context
    redelivered: bool = False
    pinned: Pinned | None = None
    facts: Mapping[str, Any] | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether it may have been handled before, if it changes nothing now. Most ticks simply come too early."""
        return self.redelivered or not isinstance(self.message, Tick)


@dataclass(slots=True)
class Entry:
    """A run as this replica knows it; another one may have moved it on."""

    id: str
    tenant: str
    machine: RunMachine
    state: RunState
    facts: Mapping[str, Any]
    wake_at: datetime | None = None


@dataclass(slots=True)
class Handled:
    """What became of a batch: the runs that its mail was for, what mail began one, and what they would not do.

    `broken`: runs that cannot be read, decided upon or told of, and why. Their mail is to fail, and to come again.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    begun: set[tuple[str, str]] = field(default_factory=set)
    refused: dict[tuple[str, str], ParacleError] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)

    def refusal(self, mail: Mail) -> ParacleError | None:
        """Why the run would not do what `mail` said, if so."""
        return self.refused.get((mail.run_id, mail.cause))
