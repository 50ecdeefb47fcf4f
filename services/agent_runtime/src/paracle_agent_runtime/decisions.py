"""Decisions of people, waited for. What was decided is asked for again and again; an event only spares the wait.

So nothing has to be kept or delivered here: a process that takes a task up asks, and is told how its approval stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from paracle_agent_runtime.ports import Budgets, Clock, People
from paracle_chassis import outages
from paracle_domain.envelope import Context
from paracle_domain.errors import ErrorInfo, NotFound, ParacleError
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, AskForCall
from paracle_domain.task.directives import AskForRaise
from paracle_domain.task.raising import order_of

_log = logging.getLogger(__name__)
_LOOK_S: Final = 15.0
_AGAIN_S: Final = 0.05


class News:
    """Wakes those who wait for something to happen: to an approval, or to a budget. Many may wait for the same."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def of(self, *names: str) -> Iterator[asyncio.Event]:
        """Set whenever one of `names` is told of."""
        event = asyncio.Event()
        for name in names:
            self._waiting.setdefault(name, set()).add(event)
        try:
            yield event
        finally:
            for name in names:
                self._waiting[name].discard(event)
                if not self._waiting[name]:
                    del self._waiting[name]

    def tell(self, name: str) -> None:
        for event in self._waiting.get(name, ()):
            event.set()


class Decisions:
    """Asks `people`, waits until they have decided, and has the `budgets` raised that they agreed to."""

    def __init__(self, people: People, budgets: Budgets, clock: Clock, *, look_s: float = _LOOK_S) -> None:
        self._people = people
        self._budgets = budgets
        self._clock = clock
        self._look_s = look_s
        self._news = News()

    async def decision(self, request: AskForCall, context: Context) -> ApprovalView:
        """The approval once it is over."""
        with self._news.of(request.approval_id) as news:
            while True:
                news.clear()
                view = await _outlast(lambda: self._people.ask(request, context))
                if view.status is not ApprovalStatus.OPEN:
                    return view
                await self._wait(news, view.expires_at)

    async def raised(self, directive: AskForRaise, context: Context) -> tuple[ApprovalView | None, ErrorInfo | None]:
        """The approval of a raise once it is over, and the raise made if it was approved, or why it was not.

        Without an approval: there is room again as it is. The order names the approval as its key, so doing this again,
        here or for another task that waits for the same, raises nothing twice.
        """
        view = await self._raise_decided(directive, context)
        order = None if view is None else order_of(view, directive.short)
        if view is None or view.status is not ApprovalStatus.APPROVED or order is None:
            return view, None
        try:
            await _outlast(lambda: self._budgets.raise_by(order, context))
        except ParacleError as error:  # that the budget is gone, or another one by now, among them
            return view, error.to_info()
        return view, None

    async def _raise_decided(self, directive: AskForRaise, context: Context) -> ApprovalView | None:
        request, short = directive.request, directive.short
        with self._news.of(request.approval_id, _budget(context.tenant, short.budget)) as news:
            while True:
                news.clear()
                view = await _outlast(lambda: self._people.ask(request, context))
                if view.status not in {ApprovalStatus.OPEN, ApprovalStatus.VOID}:
                    return view
                if await _outlast(lambda: self._budgets.has_room(short, context)):
                    return await self._lifted(request, context)
                if view.status is ApprovalStatus.VOID:
                    return view
                await self._wait(news, view.expires_at)

    async def _lifted(self, request: AskForCall, context: Context) -> ApprovalView | None:
        """Take the question back; the approval, should people have agreed before that: they are told that it counts."""
        await self.withdraw(request.approval_id, context, request.task_id)
        view = await _outlast(lambda: self._people.ask(request, context))
        return view if view.status is ApprovalStatus.APPROVED else None

    async def withdraw(self, approval_id: str, context: Context, task_id: str | None = None) -> None:
        """Nobody waits for this one any more; with `task_id`, that task does not, and others ask for themselves."""
        try:
            await _outlast(lambda: self._people.withdraw(approval_id, context, task_id))
        except NotFound:
            _log.info("approval %s was never asked", approval_id)

    def heard(self, approval_id: str) -> None:
        """Something happened to that approval."""
        self._news.tell(approval_id)

    def heard_of_budget(self, tenant: str, name: str) -> None:
        """Something happened to that budget."""
        self._news.tell(_budget(tenant, name))

    async def _wait(self, news: asyncio.Event, expires_at: datetime | None) -> None:
        seconds = self._look_s
        if expires_at is not None:
            seconds = min(seconds, max((expires_at - self._clock()).total_seconds(), _AGAIN_S))
        try:
            async with asyncio.timeout(seconds):
                await news.wait()
        except TimeoutError:
            return


def _budget(tenant: str, name: str) -> str:
    return f"{tenant}/{name}"


async def _outlast[R](work: Callable[[], Awaitable[R]]) -> R:
    """What `work` gives; as long as whoever is asked is away, it is tried again."""
    return await outages.outlast(work, "what people decide", away=_is_away)


def _is_away(error: Exception) -> bool:
    return outages.is_outage(error) or (isinstance(error, ParacleError) and error.retryable)
