"""Steps and tools that the workflows of tests are made of."""

from __future__ import annotations

from typing import Any, Final

from tests.e2e.load import counting_tool


def counted(step: str, *, tool: str = "count", busy: int = 0) -> dict[str, Any]:
    """Work that is counted as `step` (an expression, perhaps), once the tool has been too busy `busy` times."""
    given = {"run": "{{ input.run }}", "step": step} | ({"busy": busy} if busy else {})
    return {"tool": tool, "input": given}


def count(step: str, *needs: str, tool: str = "count", busy: int = 0, **more: Any) -> dict[str, Any]:
    """A step whose calls are counted."""
    return {"id": step, "needs": list(needs), **counted(step, tool=tool, busy=busy), **more}


def chain(*steps: str, tool: str = "count") -> list[dict[str, Any]]:
    """Counted steps, one after the other."""
    before = [(), *((one,) for one in steps)]
    return [count(step, *needs, tool=tool) for needs, step in zip(before, steps, strict=False)]


def each(step: str, number: int, *needs: str, **more: Any) -> dict[str, Any]:
    """A map over so many items, each of which is counted as `{step}-{index}`."""
    body = counted(f"{step}-{{{{ index }}}}")
    return {"id": step, "needs": list(needs), "map": {"over": list(range(number)), **body, **more}}


def doze(step: str, seconds: float, **more: Any) -> dict[str, Any]:
    """A step that takes its time."""
    return {"id": step, "tool": "doze", "input": {"seconds": seconds}, **more}


def tools(effects_port: int) -> list[dict[str, Any]]:
    """What these steps call, and an agent that calls one of them."""
    return [
        counting_tool("count", "idempotent", effects_port),
        counting_tool("count_once", "at_most_once", effects_port),
        counting_tool("count_probed", "at_most_once", effects_port, probe=_PROBE),
        _look_up(effects_port),
        _builtin("doze", "sleep", "Take so many seconds."),
        _builtin("calculate", "calculate", "Work out an expression."),
        {
            "kind": "Agent",
            "metadata": {"name": "noter"},
            "spec": {
                "instructions": "Call the tool count with the run and the step that you are given.",
                "tools": ["count"],
            },
        },
    ]


_PROBE: Final = {
    "tool": "look_up",
    "outcome": "{{ 'done' if output.seen else 'not_done' }}",
    "output": {"done": "{{ output.step }}"},
    "settle_s": 1,
}


def _look_up(port: int) -> dict[str, Any]:
    """What the counter knows of the call that came with the idempotency key of this one."""
    return {
        "kind": "Tool",
        "metadata": {"name": "look_up"},
        "spec": {
            "description": "Look whether a step of a run was counted.",
            "input": {"type": "object", "required": ["run"], "properties": {"run": {"type": "string"}}},
            "backend": {"type": "http", "method": "GET", "url": f"http://127.0.0.1:{port}/effects"},
            "permissions": {"hosts": [f"127.0.0.1:{port}"], "private_networks": True},
        },
    }


def _builtin(name: str, function: str, description: str) -> dict[str, Any]:
    backend = {"type": "builtin", "function": function}
    return {
        "kind": "Tool",
        "metadata": {"name": name},
        "spec": {"description": description, "backend": backend, "timeout_s": 600},
    }
