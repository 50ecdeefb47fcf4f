"""Settings of the orchestrator."""

from __future__ import annotations

from pydantic import Field

from paracle_chassis.settings import ServiceSettings


class OrchestratorSettings(ServiceSettings):
    """What the orchestrator needs to know, besides what every service does."""

    batch: int = Field(
        500, ge=1, le=5_000, title="Batch", description="Most messages that are decided and committed together."
    )
    cached_runs: int = Field(
        20_000,
        ge=1,
        title="Cached runs",
        description="Runs whose state is kept in memory; others are folded from their history when mail comes.",
    )
