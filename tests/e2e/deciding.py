"""Workflows that wait for people, for signals and for one another, with effects that are counted."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final

import yaml
from tests.e2e.load import counting_tool
from tests.e2e.world import System

from paracle_chassis.testing.eventually import eventually
from paracle_client import AsyncClient
from paracle_domain.run.commands import ApprovalView, StepStatus

FINANCE: Final = ("finance",)
LEAD: Final = ("lead",)
DEPTH: Final = 5
_names = itertools.count(1)


def fresh_name(what: str) -> str:
    """A name that no other run has for the counter."""
    return f"{what}-{next(_names)}"


def manifests(effects_port: int) -> str:
    """The workflows of these tests."""
    documents = [
        counting_tool("count", "idempotent", effects_port),
        _workflow("refund", _refund(roles=["finance"])),
        _workflow("refund-by-two", _refund(roles=["finance"], quorum=2)),
        _workflow("refund-soon", _refund(roles=["finance"], expires_s=1)),
        _workflow(
            "refund-escalated",
            _refund(
                roles=["finance"],
                expires_s=1,
                on_expiry="escalate",
                escalate_to={"roles": ["lead"], "expires_s": 60},
            ),
        ),
        _workflow(
            "shipping",
            [
                _count("pack"),
                {"id": "paid", "wait": {"signal": "paid"}},
                _count("ship", needs=["pack", "paid"]),
            ],
            output="{{ steps.paid.output }}",
        ),
        _workflow(
            "late-shipping",
            [
                {"id": "packed", "wait": {"signal": "packed"}},
                {"id": "paid", "needs": ["packed"], "wait": {"signal": "paid"}},
            ],
            output="{{ steps.paid.output }}",
        ),
        _workflow(
            "twice-then-paid",
            [
                _count("before"),
                _count("after", needs=["before"]),
                {"id": "paid", "needs": ["after"], "wait": {"signal": "paid"}},
            ],
        ),
        _workflow("fragile", _fragile(), input={"type": "object", "required": ["run"]}),
        *_generations(),
    ]
    return yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in documents])


def _refund(**approval: Any) -> list[dict[str, Any]]:
    """Reserves, asks, pays. What was reserved is given back if it comes to nothing."""
    asked = {"ask": "Refund {{ input.amount }} for {{ input.run }}?", "action": {"amount": "{{ input.amount }}"}}
    release = {"tool": "count", "input": _arguments("release")}
    return [
        _count("reserve", compensate=release),
        {"id": "ok", "needs": ["reserve"], "approval": asked | approval},
        _count("pay", needs=["ok"]),
    ]


def _fragile() -> list[dict[str, Any]]:
    """Its second step fails unless the input is good."""
    return [
        _count("first"),
        {"id": "second", "tool": "count", "needs": ["first"], "input": _arguments("{{ input.good }}")},
        _count("third", needs=["second"]),
    ]


def _generations() -> list[dict[str, Any]]:
    """`gen-1` starts `gen-2`, and so on; the last one counts, and goes on counting."""
    found = [
        _workflow(
            f"gen-{depth}",
            [{"id": "next", "workflow": f"gen-{depth + 1}", "input": "{{ input }}"}],
            output="{{ steps.next.output }}",
        )
        for depth in range(1, DEPTH)
    ]
    many = {"over": "{{ input.items }}", "concurrency": 4, "tool": "count", "input": _arguments("item-{{ index }}")}
    last = [{"id": "each", "map": many}, {"id": "sum", "tool": "count", "needs": ["each"], "input": _arguments("sum")}]
    return [*found, _workflow(f"gen-{DEPTH}", last, output="{{ steps.sum.output }}")]


def _arguments(step: str) -> dict[str, str]:
    return {"run": "{{ input.run }}", "step": step}


def _count(step: str, **more: Any) -> dict[str, Any]:
    return {"id": step, "tool": "count", "input": _arguments(step)} | more


def _workflow(name: str, steps: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {"kind": "Workflow", "metadata": {"name": name}, "spec": {"steps": steps} | spec}


def person(system: System, name: str, *roles: str) -> AsyncClient:
    """The API as somebody uses it."""
    return AsyncClient(system.url, principal=name, roles=roles)


async def asked_for(client: AsyncClient, run_id: str) -> ApprovalView:
    """The only thing that the run asks, once it does; nobody may have decided it in time."""

    async def asked() -> tuple[ApprovalView, ...]:
        return (await client.approvals(run_id=run_id)).approvals

    (found,) = await eventually(asked)
    return found


async def step_is(client: AsyncClient, run_id: str, step: str, status: StepStatus) -> None:
    """Wait until a step of the run stands so."""

    async def stands_so() -> bool:
        view = await client.get_run(run_id)
        return next(one.status for one in view.steps if one.id == step) is status

    await eventually(stands_so)


async def restart(system: System, victim: str) -> None:
    """`kill -9`, and start it again."""
    system.stack.kill(victim)
    await asyncio.to_thread(system.stack.up)
