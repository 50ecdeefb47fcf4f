"""A registry of providers and models in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from paracle_chassis.routes import Routes
from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.messages import JsonObject
from paracle_domain.registry import ListProviderChanges, ProviderChange, ProviderChanges

type Kind = Literal["Provider", "Model"]


@dataclass
class MemoryRegistry:
    """`Registry`: what each tenant applied; `asked` counts the questions, `failure` is raised instead of answers."""

    changed: dict[tuple[str, Kind, str], ProviderChange] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    page: int = 200
    asked: int = 0
    failure: ParacleError | None = None

    def put(self, tenant: str, kind: Kind, name: str, spec: JsonObject | None) -> None:
        """A new revision; `None` deletes."""
        old = self.changed.get((tenant, kind, name))
        version = self.versions[tenant] = self.versions.get(tenant, 0) + 1
        revision = 1 if old is None else old.revision + 1
        self.changed[tenant, kind, name] = ProviderChange(
            kind=kind, name=name, revision=revision, spec=spec, version=version
        )

    def provider(self, name: str, tenant: str = "acme", **spec: Any) -> None:
        self.put(tenant, "Provider", name, spec)

    def model(self, name: str, *routes: str, tenant: str = "acme", **spec: Any) -> None:
        self.put(tenant, "Model", name, {"routes": [{"model": route} for route in routes], **spec})

    async def changes(self, tenant: str, after: int) -> ProviderChanges:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        found = [item for (owner, *_), item in self.changed.items() if owner == tenant and item.version > after]
        found.sort(key=lambda item: item.version)
        page, more = found[: self.page], len(found) > self.page
        version = page[-1].version if more else self.versions.get(tenant, 0)
        return ProviderChanges(changes=tuple(page), version=max(version, after), more=more)

    def routes(self) -> Routes:
        """It as a service."""

        async def answer(request: ListProviderChanges, call: Context) -> ProviderChanges:
            return await self.changes(call.tenant, request.after)

        table = Routes("registry")
        table.rpc(ListProviderChanges, answer)
        return table


@dataclass
class MemorySetups:
    """`Setups` in memory; `failures` are raised first."""

    manifests: dict[str, Sequence[ProviderChange]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)

    async def kept(self, tenant: str) -> Sequence[ProviderChange] | None:
        self._fail()
        return self.manifests.get(tenant)

    async def keep(self, tenant: str, version: int, manifests: Sequence[ProviderChange]) -> None:
        self._fail()
        if version >= self.versions.get(tenant, 0):
            self.versions[tenant], self.manifests[tenant] = version, tuple(manifests)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
