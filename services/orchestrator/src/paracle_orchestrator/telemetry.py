"""What this service measures, and its names."""

from __future__ import annotations

from typing import Final

from paracle_chassis.telemetry import Counter, Histogram

RUNS_STARTED: Final = Counter("paracle.orchestrator.runs.started", "Runs begun.", "{run}")
RUNS_ENDED: Final = Counter(
    "paracle.orchestrator.runs.ended", "Runs that reached a terminal state, by status.", "{run}"
)
CONFLICTS: Final = Counter("paracle.orchestrator.conflicts", "Runs that another replica moved on meanwhile.", "{run}")
REPEATS: Final = Counter("paracle.orchestrator.repeats", "Messages that changed nothing.", "{message}")
STUCK: Final = Counter("paracle.orchestrator.runs.stuck", "Dead letters that runs wait for.", "{letter}")
PURGED: Final = Counter("paracle.orchestrator.runs.purged", "Ended runs that were dropped.", "{run}")
TICKS: Final = Counter("paracle.orchestrator.ticks", "Runs woken at their time.", "{run}")
COMMITTED: Final = Histogram("paracle.orchestrator.commit.runs", "Runs moved on in one commit.", "{run}")
TRIGGERED: Final = Counter("paracle.orchestrator.triggers.starts", "Starts by triggers, by cause and outcome.", "{run}")
