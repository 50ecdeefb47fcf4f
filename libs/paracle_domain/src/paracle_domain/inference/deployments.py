"""How deployments stand: what they may be asked, what of that is in use, and which are left in peace."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from paracle_domain.inference.response import BreakerState
from paracle_domain.messages import Message, Plain, Request, Value
from paracle_domain.provider.spec import DeploymentLimits


class DeploymentUse(Value):
    """What all replicas have under way, and asked within the last minute; tokens with those that are reserved."""

    in_air: int = Field(ge=0)
    requests: int = Field(ge=0)
    tokens: int = Field(ge=0)


class DeploymentView(Value):
    """One model at one provider. `own`: the tenant set the provider up, else the operator did, for all tenants.

    `limits` hold for all replicas together; `use`, of what is limited, is absent where nothing is. `breaker`, `rests_s`
    (how long it is left in peace) and `trouble` (its latest failure, if there was one of late) are what one replica
    knows.
    `refused` says why it cannot be asked at all.
    """

    name: str = Field(description="provider/model")
    own: bool = False
    sandbox: bool = False
    limits: DeploymentLimits = DeploymentLimits()
    use: DeploymentUse | None = None
    breaker: BreakerState = BreakerState.CLOSED
    rests_s: float = Field(default=0.0, ge=0)
    trouble: str | None = None
    refused: str | None = None


class DeploymentList(Message, type_name="inference.deployments"):
    """Deployments by name; `replica` is the one of the gateway whose breakers are shown."""

    deployments: tuple[DeploymentView, ...]
    replica: str


class ListDeployments(
    Request[DeploymentList], service="provider_gateway", method="list_deployments", answer=DeploymentList, query=True
):
    """Those that the tenant's manifests and the operator's providers name, and that it asked of late; or only `name`.

    Each replica has breakers of its own, and knows what it was asked itself: the one that answers shows its.
    """

    name: Annotated[Plain, Field(min_length=3, max_length=200)] | None = None
