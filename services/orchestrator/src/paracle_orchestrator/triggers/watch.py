"""The parts of the trigger machinery, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from paracle_chassis.background import Background
from paracle_chassis.bus import Bus
from paracle_orchestrator.ports import Clock
from paracle_orchestrator.triggers.following import CHECK, Follower
from paracle_orchestrator.triggers.intake import Intake
from paracle_orchestrator.triggers.ports import TriggerStore
from paracle_orchestrator.triggers.schedules import LOOK_EVERY_S, Schedules
from paracle_orchestrator.triggers.service import Triggers
from paracle_orchestrator.triggers.starter import Starter

_TIDY_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What a replica needs for triggers; `rounds` are what it does again and again."""

    triggers: Triggers
    intake: Intake
    follower: Follower
    starter: Starter
    schedules: Schedules
    rounds: Mapping[str, Background]

    @classmethod
    def over(cls, store: TriggerStore, bus: Bus, clock: Clock) -> Self:
        """The machinery over a store and a bus."""
        follower = Follower(store, bus, clock)
        starter = Starter(store, bus, clock)
        starting = Background("starting", starter.drain, every_s=LOOK_EVERY_S)
        schedules = Schedules(store, clock, starting.wake)

        async def tidy() -> None:
            await store.tidy(clock())

        return cls(
            Triggers(store, follower, starter, bus, clock),
            Intake(store, follower, starter, clock),
            follower,
            starter,
            schedules,
            {
                "schedules": Background("schedules", schedules.round, every_s=LOOK_EVERY_S),
                "starting": starting,
                "following": Background("following triggers", follower.round, every_s=CHECK.total_seconds()),
                "tidying": Background("tidying triggers", tidy, every_s=_TIDY_EVERY_S),
            },
        )
