"""What the provider gateway answers and hears."""

from __future__ import annotations

from paracle_chassis.delivery import Delivery
from paracle_chassis.routes import Routes
from paracle_domain import subjects
from paracle_domain.budget.messages import DeleteBudget, ListBudgets, RaiseBudget, SetBudget
from paracle_domain.inference.caching import ClearCache
from paracle_domain.inference.deployments import ListDeployments
from paracle_domain.inference.embedding import Embed
from paracle_domain.inference.ledger import ListAttempts, QueryUsage
from paracle_domain.inference.request import AbortCall, Complete, ListModels, abort_subject
from paracle_provider_gateway.budgets import BudgetDesk
from paracle_provider_gateway.cache_desk import CacheDesk
from paracle_provider_gateway.deployments import DeploymentDesk
from paracle_provider_gateway.service import Completions
from paracle_provider_gateway.usage import UsageDesk


def routes(
    completions: Completions, deployments: DeploymentDesk, budgets: BudgetDesk, usage: UsageDesk, cache: CacheDesk
) -> Routes:
    """The routing table."""

    async def abort(delivery: Delivery) -> None:
        await completions.abort(delivery.tenant, delivery.decode(AbortCall))

    table = Routes("provider_gateway")
    table.rpc(Complete, completions.complete, long=True)
    table.rpc(Embed, completions.embed, long=True)
    table.rpc(ListModels, completions.list_models)
    table.rpc(ListDeployments, deployments.list_deployments)
    table.rpc(QueryUsage, usage.query_usage)
    table.rpc(ListAttempts, usage.list_attempts)
    table.rpc(SetBudget, budgets.set_budget)
    table.rpc(DeleteBudget, budgets.delete_budget)
    table.rpc(RaiseBudget, budgets.raise_budget)
    table.rpc(ListBudgets, budgets.list_budgets)
    table.rpc(ClearCache, cache.clear_cache)
    table.listen(abort_subject(subjects.ANY), abort)
    return table
