"""The routing table of a service: which handler answers what. It stands in the service's `handlers.py`.

    table = Routes("registry")
    table.rpc(ResolvePlan, registry.resolve_plan)
    table.mailbox(stream=subjects.COMMANDS, durable="registry", filter="…", handler=registry.obey)
    table.listen("paracle.v1.*.evt.task.*.*", registry.overhear)

Handlers are plain functions. The table knows no broker: the app binds it to a live one, tests to one in memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from paracle_chassis.delivery import Delivery
from paracle_chassis.room import Room
from paracle_domain.envelope import Context
from paracle_domain.messages import Message, Request

type RpcHandler[Q: Request[Any], R: Message] = Callable[[Q, Context], Awaitable[R]]
type MailboxHandler = Callable[[Sequence[Delivery]], Awaitable[None]]
type ListenHandler = Callable[[Delivery], Awaitable[None]]

DEFAULT_BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)


@dataclass(frozen=True, slots=True)
class RpcRoute:
    """A request type and what answers it; `long` sends keep-alives while it works, `exact` refuses unknown fields."""

    request: type[Request[Any]]
    handler: RpcHandler[Any, Any]
    long: bool = False
    exact: bool = False

    @property
    def method(self) -> str:
        return self.request.method


@dataclass(frozen=True, slots=True)
class MailboxRoute:
    """A durable consumer of a stream and what handles its messages.

    Attributes
    ----------
    batch
        Most messages handed over at once. The handler gets what is there; it never waits for a full batch. As many are
        held ready besides the batch in hand, or asked for.
    at_once
        Most batches that the handler works on at the same time. More than one where a handler waits (for a commit, say)
        and its batches do not disturb each other.
    linger_s
        Seconds to let messages gather at the server, once one has come, before they are fetched together. 0 for what
        somebody waits for; more for what nobody does: there a message alone costs a multiple of one among many. Only
        the first of the next batch is held ready then, and the others are left to whichever replica fetches them. Not
        with a `room`.
    ack_wait_s
        Seconds without settlement or heartbeat after which a message is delivered again. While the handler works,
        the mailbox heartbeats; what the handler keeps (`Delivery.keep`) it heartbeats itself.
    max_deliver
        Tries after which a message that keeps failing goes to the dead letters.
    max_ack_pending
        Most messages in the hands of all replicas together.
    backoff_s
        Delays before the second, third, … try of a failing message; the last one repeats.
    room
        Places for what the handler keeps; the mailbox asks for no more than there are. Only with `at_once` 1.
    """

    stream: str
    durable: str
    filter: str
    handler: MailboxHandler
    batch: int = 256
    at_once: int = 1
    linger_s: float = 0.0
    ack_wait_s: float = 30.0
    max_deliver: int = 8
    max_ack_pending: int = 10_000
    backoff_s: tuple[float, ...] = DEFAULT_BACKOFF_S
    room: Room | None = None

    def __post_init__(self) -> None:
        if self.room is not None and (self.at_once > 1 or self.linger_s):
            message = f"mailbox {self.durable}: with a room it takes one batch at once, and does not linger"
            raise ValueError(message)

    def delay_after(self, tries: int) -> float:
        """Seconds to wait after the `tries`-th failed try."""
        return self.backoff_s[min(tries, len(self.backoff_s)) - 1]


@dataclass(frozen=True, slots=True)
class ListenRoute:
    """A core subscription that every replica has for itself; what nobody hears is gone."""

    subject: str
    handler: ListenHandler


@dataclass(slots=True)
class Routes:
    """Everything that a service answers, obeys and hears."""

    service: str
    rpcs: list[RpcRoute] = field(default_factory=list)
    mailboxes: list[MailboxRoute] = field(default_factory=list)
    listens: list[ListenRoute] = field(default_factory=list)

    def rpc[R: Message, Q: Request[Any]](
        self,
        request: type[Q],
        handler: Callable[[Q, Context], Awaitable[R]],
        *,
        long: bool = False,
        exact: bool = False,
    ) -> None:
        """Answer `request` with what `handler(request, context)` returns; the rest as in `RpcRoute`."""
        if request.service != self.service:
            raise ValueError(f"{request.__name__} is asked of {request.service!r}, not of {self.service!r}")
        if any(route.method == request.method for route in self.rpcs):
            raise ValueError(f"{self.service}.{request.method} has a handler already")
        self.rpcs.append(RpcRoute(request, handler, long, exact))

    def mailbox(
        self, *, stream: str, durable: str, filter: str, handler: MailboxHandler, **options: Any
    ) -> None:  # JetStream's word
        """Handle messages of `stream` whose subject matches `filter`; `options` as in `MailboxRoute`."""
        if any((route.stream, route.durable) == (stream, durable) for route in self.mailboxes):
            raise ValueError(f"mailbox {durable!r} of stream {stream} has a handler already")
        self.mailboxes.append(MailboxRoute(stream, durable, filter, handler, **options))

    def listen(self, subject: str, handler: ListenHandler) -> None:
        """Hear what is said on `subject` while this replica is up."""
        self.listens.append(ListenRoute(subject, handler))
