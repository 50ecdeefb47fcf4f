"""Random workflows of every kind of step."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from paracle_domain.workflow.graph import validate_workflow
from paracle_domain.workflow.spec import KINDS, WorkflowSpec

CONDITIONS = ("{{ input.yes }}", "{{ not input.yes }}")


@st.composite
def works(draw: st.DrawFn) -> dict[str, Any]:
    """Work of a step, an item, an iteration or a compensation."""
    found: dict[str, Any] = {draw(st.sampled_from(["tool", "tool", "agent", "workflow"])): "x"}
    if draw(st.booleans()):
        found["retry"] = {"max_attempts": draw(st.integers(1, 3)), "initial_s": 5, "jitter": 0}
    if draw(st.integers(0, 3)) == 0:
        found["timeout_s"] = 20
    return found


@st.composite
def kinds(draw: st.DrawFn) -> dict[str, Any]:
    """What a step does, but for switches."""
    kind = draw(st.sampled_from(["work", "work", "map", "loop", "approval", "wait", "emit"]))
    match kind:
        case "map":
            over = list(range(draw(st.integers(0, 4))))
            limits = {"concurrency": draw(st.integers(1, 3)), "on_error": draw(st.sampled_from(["fail", "continue"]))}
            return {"map": {**draw(works()), "over": over, "input": "{{ item }}", **limits}}
        case "loop":
            until = draw(st.sampled_from(["{{ iteration == 1 }}", "{{ false }}", "{{ output.nothing }}"]))
            on_limit = draw(st.sampled_from(["fail", "complete"]))
            return {"loop": {**draw(works()), "max": draw(st.integers(1, 3)), "until": until, "on_limit": on_limit}}
        case "approval":
            found: dict[str, Any] = {"ask": "?", "quorum": draw(st.integers(1, 2))}
            if draw(st.booleans()):
                found["expires_s"] = 60
                if draw(st.booleans()):
                    found |= {"on_expiry": "escalate", "escalate_to": {"roles": ["boss"], "expires_s": 60}}
            return {"approval": found}
        case "wait":
            return {"wait": draw(st.sampled_from([{"for_s": 0}, {"for_s": 30}, {"signal": "go"}]))}
        case "emit":
            return {"emit": {"event": "told", "data": draw(st.sampled_from(["{{ input }}", "{{ input.missing }}"]))}}
        case _:
            found = draw(works())
            if draw(st.integers(0, 2)) == 0:
                found["compensate"] = draw(works())
            return found


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Any]:
    """A workflow of up to seven steps; each needs some of those before it, and may be a fallback or branch of one."""
    steps: list[dict[str, Any]] = []
    free: set[str] = set()
    for number in range(draw(st.integers(1, 7))):
        name = f"s{number}"
        before = [step["id"] for step in steps]
        needs = draw(st.lists(st.sampled_from(before), unique=True, max_size=2)) if before else []
        step = {"id": name, "needs": needs, **draw(kinds())}
        step["on_error"] = draw(st.sampled_from(["fail", "continue"]))
        if draw(st.integers(0, 4)) == 0:
            step["when"] = draw(st.sampled_from(CONDITIONS))
        if not set(step) & {"agent", "tool", "workflow", "timeout_s"} and draw(st.integers(0, 4)) == 0:
            step["timeout_s"] = 90
        steps.append(step)
        free.add(name)
    _draw_fallbacks(draw, steps, free)
    _draw_switches(draw, steps)
    more: dict[str, Any] = {}
    if draw(st.booleans()):
        more["concurrency"] = draw(st.integers(1, 2))
    if draw(st.integers(0, 3)) == 0:
        more["timeout_s"] = 200
    found = {"steps": steps, **more}
    full = {**found, "steps": [step if set(KINDS) & set(step) else {"tool": "x", **step} for step in steps]}
    if validate_workflow(WorkflowSpec.model_validate(full)):
        for step in steps:  # a circle through a fallback or a branch: do without them
            if isinstance(step["on_error"], dict):
                step["on_error"] = "fail"
        full["steps"] = [step for step in full["steps"] if "switch" not in step]
    return full


def _draw_fallbacks(draw: st.DrawFn, steps: list[dict[str, Any]], free: set[str]) -> None:
    for place, step in enumerate(steps):
        later = [
            other["id"] for other in steps[place + 1 :] if other["id"] in free and step["id"] not in other["needs"]
        ]
        if later and draw(st.integers(0, 3)) == 0:
            fallback = draw(st.sampled_from(later))
            free.discard(fallback)
            step["on_error"] = {"fallback": fallback}


def _draw_switches(draw: st.DrawFn, steps: list[dict[str, Any]]) -> None:
    names = [step["id"] for step in steps]
    if draw(st.integers(0, 2)) == 0:
        then, default = (draw(st.lists(st.sampled_from(names), unique=True, max_size=2)) for _ in range(2))
        cases = [{"name": "yes", "when": draw(st.sampled_from(CONDITIONS)), "then": then}]
        steps.append({"id": "way", "needs": [], "on_error": "fail", "switch": {"cases": cases, "default": default}})
