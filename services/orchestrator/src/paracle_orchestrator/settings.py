"""Settings of the orchestrator."""

from __future__ import annotations

from pydantic import Field

from paracle_chassis.settings import Seconds, ServiceSettings


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
    run_keep_s: Seconds | None = Field(
        None,
        ge=0,
        title="Retention",
        description="Seconds that ended runs are kept, where their workflow does not say it; for ever, if not set.",
    )
    run_keep_s_of: dict[str, Seconds | None] = Field(
        {},
        title="Retention of tenants",
        description='The same for single tenants, as JSON: {"acme": 86400, "archive": null}; null is for ever.',
    )
    run_keep_least_s: Seconds = Field(
        600.0,
        ge=0,
        title="Least retention",
        description="Seconds that every ended run is kept, whatever anybody says: until what is under way has settled.",
    )
    purge_every_s: Seconds = Field(
        10.0, gt=0, title="Purge", description="Seconds between two looks for runs whose time is over."
    )
    tenant_max_runs: int | None = Field(
        None,
        ge=0,
        title="Runs of a tenant",
        description="Most runs of a tenant at once, children not counted; others are queued. As many as there are, "
        "if not set.",
    )
    tenant_max_runs_of: dict[str, int | None] = Field(
        {},
        title="Runs of single tenants",
        description='The same for single tenants, as JSON: {"acme": 10, "big": null}; null is without a limit.',
    )
