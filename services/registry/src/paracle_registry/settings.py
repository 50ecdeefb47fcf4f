"""Settings of the registry, from the environment."""

from __future__ import annotations

from pydantic import Field

from paracle_chassis.settings import Seconds, ServiceSettings


class Settings(ServiceSettings):
    """What the registry needs besides what every service has."""

    outbox_interval_s: Seconds = Field(
        5.0,
        gt=0,
        title="Outbox",
        description="Seconds between two looks for events that could not be published before.",
    )
