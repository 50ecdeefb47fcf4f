"""Triggers: followed from the registry, watched, and turned into starts of runs.

registry ── events, RPC ──► following ──► store ◄── service (pause, resume, fire, look)
│  │
clock ──► schedules ◄──┘  └──► intake ◄── stream INTAKE
└──► starter ◄────┘
└──► cmd.orchestrator.start_run
"""

from __future__ import annotations

from paracle_orchestrator.triggers.watch import Watch

__all__ = ["Watch"]
