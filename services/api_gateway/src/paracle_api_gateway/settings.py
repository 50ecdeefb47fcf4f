"""Settings of the API, from the environment."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from paracle_chassis.settings import Seconds, ServiceSettings

MIB = 1024 * 1024


def _reachable(host: str, info: ValidationInfo) -> str:
    """Nobody but this machine may reach an API that does not authenticate."""
    if not info.data.get("api_allow_unauthenticated") and not is_loopback(host):
        raise ValueError(
            "others can reach this address, and the API does not authenticate: use 127.0.0.1, or set "
            "PARACLE_API_ALLOW_UNAUTHENTICATED=true if something in front of it does"
        )
    return host


class Settings(ServiceSettings):
    """What the API needs besides what every service has. Health is served on the API's own port."""

    api_allow_unauthenticated: bool = Field(
        default=False,
        title="Allow unauthenticated",
        description="Listen on other addresses too, for a container behind something that authenticates.",
    )
    api_trust_identity: bool = Field(
        default=False,
        title="Trust identity",
        description="Believe X-Paracle-Principal and X-Paracle-Roles, set by what authenticates in front of it.",
    )
    api_host: Annotated[str, AfterValidator(_reachable)] = Field(
        "127.0.0.1",
        min_length=1,
        title="Address",
        description="Address that the API listens on; only a loopback one, since it does not authenticate.",
    )
    api_port: int = Field(
        8080,
        ge=0,
        le=65535,
        title="Port",
        description="Port of the API and of /livez and /readyz; 0 takes any free one.",
    )
    api_body_limit: int = Field(
        4 * MIB, ge=1024, le=64 * MIB, title="Body limit", description="Largest request body in bytes."
    )
    api_command_timeout_s: Seconds = Field(
        10.0, gt=0, title="Command timeout", description="Seconds to wait until a start or a cancel is on disk."
    )
    sse_poll_s: Seconds = Field(
        1.0,
        gt=0,
        title="Poll",
        description="Seconds after which a followed run is asked for news even if none were announced.",
    )
    sse_keep_alive_s: Seconds = Field(
        15.0, gt=0, title="Keep-alive", description="Seconds of silence after which an event stream sends a comment."
    )


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, in brackets or not) is this machine and nothing else."""
    bare = host.strip("[]")
    if bare.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False
