"""Names of this service's telemetry."""

from __future__ import annotations

from typing import Final

from paracle_chassis.telemetry import Counter, Histogram

SOURCE: Final = "paracle/agent_runtime"

tasks: Final = Counter("paracle.tasks", "Tasks that ended, by status and kind of target.")
tasks_dropped: Final = Counter("paracle.tasks.dropped", "Tasks of runs that are not kept any more.")
task_duration: Final = Histogram("paracle.task.duration", "Seconds from taking a task on to its result.")
