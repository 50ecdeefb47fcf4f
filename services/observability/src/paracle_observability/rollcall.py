"""Asking the owners of histories which there are, so that one of which no event ever came is missed as well."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from paracle_domain.errors import ParacleError
from paracle_observability.ports import EventLog, Roster

PAGE: Final = 2_500  # as many as fit into one message
# What began longer ago is committed by now, or never will be: statements are cut off after 30 s, and clocks differ.
SETTLED: Final = timedelta(seconds=45)
# How far the first question of all goes back.
FIRST: Final = timedelta(minutes=10)

log = logging.getLogger(__name__)


class RollCall:
    """Asks each owner which histories began since it was last asked."""

    def __init__(self, events: EventLog, rosters: Mapping[str, Roster], clock: Callable[[], datetime]) -> None:
        self._events = events
        self._rosters = rosters
        self._clock = clock

    async def round(self, quiet_s: float) -> int:
        """Ask all; how many histories there are of which nothing has come yet. Whoever is away is asked next time."""
        absent = 0
        for entity, roster in self._rosters.items():
            try:
                absent += await self._ask(entity, roster, quiet_s)
            except ParacleError as error:
                log.warning("cannot ask which histories there are now", extra={"entity": entity, "error": error.code})
        return absent

    async def _ask(self, entity: str, roster: Roster, quiet_s: float) -> int:
        now = self._clock()
        asked = await self._events.asked_until(entity) or now - FIRST
        since, after = min(asked, now - SETTLED), ""  # a clock that was ahead for a while leaves nothing out
        absent, more = 0, True
        while more:
            begun = await roster.begun(since, after, now, PAGE)
            if begun:
                absent += await self._events.expect(entity, begun, quiet_s)
                since, after = begun[-1].at, begun[-1].id
            more = len(begun) == PAGE
        await self._events.note_asked(entity, now - SETTLED)
        return absent
