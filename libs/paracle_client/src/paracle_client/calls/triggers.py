"""Triggers: how they stand, pausing and firing them."""

from __future__ import annotations

from pydantic import JsonValue

from paracle_client.calls.call import Call, keyed, part_of
from paracle_domain.run.commands import (
    RunAccepted,
)
from paracle_domain.trigger.commands import TriggerPage, TriggerView


def triggers(*, limit: int = 100, cursor: str | None = None) -> Call[TriggerPage]:
    """Triggers by name, with what they count and when they fire next."""
    return Call("GET", "/v1/triggers", TriggerPage, {"limit": limit, "cursor": cursor})


def get_trigger(name: str) -> Call[TriggerView]:
    """A trigger with its next times and its last runs."""
    return Call("GET", f"/v1/triggers/{part_of(name)}", TriggerView)


def pause_trigger(name: str, reason: str | None = None) -> Call[TriggerView]:
    """Let a trigger start nothing until it is resumed."""
    return Call("POST", f"/v1/triggers/{part_of(name)}/pause", TriggerView, json={"reason": reason})


def resume_trigger(name: str) -> Call[TriggerView]:
    """Let a paused trigger go on; what it missed meanwhile is not made up for."""
    return Call("POST", f"/v1/triggers/{part_of(name)}/resume", TriggerView)


def fire_trigger(name: str, message: JsonValue = None, *, idempotency_key: str | None = None) -> Call[RunAccepted]:
    """Start one run of a trigger now; `message` is what one on messages takes for one."""
    path = f"/v1/triggers/{part_of(name)}/fire"
    return Call("POST", path, RunAccepted, headers=keyed(idempotency_key), json={"message": message})
