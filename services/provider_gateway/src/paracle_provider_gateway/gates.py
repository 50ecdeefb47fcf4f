"""Where calls wait for a limit that many share: in turns that are fair between tenants, one asking at a time."""

from __future__ import annotations

import asyncio
from typing import Final

from paracle_domain.inference.request import Priority
from paracle_domain.provider.spec import DeploymentLimits
from paracle_provider_gateway.accounts import Full
from paracle_provider_gateway.admission import Admission
from paracle_provider_gateway.plans import DeploymentKey

NO_LIMITS: Final = DeploymentLimits()
_SHORTEST_S: Final = 0.01

type _Key = tuple[str, str, str, DeploymentLimits]
"""Of what a gate stands in front: a deployment with its limits, or a budget of a tenant."""


class Gate:
    """In front of a deployment of which a limit is used up: whoever is first asks again when there may be room."""

    def __init__(self, full: Full) -> None:
        self.turns = Admission(1)
        self._may_have_room = asyncio.Event()
        self.close(full)

    def close(self, full: Full) -> None:
        """The accounts say that there is no room."""
        self._what = full.what
        self._budget = full.budget
        self._till = _now() + max(_SHORTEST_S, full.after_s)
        self._may_have_room.clear()

    def freed(self) -> None:
        """An attempt of this replica ended, so there may be room before the time."""
        self._may_have_room.set()

    def full(self) -> Full:
        """What is used up, and for about how long."""
        return Full(self._what, max(_SHORTEST_S, self._till - _now()), self._budget)

    async def room(self) -> None:
        """Wait till there may be room."""
        try:
            async with asyncio.timeout_at(self._till):
                await self._may_have_room.wait()
        except TimeoutError:
            self._may_have_room.set()


class Turn:
    """A place at a gate: `enter` waits for the turn to ask, `leave` passes it on."""

    def __init__(self, gates: dict[_Key, Gate], key: _Key, gate: Gate) -> None:
        self._gates = gates
        self._key = key
        self._held_by: str | None = None
        self.gate = gate

    async def enter(self, tenant: str, priority: Priority) -> None:
        await self.gate.turns.enter(tenant, priority)
        self._held_by = tenant

    def leave(self) -> None:
        """Let the next one ask, if this one has not yet; a gate where nobody is left is taken down."""
        if self._held_by is None:
            return
        self.gate.turns.leave(self._held_by)
        self._held_by = None
        if self.gate.turns.idle:
            self._gates.pop(self._key, None)


class Gates:
    """The gates that stand at the moment."""

    def __init__(self) -> None:
        self._gates: dict[_Key, Gate] = {}

    def at(self, deployment: DeploymentKey, limits: DeploymentLimits = NO_LIMITS) -> Gate | None:
        """The gate in front of a deployment, while somebody waits for it who has the same limits.

        Whoever has others, since a manifest was changed, need not wait because those are used up.
        """
        return self._gates.get(("deployment", *deployment, limits)) if self._gates else None

    def freed(self, deployment: DeploymentKey, tenant: str) -> None:
        """An attempt ended: there may be room at its deployment, and in the budgets of its tenant."""
        for (what, whose, name, _), gate in self._gates.items():
            if (whose == tenant) if what == "budget" else (whose, name) == deployment:
                gate.freed()

    def turn(self, deployment: DeploymentKey, full: Full, limits: DeploymentLimits = NO_LIMITS) -> Turn:
        """A place at the gate, which is put up if none stands, since the deployment is `full`, or a budget is."""
        key = ("deployment", *deployment, limits) if full.budget is None else ("budget", *full.budget, NO_LIMITS)
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = Gate(full)
        return Turn(self._gates, key, gate)


def _now() -> float:
    return asyncio.get_running_loop().time()
