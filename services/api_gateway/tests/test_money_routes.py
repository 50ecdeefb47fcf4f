"""What the routes of usage and budgets ask of the gateway."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from api_fakes import AT, RUN

from paracle_domain.budget.messages import (
    BudgetList,
    BudgetUse,
    BudgetView,
    DeleteBudget,
    ListBudgets,
    RaiseBudget,
    SetBudget,
)
from paracle_domain.budget.spec import Budget, BudgetApproval, BudgetScope, BudgetWindow, OnHit
from paracle_domain.errors import BudgetExceeded, NotFound
from paracle_domain.ids import is_id
from paracle_domain.inference.caching import CacheCleared, ClearCache
from paracle_domain.inference.deployments import DeploymentList, DeploymentUse, DeploymentView, ListDeployments
from paracle_domain.inference.ledger import (
    ListAttempts,
    Outcome,
    QueryUsage,
    Spend,
    UsageBy,
    UsageRecord,
    UsageRecords,
    UsageRow,
    UsageTable,
)

VIEW = BudgetView(
    budget=Budget(name="team", scope=BudgetScope.PROJECT, limit_usd=Decimal(5)),
    revision=2,
    set_by="ada",
    set_at=AT,
    uses=(BudgetUse(subject="atlas", period="total", spent_usd=Decimal("0.5"), limit_usd=Decimal(5)),),
)


async def test_usage_is_asked_by_several_kinds_and_filters(client, world):
    spend = Spend(attempts=3, cost_usd=Decimal("0.25"), unpriced=1)
    table = UsageTable(rows=(UsageRow(by={UsageBy.MODEL: "rules"}, spend=spend),), total=spend)
    world.bus.answers[QueryUsage] = table
    query = f"by=model&by=day&by=model&since=2026-03-01T00:00:00Z&project=atlas&run_id={RUN}&outcome=failed&limit=7"
    response = await client.get(f"/v1/usage?{query}")
    assert response.json()["total"]["cost_usd"] == "0.25"
    assert UsageTable.model_validate(response.json()) == table
    assert world.bus.asked[-1][0] == QueryUsage(
        by=(UsageBy.MODEL, UsageBy.DAY),
        since=datetime(2026, 3, 1, tzinfo=UTC),
        project="atlas",
        run_id=RUN,
        outcome=Outcome.FAILED,
        limit=7,
    )
    assert (await client.get("/v1/usage")).status_code == 200
    assert world.bus.asked[-1][0] == QueryUsage()


async def test_attempts_are_listed(client, world):
    record = UsageRecord(call_id="c", number=1, at=AT, provider="p", model="m", outcome=Outcome.COMPLETED)
    world.bus.answers[ListAttempts] = UsageRecords(records=(record,), next_cursor="x")
    response = await client.get("/v1/attempts?agent=helper&limit=1&cursor=c")
    assert response.json()["next_cursor"] == "x"
    assert "cost_usd" not in response.json()["records"][0], "unknown is not zero"
    assert world.bus.asked[-1][0] == ListAttempts(agent="helper", limit=1, cursor="c")


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("by=colour", "query.by[0]"),
        ("limit=0", "query.limit"),
        ("since=now", "query.since"),
        ("run_id=1", "query.run_id"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_its_name(client, world, query, path):
    response = await client.get(f"/v1/usage?{query}")
    assert (response.status_code, response.json()["path"]) == (422, path)
    assert world.bus.asked == []


async def test_budgets_are_listed(client, world):
    world.bus.answers[ListBudgets] = BudgetList(budgets=(VIEW,))
    response = await client.get("/v1/budgets?scope=project&subject=atlas&subjects=3&name=team")
    assert BudgetList.model_validate(response.json()).budgets == (VIEW,)
    wanted = ListBudgets(scope=BudgetScope.PROJECT, subject="atlas", subjects=3, name="team")
    assert world.bus.asked[-1][0] == wanted


async def test_a_budget_is_set(client, world):
    world.bus.answers[SetBudget] = VIEW
    body = {"scope": "run", "limit_usd": "0.5", "window": "day", "on_hit": "ask", "reason": "enough"}
    response = await client.put("/v1/budgets/team", json={**body, "approval": {"roles": ["finance"]}})
    assert BudgetView.model_validate(response.json()) == VIEW
    budget = Budget(
        name="team",
        scope=BudgetScope.RUN,
        window=BudgetWindow.DAY,
        limit_usd=Decimal("0.5"),
        on_hit=OnHit.ASK,
        approval=BudgetApproval(roles=("finance",)),
    )
    assert world.bus.asked[-1][0] == SetBudget(budget=budget, reason="enough")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "limit_usd, limit_tokens, or both"),
        ({"limit_usd": "-1"}, "greater than 0"),
        ({"limit_usd": "1", "on_hit": "model"}, "name the model that is asked instead"),
        ({"limit_usd": "1", "on_hit": "model", "model": "a\0"}, "model"),
        ({"limit_usd": "1", "colour": "red"}, "colour"),
        ({"limit_usd": "1", "approval": {"quorum": 2, "principals": ["ann"]}}, "cannot be reached"),
    ],
)
async def test_a_budget_that_makes_no_sense_is_refused(client, world, body, says):
    response = await client.put("/v1/budgets/team", json=body)
    assert response.status_code == 422
    assert says in response.text
    assert world.bus.asked == []


async def test_a_budget_is_deleted(client, world):
    world.bus.answers[DeleteBudget] = VIEW
    assert (await client.delete("/v1/budgets/team?reason=over")).status_code == 200
    assert world.bus.asked[-1][0] == DeleteBudget(name="team", reason="over")
    world.bus.answers[DeleteBudget] = NotFound("there is no budget 'team'")
    assert (await client.delete("/v1/budgets/team")).status_code == 404


async def test_a_budget_is_raised_once_for_a_key(client, world):
    world.bus.answers[RaiseBudget] = VIEW
    body = {"subject": "atlas", "usd": "5"}
    for key in ("a", "a", "b"):
        response = await client.post("/v1/budgets/team/raise", json=body, headers={"Idempotency-Key": key})
        assert response.status_code == 200
    first, second, third = (asked.key for asked, *_ in world.bus.asked)
    assert (first == second, first == third, is_id(first, "msg")) == (True, False, True)
    await client.post("/v1/budgets/team/raise", json=body)
    assert world.bus.asked[-1][0].usd == Decimal(5)
    assert (await client.post("/v1/budgets/team/raise", json={"subject": "atlas"})).status_code == 422


async def test_a_budget_that_is_used_up_says_which_and_how_far(client, world):
    details = {"budget": "team", "spent_usd": "5.01", "limit_usd": "5"}
    world.bus.answers[ListBudgets] = BudgetExceeded("budget team is used up", details=details)
    response = await client.get("/v1/budgets")
    assert response.status_code == 402
    problem = response.json()
    assert (problem["code"], problem["details"]) == ("budget_exceeded", details)


async def test_deployments_are_listed_or_one_is_shown(client, world):
    view = DeploymentView(name="mine/a", own=True, use=DeploymentUse(in_air=1, requests=2, tokens=3))
    world.bus.answers[ListDeployments] = DeploymentList(deployments=(view,), replica="rep_1")
    response = await client.get("/v1/deployments")
    assert DeploymentList.model_validate(response.json()).deployments == (view,)
    assert world.bus.asked[-1][0] == ListDeployments()
    await client.get("/v1/deployments?name=mine/a")
    assert world.bus.asked[-1][0] == ListDeployments(name="mine/a")
    refused = await client.get("/v1/deployments?name=a")
    assert (refused.status_code, refused.json()["path"]) == (422, "query.name")


async def test_cached_answers_are_dropped(client, world):
    world.bus.answers[ClearCache] = CacheCleared(answers=3)
    response = await client.delete("/v1/cache")
    assert (response.status_code, response.json()) == (200, {"answers": 3})
    assert world.bus.asked[-1][0] == ClearCache()
