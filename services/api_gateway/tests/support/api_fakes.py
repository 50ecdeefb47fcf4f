"""The services behind the API, by script."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from paracle_api_gateway.ports import Heard
from paracle_chassis.bus import Bus
from paracle_domain.errors import NotFound
from paracle_domain.ids import id_from_key
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Message, Request
from paracle_domain.run.commands import GetRunEvents, RunAccepted, RunEvents, RunStatus, StartRun, Stuck

RUN = id_from_key("run", "example")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(seq, kind="step.completed"):
    return EventRecord(
        entity="run", id=RUN, seq=seq, type=kind, at=AT, correlation_id=RUN, data={"text": "zwei\nZeilen"}
    )


class ScriptedBus(Bus):
    """Answers every question with what `answers` says for its type: a message, an error, or a function of it.

    What went out is in `asked` and `commanded`, each with its context and options.
    """

    def __init__(self):
        self.answers: dict[type[Message], object] = {}
        self.asked: list[tuple[Request, object]] = []
        self.commanded: list[tuple[Message, object, str]] = []

    async def call(self, request, context, *, timeout_s=5.0, idle_s=None):
        self.asked.append((request, context))
        return self._answer(request)

    async def publish(self, messages):
        raise AssertionError("the API publishes nothing")

    async def broadcast(self, message):
        raise AssertionError("the API broadcasts nothing")

    async def send(self, subject, message, envelope, *, timeout_s=10.0):
        self.commanded.append((message, envelope, subject))
        return self._answer(message).model_dump(mode="json")

    def _answer(self, message):
        found = self.answers[type(message)]
        if callable(found):
            found = found(message)
        if isinstance(found, Exception):
            raise found
        return found


class Orchestrator:
    """One run and its events, page by page; `fails` is raised instead, as often as it has elements."""

    def __init__(self, bus: ScriptedBus, page=2):
        self.events: list[EventRecord] = []
        self.fails: list[Exception] = []
        self.stuck: Stuck | None = None
        self.page = page
        bus.answers[GetRunEvents] = self.after
        bus.answers[StartRun] = lambda command: RunAccepted(run_id=command.run_id, status=RunStatus.QUEUED)

    def after(self, question):
        if self.fails:
            raise self.fails.pop(0)
        if question.run_id != RUN:
            raise NotFound(f"there is no run {question.run_id!r}")
        found = [told for told in self.events if told.seq > question.after][: min(self.page, question.limit)]
        last = found[-1].seq if found else question.after
        ended = bool(self.events) and self.events[-1].type == "run.completed" and last >= self.events[-1].seq
        return RunEvents(events=tuple(found), terminal=ended, stuck=None if found else self.stuck)


class HandBells:
    """Bells that a test rings."""

    def __init__(self):
        self.listeners: set[asyncio.Event] = set()

    def ring(self):
        for listener in self.listeners:
            listener.set()

    @asynccontextmanager
    async def watch(self, tenant, run_id):
        listener = asyncio.Event()
        self.listeners.add(listener)
        try:
            yield listener
        finally:
            self.listeners.discard(listener)


class HandOutputs:
    """What tasks say, as a test writes it into `said`; `fails` is raised instead, as often as it has elements."""

    def __init__(self, page=2):
        self.said: list[Heard] = []
        self.fails: list[Exception] = []
        self.page = page
        self.listeners: set[asyncio.Event] = set()
        self.news: set[asyncio.Event] = set()

    def say(self, *said):
        place = self.said[-1].seq if self.said else 0
        self.said += [Heard(seq, one) for seq, one in enumerate(said, start=place + 1)]
        for listener in self.listeners:
            listener.set()

    def happen(self):
        for listener in self.news:
            listener.set()

    async def read(self, tenant, task_id, after, limit):
        if self.fails:
            raise self.fails.pop(0)
        return [heard for heard in self.said if heard.seq > after][: min(limit, self.page)]

    @asynccontextmanager
    async def watch(self, tenant, task_id):
        said, happened = asyncio.Event(), asyncio.Event()
        self.listeners.add(said)
        self.news.add(happened)
        try:
            yield said, happened
        finally:
            self.listeners.discard(said)
            self.news.discard(happened)


def frames(text):
    """The server-sent events of a stream's `text`, as dictionaries of their fields; comments are left out."""
    blocks = (block for block in text.split("\n\n") if block)
    fields = ([line.partition(": ") for line in block.split("\n") if not line.startswith(":")] for block in blocks)
    return [{name: value for name, _, value in lines} for lines in fields if lines]
