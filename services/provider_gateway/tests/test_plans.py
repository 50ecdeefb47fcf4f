"""What a name stands for."""

from __future__ import annotations

from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier

SANDBOX = SandboxProvider()


def test_a_deployment_is_one_tenants_or_everybodys():
    ours, everybodys = Deployment(SANDBOX, "rules", tenant="acme"), Deployment(SANDBOX, "rules")
    assert ours.name == everybodys.name == "sandbox/rules"
    assert ours.key == ("acme", "sandbox/rules")
    assert everybodys.key == ("", "sandbox/rules")


def test_a_plan_names_its_deployments_in_order():
    rules, slow = Deployment(SANDBOX, "rules"), Deployment(SANDBOX, "slow")
    plan = Plan("fast", (Tier((Route(rules),)), Tier((Route(slow), Route(rules)))))
    assert list(plan.deployments) == [rules, slow, rules]
