"""What was spent and what may be: asked and set by the clients and by the command line."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from paracle_client import AsyncClient, Client
from paracle_client.cli.target import moment
from paracle_client.cli.usage_commands import _kinds, money, parse_by
from paracle_domain.budget.messages import BudgetList, BudgetUse, BudgetView
from paracle_domain.budget.spec import Budget, BudgetScope
from paracle_domain.errors import InvalidInput
from paracle_domain.inference.caching import CacheCleared
from paracle_domain.inference.deployments import DeploymentList, DeploymentUse, DeploymentView
from paracle_domain.inference.ledger import (
    Outcome,
    Spend,
    UsageBy,
    UsageFilter,
    UsageRecord,
    UsageRecords,
    UsageRow,
    UsageTable,
)
from paracle_domain.inference.response import BreakerState
from paracle_domain.provider.spec import DeploymentLimits

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOME = Spend(attempts=1200, failed=3, input_tokens=45_000, output_tokens=900, cost_usd=Decimal("12.5"))
OPEN = Spend(attempts=2, open=1, cost_usd=Decimal("0.0000156"), unpriced=1, reserved_usd=Decimal("0.02"))
TABLE = UsageTable(
    rows=(
        UsageRow(by={UsageBy.MODEL: "rules", UsageBy.DAY: "2026-03-01"}, spend=SOME),
        UsageRow(by={UsageBy.DAY: "2026-03-01"}, spend=OPEN),
    ),
    total=Spend(attempts=1202, failed=3, input_tokens=45_000, output_tokens=900, cost_usd=Decimal("12.5000156")),
    more=True,
)


def budget(**changes: Any) -> BudgetView:
    fields = {"name": "team", "scope": "project", "limit_usd": "5", "window": "day", **changes}
    uses = fields.pop("uses", (use(),))
    return BudgetView(budget=Budget.model_validate(fields), revision=2, set_by="ada", set_at=AT, uses=uses)


def use(**changes: Any) -> BudgetUse:
    fields = {"subject": "atlas", "period": "2026-03-01", "spent_usd": "1.25", "reserved_usd": "0.01"}
    return BudgetUse.model_validate({**fields, "limit_usd": "5", "remaining_usd": "3.74", **changes})


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_both_clients_ask_and_set(api: Any) -> None:
    view = budget()
    records = UsageRecords(records=())
    for path, answer in {
        "GET /v1/usage": TABLE,
        "GET /v1/attempts": records,
        "GET /v1/budgets": BudgetList(budgets=(view,)),
        "PUT /v1/budgets/team": view,
        "DELETE /v1/budgets/team": view,
        "POST /v1/budgets/team/raise": view,
        "DELETE /v1/cache": CacheCleared(answers=3),
    }.items():
        api.on(path, answer)
    with Client(api.url) as client:
        assert client.query_usage([UsageBy.MODEL, UsageBy.DAY], UsageFilter(since=AT, project="atlas")) == TABLE
        assert api.asked[-1].queries["by"] == ["model", "day"]
        assert api.asked[-1].query["since"] == "2026-03-01T12:00:00Z"
        assert client.attempts(limit=5) == records
        assert client.budgets(scope=BudgetScope.PROJECT).budgets == (view,)
        assert client.set_budget(view.budget, reason="why") == view
        body = api.asked[-1].json
        assert (body["limit_usd"], body["scope"], body["reason"], "name" in body) == ("5", "project", "why", False)
        assert client.raise_budget("team", "atlas", usd=Decimal("0.5"), idempotency_key="k") == view
        assert api.asked[-1].json["usd"] == "0.5"
        assert api.asked[-1].headers["idempotency-key"] == "k"
        assert client.delete_budget("team") == view
        assert client.clear_cache().answers == 3

    async def ask() -> None:
        async with AsyncClient(api.url) as client:
            assert await client.query_usage() == TABLE
            assert await client.attempts() == records
            assert (await client.budgets()).budgets == (view,)
            assert await client.set_budget(view.budget) == view
            assert await client.raise_budget("team", "atlas", tokens=5) == view
            assert await client.delete_budget("team", reason="over") == view
            assert (await client.clear_cache()).answers == 3

    asyncio.run(ask())


def test_usage_is_shown_with_its_total(paracle: Callable[..., Any], api: Any) -> None:
    api.on("GET /v1/usage", TABLE)
    assert lines(paracle("usage", "--by", "model,day", "--project", "atlas", "--since", "2h").out) == [
        "MODEL DAY ATTEMPTS FAILED IN OUT CACHED COST",
        "rules 2026-03-01 1,200 3 45,000 900 0 $12.50",
        "– 2026-03-01 2 0 0 0 $0.0000156; 1 at a cost that is unknown; 1 under way, for up to $0.02",
        "total 1,202 3 45,000 900 0 $12.50",
        "there are more rows than 2: --limit shows more",
    ]
    assert api.asked[-1].queries["by"] == ["model", "day"]
    assert api.asked[-1].query["project"] == "atlas"
    api.on("GET /v1/usage", UsageTable(rows=(), total=SOME))
    assert lines(paracle("usage", "--by", "").out)[1] == "1,200 3 45,000 900 0 $12.50"
    api.on("GET /v1/usage", UsageTable(rows=(), total=Spend()))
    assert paracle("usage").out == "no model calls in that time\n"
    spared = Spend(attempts=3, cached=2, cost_usd=Decimal("0.5"), saved_usd=Decimal(1), saved_tokens=9)
    api.on("GET /v1/usage", UsageTable(rows=(UsageRow(by={}, spend=spared),), total=spared))
    assert lines(paracle("usage", "--by", "").out)[1] == "3 0 0 0 $0.50; 2 from the cache, which saved $1.00"
    [found] = csv.DictReader(io.StringIO(paracle("usage", "--by", "", "--csv").out))
    assert (found["cached"], found["saved_usd"], found["saved_tokens"]) == ("2", "1", "9")


def test_programs_read_usage_as_json_or_comma_separated(paracle: Callable[..., Any], api: Any) -> None:
    row = UsageRow(by={UsageBy.AGENT: "=cmd()"}, spend=OPEN)
    api.on("GET /v1/usage", UsageTable(rows=(row,), total=OPEN))
    assert json.loads(paracle("usage", "--by", "agent", "--json").out)["total"]["reserved_usd"] == "0.02"
    [found] = csv.DictReader(io.StringIO(paracle("usage", "--by", "agent", "--csv").out))
    assert found["agent"] == "'=cmd()", "no spreadsheet takes it for a formula"
    assert (found["cost_usd"], found["unpriced"], found["latency_s"]) == ("0.0000156", "1", "")


def test_attempts_are_shown_one_by_one(paracle: Callable[..., Any], api: Any) -> None:
    base = {"call_id": "c", "at": AT, "provider": "openai", "model": "m"}
    made = [
        UsageRecord(**base, number=2, outcome=Outcome.FAILED, error="rate_limited", agent="a", latency_s=0.5),
        UsageRecord(**base, number=1, outcome=Outcome.OPEN, reserved_usd=Decimal("0.5"), input_tokens=1_000),
        UsageRecord(**base, number=1, outcome=Outcome.CACHED, cost_usd=Decimal(0), saved_usd=Decimal("0.25")),
    ]
    api.on("GET /v1/attempts", UsageRecords(records=tuple(made), next_cursor="next"))
    shown = lines(paracle("usage", "--attempts", "--outcome", "failed", "--limit", "2000").out)
    assert shown[1].endswith("openai/m a failed: rate_limited (try 2) 0 0 unknown 0.50s –")
    assert shown[2].endswith("openai/m – open 1,000 0 up to $0.50 –")
    assert shown[3].endswith("openai/m – cached 0 0 saved $0.25 –")
    assert shown[4] == "more: --cursor next"
    assert (api.asked[-1].query["limit"], api.asked[-1].query["outcome"]) == ("1000", "failed")
    assert json.loads(paracle("usage", "--attempts", "--csv", "--json").out)["next_cursor"] == "next"
    first, *_ = csv.DictReader(io.StringIO(paracle("usage", "--attempts", "--csv").out))
    assert (first["error"], first["cost_usd"], first["user"]) == ("rate_limited", "", "")


def test_cached_answers_are_dropped(paracle: Callable[..., Any], api: Any) -> None:
    api.on("DELETE /v1/cache", CacheCleared(answers=1_234))
    assert paracle("cache", "clear").out == "cached answers dropped: 1,234\n"
    assert json.loads(paracle("cache", "clear", "--json").out) == {"answers": 1_234}


def test_kinds_are_named_and_completed() -> None:
    assert parse_by("model, day,model") == (UsageBy.MODEL, UsageBy.DAY)
    with pytest.raises(InvalidInput, match="did you mean 'model'"):
        parse_by("modle")
    with pytest.raises(InvalidInput, match=r"not counted by 'x'; it is by model, provider, .* outcome$"):
        parse_by("x")
    assert _kinds("model,pr") == ["model,provider", "model,project"]
    assert len(_kinds("")) == len(UsageBy)


@pytest.mark.parametrize(
    ("amount", "says"),
    [(None, "unknown"), ("0", "$0.00"), ("0.0000156", "$0.0000156"), ("0.05", "$0.05"), ("0.5", "$0.50"),
     ("0.12345", "$0.1234"), ("1234.5", "$1,234.50")],
)  # fmt: skip
def test_little_money_does_not_look_like_none(amount: str | None, says: str) -> None:
    assert money(None if amount is None else Decimal(amount)) == says


def test_budgets_are_listed(paracle: Callable[..., Any], api: Any) -> None:
    over = use(subject="beta", spent_usd="5.01", reserved_usd="0", remaining_usd="0")
    tokens = {"limit_usd": None, "limit_tokens": 1_000, "uses": ()}
    shown = (
        budget(uses=(use(), over)).model_copy(update={"more": True}),
        budget(name="each", of="atlas", on_hit="model", model="openai/small", **tokens),
        budget(name="all", scope="tenant", on_hit="ask", approval={"roles": ["finance"]}, uses=(use(subject="acme"),)),
    )
    api.on("GET /v1/budgets", BudgetList(budgets=shown))
    assert lines(paracle("budget", "ls", "--scope", "project").out) == [
        "BUDGET FOR WINDOW LIMIT SPENT RESERVED LEFT WHEN USED UP",
        "team project atlas 2026-03-01 $5.00 $1.25 $0.01 $3.74 stop",
        "team project beta 2026-03-01 $5.00 $5.01 used up stop",
        "team and more: --subjects",
        "each project atlas day 1,000 tokens ask openai/small instead",
        "all tenant 2026-03-01 $5.00 $1.25 $0.01 $3.74 ask role finance",
    ]
    assert api.asked[-1].query == {"scope": "project", "subjects": "20"}
    assert len(json.loads(paracle("budget", "ls", "team", "--json").out)["budgets"]) == 3
    api.on("GET /v1/budgets", BudgetList(budgets=()))
    assert paracle("budget", "ls").out == "no budgets: model calls may use whatever they like\n"
    assert paracle("budget", "ls", "team").out == "no such budgets\n"


def test_a_budget_is_set_raised_and_taken_away(paracle: Callable[..., Any], api: Any) -> None:
    ask = budget(on_hit="ask", approval={"principals": ["bob"], "own": True})
    api.on("PUT /v1/budgets/team", ask)
    options = ["--scope", "project", "--usd", "$5", "--window", "day", "--on-hit", "ask", "--approver", "bob", "--own"]
    told = lines(paracle("budget", "set", "team", *options, "--reason", "enough").out)
    assert told[:4] == [
        "budget team (revision 2)",
        "for each project",
        "limit $5.00, each day",
        "on hit ask bob",
    ]
    assert told[-1] == "spent atlas: $1.25 of $5.00"
    body = api.asked[-1].json
    assert (body["limit_usd"], body["approval"]["principals"], body["approval"]["own"]) == ("5", ["bob"], True)
    assert body["reason"] == "enough"
    api.on("POST /v1/budgets/team/raise", ask)
    paracle("budget", "raise", "team", "atlas", "--tokens", "5", "--json")
    assert api.asked[-1].json["tokens"] == 5
    api.on("DELETE /v1/budgets/team", ask)
    assert paracle("budget", "rm", "team").out == "budget team is gone\n"
    assert json.loads(paracle("budget", "rm", "team", "--json").out)["budget"]["name"] == "team"


def test_what_was_added_to_a_budget_is_told_apart_from_its_own_limit(paracle: Callable[..., Any], api: Any) -> None:
    ends = datetime(2026, 3, 2, tzinfo=UTC)
    more = use(limit_usd="12", raised_usd="7", remaining_usd="10.74", ends_at=ends)
    api.on("POST /v1/budgets/team/raise", budget(uses=(more,)))
    told = lines(paracle("budget", "raise", "team", "atlas", "--usd", "7").out)
    assert "limit $5.00, each day" in told
    assert told[-1] == f"spent atlas: $1.25 of $12.00 ($7.00 added until {moment(ends)})"
    never = {"limit_usd": None, "limit_tokens": 60, "window": "total"}
    counted = {"limit_usd": None, "remaining_usd": None, "limit_tokens": 160, "raised_tokens": 100, "spent_tokens": 80}
    total = budget(**never, uses=(use(**counted, remaining_tokens=80, reserved_usd="0"),))
    api.on("GET /v1/budgets", BudgetList(budgets=(total,)))
    assert "160 tokens (100 tokens added) 80 tokens" in paracle("budget", "ls").out.replace("  ", " ")
    api.on("POST /v1/budgets/team/raise", total)
    assert paracle("budget", "raise", "team", "atlas", "--tokens", "100").out.endswith("(100 tokens added)\n")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "give limit_usd, limit_tokens, or both"),
        (("--usd", "much"), "--usd: 'much' is no amount"),
        (("--usd", "1", "--on-hit", "model"), "name the model that is asked instead"),
    ],
)
def test_what_is_no_budget_is_refused_here(paracle: Callable[..., Any], api: Any, options: Any, says: str) -> None:
    assert says in paracle("budget", "set", "team", *options).err
    assert api.asked == []


def test_deployments_are_shown_with_limits_and_breakers(paracle: Callable[..., Any], api: Any) -> None:
    limits = DeploymentLimits(concurrency=4, tokens_per_minute=10_000)
    use = DeploymentUse(in_air=2, requests=20, tokens=1_200)
    shown = (
        DeploymentView(name="mine/a", own=True, limits=limits, use=use),
        DeploymentView(name="mine/b", own=True, breaker=BreakerState.OPEN, rests_s=4.6, trouble="HTTP 503"),
        DeploymentView(name="openai/c", breaker=BreakerState.HALF_OPEN),
        DeploymentView(name="openai/d", rests_s=12, trouble="too many requests"),
        DeploymentView(name="gone/e", refused="there is none"),
        DeploymentView(name="sandbox/rules", sandbox=True),
    )
    answer = DeploymentList(deployments=shown, replica="rep_1")
    api.on("GET /v1/deployments", answer)
    assert lines(paracle("deployments").out) == [
        "DEPLOYMENT OF CALLS UNDER WAY REQUESTS/MIN TOKENS/MIN LATEST TROUBLE",
        "mine/a tenant go 2 of 4 1,200 of 10,000",
        "mine/b tenant rest for 5 s HTTP 503",
        "openai/c operator one, to see",
        "openai/d operator rest for 12 s too many requests",
        "gone/e refused there is none",
        "sandbox/rules sandbox go",
        "use is of all replicas; whether calls go, and the latest trouble, is as replica rep_1 sees it",
    ]
    assert json.loads(paracle("deployments", "mine/a", "--json").out)["replica"] == "rep_1"
    assert api.asked[-1].query["name"] == "mine/a"

    async def ask() -> None:
        async with AsyncClient(api.url) as client:
            assert await client.deployments() == answer

    asyncio.run(ask())
