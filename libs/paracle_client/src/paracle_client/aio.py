"""Paracle's REST API from Python code that uses asyncio. See `client` for the same without it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Concatenate, Self

import httpx2

from paracle_client import calls, wire
from paracle_client.calls.call import Call, as_method
from paracle_client.client import DEFAULT_URL
from paracle_domain.dead_letters import DeadLetterFilter, DeadLettersSettled
from paracle_domain.errors import ParacleError, PayloadTooLarge
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Message
from paracle_domain.run.commands import Outputs, RunView
from paracle_domain.task.output import TaskOutput


def _asks[**P, R: Message](
    call: Callable[P, Call[R]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]]:
    """The method that makes `call`."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._ask(call(*args, **kwargs))

    return as_method(method, call)


class AsyncClient:
    """Paracle at `url`.

    Every method raises the `ParacleError` that the service raised; `Unavailable` if Paracle is not there and
    `DeadlineExceeded` if it does not answer within `timeout_s`. What failed because Paracle was not there is tried
    again a few times: all calls may be repeated without doing anything twice.

    `principal` and `roles` say on whose behalf it is asked. Paracle believes that only if it was told to trust whoever
    can reach it (`PARACLE_API_TRUST_IDENTITY`), and refuses it otherwise.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 30.0,
        principal: str | None = None,
        roles: Sequence[str] = (),
    ) -> None:
        self.url = url
        self._http = httpx2.AsyncClient(**wire.options(url, timeout_s, principal, roles))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    # Manifests

    apply = _asks(calls.manifests.apply)
    list = _asks(calls.manifests.list_specs)
    get = _asks(calls.manifests.get_spec)
    revisions = _asks(calls.manifests.revisions)
    delete = _asks(calls.manifests.delete)
    delete_manifests = _asks(calls.manifests.delete_manifests)
    explain = _asks(calls.manifests.explain)

    # Runs

    start_run = _asks(calls.runs.start_run)
    invoke = _asks(calls.runs.invoke)
    get_run = _asks(calls.runs.get_run)
    get_step = _asks(calls.runs.get_step)
    runs = _asks(calls.runs.runs)
    cancel = _asks(calls.runs.cancel)
    pause = _asks(calls.runs.pause)
    resume = _asks(calls.runs.resume)
    signal = _asks(calls.runs.signal)
    fork = _asks(calls.runs.fork)
    cancel_runs = _asks(calls.runs.cancel_runs)
    resume_runs = _asks(calls.runs.resume_runs)
    diff_runs = _asks(calls.runs.diff_runs)
    usage = _asks(calls.runs.usage)
    audit = _asks(calls.runs.audit)

    # Sessions, approvals, effects, pools

    sessions = _asks(calls.runs.sessions)
    get_session = _asks(calls.runs.get_session)
    delete_session = _asks(calls.runs.delete_session)
    approvals = _asks(calls.people.approvals)
    get_approval = _asks(calls.people.get_approval)
    decide = _asks(calls.people.decide)
    effects = _asks(calls.people.effects)
    get_effect = _asks(calls.people.get_effect)
    resolve_effect = _asks(calls.people.resolve_effect)
    pools = _asks(calls.pools.pools)
    get_pool = _asks(calls.pools.get_pool)
    drain_pool = _asks(calls.pools.drain_pool)
    resume_pool = _asks(calls.pools.resume_pool)

    # Models and money

    models = _asks(calls.models.models)
    embed = _asks(calls.models.embed)
    query_usage = _asks(calls.money.query_usage)
    attempts = _asks(calls.money.attempts)
    deployments = _asks(calls.money.deployments)
    clear_cache = _asks(calls.money.clear_cache)
    budgets = _asks(calls.money.budgets)
    set_budget = _asks(calls.money.set_budget)
    delete_budget = _asks(calls.money.delete_budget)
    raise_budget = _asks(calls.money.raise_budget)

    # Dead letters and triggers

    dead_letters = _asks(calls.people.dead_letters)
    dead_letter = _asks(calls.people.dead_letter)
    redrive = _asks(calls.people.redrive)
    drop = _asks(calls.people.drop)
    triggers = _asks(calls.triggers.triggers)
    get_trigger = _asks(calls.triggers.get_trigger)
    pause_trigger = _asks(calls.triggers.pause_trigger)
    resume_trigger = _asks(calls.triggers.resume_trigger)
    fire_trigger = _asks(calls.triggers.fire_trigger)

    # What takes more than one call

    async def wait(self, run_id: str) -> RunView:
        """Wait until a run has ended, however it ends."""
        async for _ in self.events(run_id, after=await self._last_seq(run_id), follow=True):
            pass
        return await self.read_run(run_id)

    async def _last_seq(self, run_id: str) -> int:
        return (await self.get_run(run_id, parts=0, outputs=Outputs.NONE)).last_seq

    async def read_run(self, run_id: str, *, parts: int | None = None) -> RunView:
        """A run with its outputs; without those of its steps (`get_step`), if they are too large together."""
        try:
            return await self.get_run(run_id, parts=parts)
        except PayloadTooLarge:
            return await self.get_run(run_id, parts=parts, outputs=Outputs.RUN)

    def events(self, run_id: str, *, after: int = 0, follow: bool = False) -> AsyncIterator[EventRecord]:
        """A run's events after number `after`, in order and each once.

        With `follow`, goes on until the run has ended; a connection that breaks is taken up where it broke.

        Raises
        ------
        Unavailable
            If Paracle cannot be reached for a minute while following.
        """
        return self._follow(run_id, after) if follow else self._events_so_far(run_id, after)

    async def output(self, task_id: str, *, after: int = 0, follow: bool = True) -> AsyncIterator[TaskOutput]:
        """What a task says while it is at work: pieces of replies as they come, thoughts, and the progress of tools.

        It goes on after cursor `after` (the `seq` of one) until the task has ended, and takes a connection that
        breaks up where it broke. What was said is kept for ten minutes; `gap` says that something is missing. A
        reader that is slow slows nobody but itself. Without `follow`, it ends with what was said so far.

        Raises
        ------
        Unavailable
            If Paracle cannot be reached for a minute.
        """
        cursor = wire.Cursor(after)
        if not follow:
            async for said in self._said(task_id, cursor, follow=False):
                yield said
            return
        while not cursor.done:
            broken: ParacleError | None = None
            try:
                async for said in self._said(task_id, cursor):
                    yield said
            except ParacleError as error:
                broken = error
            if not cursor.done:
                await asyncio.sleep(cursor.pause_s(broken))

    async def redrive_all(self, which: DeadLetterFilter) -> DeadLettersSettled:
        """Publish all again that fit, oldest first; those that come to be meanwhile are left."""
        return await self._settle_all(which, None)

    async def drop_all(self, which: DeadLetterFilter, reason: str) -> DeadLettersSettled:
        """Give up all that fit."""
        return await self._settle_all(which, reason)

    # How it is done

    async def _settle_all(self, which: DeadLetterFilter, reason: str | None) -> DeadLettersSettled:
        parts: deque[DeadLettersSettled] = deque()
        while not parts or parts[-1].more:
            parts.append(await self._ask(calls.people.settle_all(which, reason, parts[-1] if parts else None)))
        return calls.people.together(parts)

    async def _events_so_far(self, run_id: str, after: int) -> AsyncIterator[EventRecord]:
        cursor = wire.Cursor(after)
        while True:
            page = await self._ask(calls.runs.events(run_id, cursor.after))
            for record in page.events:
                for fresh in cursor.take(record):
                    yield fresh
            if page.terminal or not page.events:
                return

    async def _follow(self, run_id: str, after: int) -> AsyncIterator[EventRecord]:
        cursor = wire.Cursor(after)
        if await self._ended_at(run_id, after):
            return
        while not cursor.done:
            broken: ParacleError | None = None
            try:
                async for record in self._stream(run_id, cursor):
                    yield record
                if not cursor.done:  # a cursor of another run may be beyond the last event of this one
                    cursor.done = await self._ended_at(run_id, cursor.after)
            except ParacleError as error:
                broken = error
            if not cursor.done:
                await asyncio.sleep(cursor.pause_s(broken))

    async def _ended_at(self, run_id: str, after: int) -> bool:
        """Whether the run ended with event `after`, so that there is nothing to wait for; checks that it exists."""
        view = await self.get_run(run_id, parts=0, outputs=Outputs.NONE)
        return view.run.status.terminal and view.last_seq <= after

    async def _stream(self, run_id: str, cursor: wire.Cursor) -> AsyncIterator[EventRecord]:
        call = calls.runs.events(run_id, cursor.after)
        lines = wire.EventLines()
        async for line in self._lines(call.path, call.query | {"follow": "true"}, cursor):
            if (record := lines.feed(line)) is not None:
                for fresh in cursor.take(record):
                    yield fresh

    async def _said(self, task_id: str, cursor: wire.Cursor, *, follow: bool = True) -> AsyncIterator[TaskOutput]:
        lines, query = wire.EventLines(), {} if follow else {"follow": "false"}
        async for line in self._lines(calls.runs.task_output(task_id).path, query, cursor):
            if (text := lines.text(line)) is not None:
                output = wire.output_of(text)
                cursor.hear(output)
                yield output

    async def _lines(self, path: str, query: dict[str, Any], cursor: wire.Cursor) -> AsyncIterator[str]:
        """Lines of an event stream, from what `cursor` has seen."""
        try:
            async with self._http.stream(
                "GET", path, params=query, headers=wire.stream_headers(cursor.after), timeout=wire.STREAM_TIMEOUT
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise wire.failure(response)
                wire.require_stream(response)
                cursor.heard()
                async for line in response.aiter_lines():
                    cursor.heard()
                    yield line
        except httpx2.RequestError as error:
            raise wire.unreachable(error, self.url) from error

    async def _ask[R: Message](self, call: Call[R]) -> R:
        attempt = 1
        while True:
            try:
                return await self._ask_once(call)
            except ParacleError as error:
                if not wire.worth_retrying(error, attempt):
                    raise
                await asyncio.sleep(wire.pause_s(attempt, error))
            attempt += 1

    async def _ask_once[R: Message](self, call: Call[R]) -> R:
        try:
            response = await self._http.request(
                call.method,
                call.path,
                params=call.query,
                headers=wire.headers(call.headers),
                json=call.json,
                content=call.text,
                timeout=wire.timeout(call.patience_s),
            )
        except httpx2.RequestError as error:
            raise wire.unreachable(error, self.url) from error
        return wire.answer(response, call.answer)
