"""Settings of observability, from the environment."""

from __future__ import annotations

from pydantic import Field

from paracle_chassis.settings import Seconds, ServiceSettings


class Settings(ServiceSettings):
    """What observability needs besides what every service has."""

    store_batch: int = Field(
        1_000, ge=1, le=10_000, title="Batch", description="Most events that are stored in one transaction."
    )
    store_linger_s: Seconds = Field(
        0.2, ge=0, le=5, title="Linger", description="Seconds in which events gather before some are stored."
    )
    sweep_interval_s: Seconds = Field(
        30.0, gt=0, title="Sweep", description="Seconds between two looks for events that never came."
    )
    sweep_quiet_s: Seconds = Field(
        15.0,
        gt=0,
        title="Quiet time",
        description="Seconds that an incomplete history must be silent before its owner is asked for the rest.",
    )
    dead_letters_keep_s: Seconds = Field(
        90 * 86_400.0,
        gt=0,
        title="Dead letters",
        description="Seconds after which a dead letter that nobody redrives or drops is given up.",
    )
    audit_keep_s: Seconds | None = Field(
        None,
        gt=0,
        title="Retention",
        description="Seconds that what is told of an entity is kept after its last event; for ever, if not set.",
    )
    audit_keep_s_of: dict[str, Seconds | None] = Field(
        {},
        title="Retention of tenants",
        description='The same for single tenants, as JSON: {"acme": 2592000, "archive": null}; null is for ever.',
    )
    audit_purge_every_s: Seconds = Field(
        60.0, gt=0, title="Purge", description="Seconds between two looks for what is told too long."
    )
