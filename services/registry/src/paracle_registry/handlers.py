"""What the registry answers."""

from __future__ import annotations

from paracle_chassis.routes import Routes
from paracle_domain.registry import (
    ApplyManifests,
    DeleteManifests,
    ExplainAgent,
    GetSpec,
    ListProviderChanges,
    ListRevisions,
    ListSpecs,
    ListTriggerChanges,
    ResolvePlan,
)
from paracle_registry.service import RegistryService


def routes(registry: RegistryService) -> Routes:
    """The routing table."""
    table = Routes("registry")
    table.rpc(ApplyManifests, registry.apply, long=True)
    table.rpc(DeleteManifests, registry.delete, long=True)
    table.rpc(GetSpec, registry.get_spec)
    table.rpc(ListSpecs, registry.list_specs)
    table.rpc(ListRevisions, registry.list_revisions)
    table.rpc(ExplainAgent, registry.explain_agent)
    table.rpc(ResolvePlan, registry.resolve_plan)
    table.rpc(ListTriggerChanges, registry.list_trigger_changes)
    table.rpc(ListProviderChanges, registry.list_provider_changes)
    return table
