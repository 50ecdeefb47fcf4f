"""Use case: how the deployments of a tenant stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.inference.deployments import DeploymentList, DeploymentUse, DeploymentView, ListDeployments
from paracle_provider_gateway.health import Health
from paracle_provider_gateway.plans import Deployment

type Found = Deployment | ParacleError
"""A deployment, or why it cannot be asked."""


class Deployments(Protocol):
    """Knows which deployments a tenant has."""

    async def deployments(self, tenant: str) -> Mapping[str, Found]:
        """Those that are named somewhere, by name."""
        ...

    async def deployment(self, tenant: str, name: str) -> Deployment:
        """The one of that name; raises `NotFound`, or why it cannot be asked."""
        ...


class Loads(Protocol):
    """Knows what all replicas ask of deployments that have limits."""

    async def loads(self, keys: Sequence[str]) -> Mapping[str, DeploymentUse]:
        """By `Deployment.load`; without those that were never asked."""
        ...


class DeploymentDesk:
    """Answers questions about deployments: each tenant's about its own and the operator's. `replica`: who answers."""

    def __init__(self, catalog: Deployments, loads: Loads, health: Health, replica: str) -> None:
        self._catalog = catalog
        self._loads = loads
        self._health = health
        self._replica = replica

    async def list_deployments(self, request: ListDeployments, context: Context) -> DeploymentList:
        """See `ListDeployments`."""
        found = await self._found(context.tenant, request.name)
        loads = await self._loads.loads(list(_keys(found.values())))
        views = (self._viewed(name, found[name], loads) for name in sorted(found))
        return DeploymentList(deployments=tuple(views), replica=self._replica)

    async def _found(self, tenant: str, name: str | None) -> Mapping[str, Found]:
        if name is None:
            return await self._catalog.deployments(tenant)
        return {name: await self._catalog.deployment(tenant, name)}

    def _viewed(self, name: str, found: Found, loads: Mapping[str, DeploymentUse]) -> DeploymentView:
        if isinstance(found, ParacleError):
            return DeploymentView(name=name, refused=found.message)
        breaker, rests_s, trouble = self._health.state(found)
        return DeploymentView(
            name=name,
            own=found.tenant is not None,
            sandbox=found.provider.sandbox,
            limits=found.limits,
            use=None if found.load is None else loads.get(found.load, DeploymentUse(in_air=0, requests=0, tokens=0)),
            breaker=breaker,
            rests_s=rests_s,
            trouble=None if trouble is None else trouble.message,
        )


def _keys(found: Iterable[Found]) -> Iterable[str]:
    return (one.load for one in found if isinstance(one, Deployment) and one.load is not None)
