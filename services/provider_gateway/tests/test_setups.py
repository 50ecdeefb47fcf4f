"""What names stand for in a tenant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.errors import Forbidden, NotFound
from paracle_domain.provider.spec import ModelSpec, Strategy
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.plans import Deployment, Plan
from paracle_provider_gateway.retries import RetryPolicy
from paracle_provider_gateway.setups import Offer, Setup


class Named(SandboxProvider):
    """A provider of any name."""

    def __init__(self, name: str) -> None:
        self.name = name


def operators(full: str) -> Deployment:
    provider, _, model = full.partition("/")
    if provider not in {"openai", "sandbox"} or not model:
        raise NotFound(f"provider {provider!r} is unknown", path="model")
    return Deployment(Named(provider), model)


def mine(model: str) -> Deployment:
    return Deployment(Named("mine"), model, tenant="acme")


def closed(_model: str) -> Deployment:
    raise Forbidden("provider 'closed' may not be at 10.0.0.1")


def setup(**models: dict[str, Any]) -> Setup:
    listed = Offer(lambda model: Deployment(Named("listed"), model, tenant="acme"), listed=frozenset({"small"}))
    offers = {"mine": Offer(mine), "listed": listed, "closed": Offer(closed)}
    return Setup(
        operators, RetryPolicy(attempts=7), offers, {n: ModelSpec.model_validate(m) for n, m in models.items()}
    )


def routes(*names: str, **more: Any) -> dict[str, Any]:
    return {"routes": [{"model": name} for name in names], **more}


def tiers(plan: Plan) -> list[list[str]]:
    return [[route.deployment.name for route in tier.routes] for tier in plan.tiers]


def test_a_provider_of_the_tenants_comes_before_the_operators():
    own = Setup(operators, providers={"openai": Offer(lambda model: Deployment(Named("openai"), model, tenant="acme"))})
    assert next(own.plan("openai/a").deployments).tenant == "acme"
    assert next(setup().plan("openai/a").deployments).tenant is None
    plan = setup().plan("mine/meta/llama")
    assert (tiers(plan), plan.retry.attempts) == ([["mine/meta/llama"]], 7)


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("nope/a", NotFound, "provider 'nope' is unknown"),
        ("mine/", NotFound, "is unknown"),
        ("listed/smal", NotFound, "provider 'listed' has no model 'smal'; did you mean 'small'"),
        ("closed/a", Forbidden, "may not be at"),
        ("fats", NotFound, "there is no model 'fats'; did you mean 'fast'"),
        ("default", NotFound, "kind Model"),
    ],
)
def test_what_stands_for_nothing_says_what_to_do(name: str, error: type[Exception], hint: str):
    with pytest.raises(error, match=hint):
        setup(fast=routes("mine/a")).plan(name)


def test_a_model_has_its_routes_and_then_those_of_its_fallbacks():
    found = setup(
        fast=routes("mine/a", "openai/b", strategy="lowest_cost", fallbacks=["slow", "sandbox/rules"]),
        slow=routes("openai/c", fallbacks=["last"], retry={"attempts": 2}),
        last=routes("openai/d", "openai/e", strategy="weighted", hedge={"after_s": 2}),
    )
    plan = found.plan("fast")
    assert tiers(plan) == [["mine/a", "openai/b"], ["openai/c"], ["openai/d", "openai/e"], ["sandbox/rules"]]
    assert [tier.strategy for tier in plan.tiers[:3]] == [Strategy.LOWEST_COST, Strategy.PRIORITY, Strategy.WEIGHTED]
    assert (plan.name, plan.retry.attempts, plan.hedge_after_s) == ("fast", 7, None)
    assert found.plan("fast") is plan, "made once"
    assert found.plan("slow").retry.attempts == 2
    assert found.plan("last").hedge_after_s == 2


def test_a_circle_ends():
    """The registry takes none; one that came about otherwise is gone round once."""
    assert tiers(setup(a=routes("mine/a", fallbacks=["b"]), b=routes("mine/b", fallbacks=["a"])).plan("a")) == [
        ["mine/a"],
        ["mine/b"],
    ]


def test_the_operators_default_is_asked_for_where_a_name_leads_to_it():
    found = setup(a=routes("mine/a", fallbacks=["default"]), b=routes("mine/b"))
    assert [found.leads_to_default(name) for name in ("default", "a", "b", "mine/x")] == [True, True, False, False]
    assert tiers(found.plan("a", "openai/x")) == [["mine/a"], ["openai/x"]]
    assert tiers(found.plan("default", "openai/x")) == [["openai/x"]]
    own = setup(default=routes("mine/a"))
    assert not own.leads_to_default("default")
    assert tiers(own.plan("default")) == [["mine/a"]]


def test_a_way_that_is_not_open_is_left_out(caplog: pytest.LogCaptureFixture):
    found = setup(fast=routes("closed/a", "mine/b", fallbacks=["closed/c"]), shut=routes("closed/a", "nope/b"))
    assert tiers(found.plan("fast")) == [["mine/b"]]
    assert caplog.text.count("a route is left out") == 2
    with pytest.raises(Forbidden, match="may not be at"):
        found.plan("shut")


def test_plans_are_no_leak():
    found = setup()
    for number in range(3_000):
        found.plan(f"mine/{number}")
    assert len(found._plans) <= 1_024


names = st.sampled_from(["a", "b", "c", "d"])


@given(st.dictionaries(names, st.lists(names | st.just("sandbox/rules"), max_size=4, unique=True), min_size=1))
def test_however_fallbacks_are_tied_each_is_asked_once(tied: dict[str, list[str]]):
    models = {name: routes(f"mine/{name}", fallbacks=[f for f in after if f != name]) for name, after in tied.items()}
    found = setup(**models)
    for name, model in models.items():
        if any(after not in models and after != "sandbox/rules" for after in reached(models, name)):
            continue  # the registry takes none that leads nowhere
        first, *others = [tier[0] for tier in tiers(found.plan(name))]
        assert first == f"mine/{name}"
        assert len({first, *others}) == 1 + len(others)
        assert {first, *others} == set(map(asked, {name, *reached(models, name)}))
        if model["fallbacks"]:
            assert others[0] == asked(model["fallbacks"][0])


def asked(name: str) -> str:
    return name if "/" in name else f"mine/{name}"


def reached(models: dict[str, Any], name: str) -> set[str]:
    found: set[str] = set()
    ahead = list(models[name]["fallbacks"])
    while ahead:
        each = ahead.pop()
        if each not in found:
            found.add(each)
            ahead += models.get(each, {"fallbacks": []})["fallbacks"]
    return found - {name}
