"""Names of this service's telemetry."""

from __future__ import annotations

from typing import Final

from paracle_chassis.telemetry import Counter, Gauge, Histogram

SOURCE: Final = "paracle/agent_runtime"

tasks: Final = Counter("paracle.tasks", "Tasks that ended, by status and kind of target.")
tasks_dropped: Final = Counter("paracle.tasks.dropped", "Tasks of runs that are not kept any more.")
task_duration: Final = Histogram("paracle.task.duration", "Seconds from taking a task on to its result.")
pool_tasks: Final = Gauge("paracle.pool.tasks", "Tasks of a worker pool that this process has in hand.")
pool_concurrency: Final = Gauge("paracle.pool.concurrency", "Most tasks of a worker pool that this process takes on.")
pool_open: Final = Gauge("paracle.pool.open", "Whether this process takes new tasks of a worker pool (1) or none (0).")
memory: Final = Gauge("paracle.runtime.memory", "Memory of this process that is in use.", "MiB")
