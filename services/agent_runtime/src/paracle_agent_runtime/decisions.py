"""Decisions of people, waited for. What was decided is asked for again and again; an event only spares the wait.

So nothing has to be kept or delivered here: a process that takes a task up asks, and is told how its approval stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from paracle_agent_runtime.ports import Budgets, Clock, People
from paracle_chassis import outages
from paracle_domain.envelope import Context
from paracle_domain.errors import ErrorInfo, NotFound, ParacleError
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, AskForCall
from paracle_domain.task.directives import AskForRaise

_log = logging.getLogger(__name__)
_LOOK_S: Final = 15.0
_AGAIN_S: Final = 0.05


class Decisions:
    """Asks `people`, waits until they have decided, and has the `budgets` raised that they agreed to."""

    def __init__(self, people: People, budgets: Budgets, clock: Clock, *, look_s: float = _LOOK_S) -> None:
        self._people = people
        self._budgets = budgets
        self._clock = clock
        self._look_s = look_s
        self._news: dict[str, asyncio.Event] = {}

    async def decision(self, request: AskForCall, context: Context) -> ApprovalView:
        """The approval once it is over."""
        news = self._news.setdefault(request.approval_id, asyncio.Event())
        try:
            while True:
                news.clear()
                view = await _outlast(lambda: self._people.ask(request, context))
                if view.status is not ApprovalStatus.OPEN:
                    return view
                await self._wait(news, view.expires_at)
        finally:
            del self._news[request.approval_id]

    async def raised(self, directive: AskForRaise, context: Context) -> tuple[ApprovalView, ErrorInfo | None]:
        """The approval of a raise once it is over, and the raise made if it was approved, or why it could not be.

        The order names the approval as its key, so doing this again raises nothing twice.
        """
        view = await self.decision(directive.request, context)
        if view.status is not ApprovalStatus.APPROVED or view.digest != directive.request.digest:
            return view, None
        try:
            await _outlast(lambda: self._budgets.raise_by(directive.order, context))
        except NotFound:
            _log.info("budget %s is gone, and holds nothing back any more", directive.order.name)
        except ParacleError as error:
            return view, error.to_info()
        return view, None

    async def withdraw(self, approval_id: str, context: Context) -> None:
        """Nobody waits for this one any more."""
        try:
            await _outlast(lambda: self._people.withdraw(approval_id, context))
        except NotFound:
            _log.info("approval %s was never asked", approval_id)

    def heard(self, approval_id: str) -> None:
        """Something happened to that approval."""
        news = self._news.get(approval_id)
        if news is not None:
            news.set()

    async def _wait(self, news: asyncio.Event, expires_at: datetime | None) -> None:
        seconds = self._look_s
        if expires_at is not None:
            seconds = min(seconds, max((expires_at - self._clock()).total_seconds(), _AGAIN_S))
        try:
            async with asyncio.timeout(seconds):
                await news.wait()
        except TimeoutError:
            return


async def _outlast[R](work: Callable[[], Awaitable[R]]) -> R:
    """What `work` gives; as long as whoever is asked is away, it is tried again."""
    for delay in outages.delays():
        try:
            return await work()
        except Exception as error:  # only an outage is waited out; the rest is raised
            if not outages.is_outage(error) and not (isinstance(error, ParacleError) and error.retryable):
                raise
            _log.warning("people cannot be asked, or budgets raised, now: %s", error)
        await asyncio.sleep(delay)
    raise AssertionError("delays never end")
