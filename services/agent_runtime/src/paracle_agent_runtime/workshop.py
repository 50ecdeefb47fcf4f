"""What all actors of a process work with."""

from __future__ import annotations

from dataclasses import dataclass

from paracle_agent_runtime.decisions import Decisions
from paracle_agent_runtime.effects import Ledger
from paracle_agent_runtime.journal import Journal
from paracle_agent_runtime.outbox import Outbox
from paracle_agent_runtime.ports import Clock, Leases, Models, Outlet
from paracle_agent_runtime.schemas import Schemas
from paracle_agent_runtime.sessions import Sessions
from paracle_agent_runtime.tools.toolbox import Toolbox
from paracle_agent_runtime.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Workshop:
    """The parts that a process shares out to its actors."""

    journal: Journal
    outbox: Outbox
    outlet: Outlet
    sessions: Sessions
    wanted: Wanted
    ledger: Ledger
    models: Models
    decisions: Decisions
    toolbox: Toolbox
    schemas: Schemas
    clock: Clock
    leases: Leases
