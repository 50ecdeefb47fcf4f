"""One run's share of a batch: what its mail leads to, which pages that is, and what is to go out once they are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from paracle_chassis.bus import Outgoing
from paracle_chassis.event_store import Append, Page
from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.records import record
from paracle_domain.run.directives import RunDirective, ShowApproval
from paracle_domain.run.events import RunEvent, decode_event
from paracle_domain.run.inbox import Decide, Pause, Resume, Signal
from paracle_domain.run.state import RunState
from paracle_orchestrator.mail import Entry, Mail
from paracle_orchestrator.outgoing import message_of
from paracle_orchestrator.pages import told
from paracle_orchestrator.ports import Shown

_OBEYED: Final[Mapping[type[object], str]] = {
    Pause: "run.paused",
    Resume: "run.resumed",
    Signal: "signal.received",
    Decide: "approval.decided",
}
"""What happens to a run that does as it is told. Ids of messages are their senders' choice, and may be used twice."""


@record
class _Made:
    """What a mail led to: what is to be told of its page, and what is to be done."""

    page: Page | None
    events: tuple[RunEvent, ...]
    directives: tuple[RunDirective, ...]
    context: Context
    at: datetime


@dataclass(slots=True)
class Turn:
    """From `entry` on, to `state`. `outbox` and `shown` are there once it is prepared."""

    entry: Entry
    state: RunState
    wake_at: datetime | None
    pages: list[Page] = field(default_factory=list)
    outbox: list[Outgoing] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    repeats: list[Mail] = field(default_factory=list)
    _made: list[_Made] = field(default_factory=list)
    refused: dict[str, ParacleError] = field(default_factory=dict)
    _after: Entry | None = None

    @classmethod
    def of(cls, entry: Entry, mails: Iterable[Mail], now: datetime, done: Collection[Mail] = ()) -> Turn:
        """What `mails` lead to at `now`, but for those that are `done`.

        A run is nobody's but its tenant's: for others it is not there.
        """
        turn = cls(entry, entry.state, entry.wake_at)
        for mail in mails:
            if mail.context.tenant != entry.tenant:
                continue
            if done and any(mail is one for one in done):
                turn.repeats.append(mail)
            else:
                turn._take(mail, now)
        return turn

    @property
    def idle(self) -> bool:
        """Whether there is mail, and none of it changed anything.

        That may only seem so: what is cached may have been moved on elsewhere. Where something is appended, that shows.
        """
        return bool(self.repeats) and not self.pages

    @property
    def after(self) -> Entry:
        """The run as it stands once this is stored."""
        if self._after is None:
            before = self.entry
            self._after = Entry(before.id, before.tenant, before.machine, self.state, before.facts, self.wake_at)
        return self._after

    @property
    def append(self) -> Append:
        """What is to be stored."""
        before, state = self.entry, self.state
        return Append(
            id=before.id,
            tenant=before.tenant,
            expected=before.state.seq,
            pages=tuple(self.pages),
            status=state.status.value,
            wake_at=self.wake_at,
            finished_at=state.finished_at,
            facts=before.facts if before.state.seq == 0 else None,
            created_at=before.state.created_at,
        )

    def prepare(self, pack: Callable[[Outgoing], Outgoing]) -> None:
        """Put together what is to go out once the turn is stored."""
        for made in self._made:
            if made.page is not None:
                self._tell(made.page, made.events, made.context)
            self._carry_out(made.directives, made.context, made.at)
        self.outbox = [pack(message) for message in self.outbox]

    def say_again(self, pages: Mapping[str, Page]) -> None:
        """Add what mail that was handled before led to then. What was obeyed then is not refused now."""
        for mail in self.repeats:
            page = pages.get(mail.cause) if mail.may_repeat else None
            if page is None:
                continue
            events = [decode_event(event) for event in page.events]
            if was_obeyed(mail, events):
                self.refused.pop(mail.cause, None)
            context = mail.context.caused_by(mail.cause, self.entry.id)
            self._tell(page, events, context)
            self._carry_out(self.entry.machine.again(self.state, events), context, page.at)

    def _take(self, mail: Mail, now: datetime) -> None:
        machine = self.entry.machine
        if (refusal := machine.objection(self.state, mail.message, now)) is not None:
            self.refused[mail.cause] = refusal
        made = machine.decide(self.state, mail.message, now, self.wake_at)
        page: Page | None = None
        if made.events:
            page = Page(self.state.seq + 1, mail.cause, now, tuple([event.encode() for event in made.events]))
            self.pages.append(page)
        else:
            self.repeats.append(mail)
        self.state, self.wake_at = made.state, made.wake_at
        if made.events or made.directives:
            context = mail.context.caused_by(mail.cause, self.entry.id)
            self._made.append(_Made(page, made.events, made.directives, context, now))

    def _tell(self, page: Page, events: Sequence[RunEvent], context: Context) -> None:
        self.outbox += told(self.entry.tenant, self.entry.id, page, [event.type for event in events], context)

    def _carry_out(self, directives: Iterable[RunDirective], context: Context, now: datetime) -> None:
        """Take in what is to be done once the turn is stored."""
        tenant = self.entry.tenant
        for directive in directives:
            if isinstance(directive, ShowApproval):
                self.shown.append(Shown(tenant, directive.approval, directive.version))
            else:
                self.outbox.append(message_of(tenant, directive, context, now))


def was_obeyed(mail: Mail, events: Iterable[RunEvent]) -> bool:
    """Whether `events`, which a message with the id of `mail` led to, say that a run did what `mail` says."""
    return any(event.type == _OBEYED.get(type(mail.message)) for event in events)
