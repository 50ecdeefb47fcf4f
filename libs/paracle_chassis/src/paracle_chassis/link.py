"""One connection of a service to NATS, owned by a FastStream broker, and the inbox that all its answers come to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import urandom
from typing import TYPE_CHECKING, Any, Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from paracle_chassis import _lean, frames
from paracle_chassis.inlet import Incoming, Inlet
from paracle_chassis.late_acks import LateAcks
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.topology import Durability
from paracle_chassis.voice import Voice
from paracle_domain.errors import Unavailable
from paracle_domain.subjects import takes_answers
from paracle_domain.wording import hosts_of

if TYPE_CHECKING:
    from faststream.nats import NatsBroker
    from nats.aio.client import Client
    from nats.aio.subscription import Subscription
    from nats.js import JetStreamContext

_log = logging.getLogger(__name__)

RECONNECT_WAIT_S: Final = 0.2
BUFFER_BYTES: Final = 16 * 1024 * 1024  # what may be published while NATS is away, before publishers wait
NO_RESPONDERS: Final = "503"
_TOKEN_BYTES: Final = 12
_TOKENS_AT_ONCE: Final = 256


class Inbox:
    """One wildcard subscription for everything that is answered: `{prefix}.{token}` or `{prefix}.{token}.{more}`.

    Nobody can guess a token: who is asked something, as workers of tenants are, can neither answer another question nor
    have it answered, by naming its token as his own. Whoever waits is called as soon as a message is read: once a PING
    is answered, all that came before was heard.
    """

    def __init__(self, prefix: str, client: Client, inlet: Inlet, acks: LateAcks) -> None:
        self._client = client
        self._inlet = inlet
        self._acks = acks
        self._prefix = prefix
        self._skip = len(self._prefix) + 1
        self._waiting: dict[str, Callable[[str, Incoming], None]] = {}
        self._tokens = _many_tokens()

    async def open(self) -> None:
        subscription = await self._client.subscribe(f"{self._prefix}.>", pending_msgs_limit=0, pending_bytes_limit=0)
        self._inlet.divert(subscription, self._receive)

    def expect(self, on_message: Callable[[str, Incoming], None]) -> str:
        """A fresh reply subject; `on_message(more, message)` is called for what comes to it or below it."""
        token = next(self._tokens)
        self._waiting[token] = on_message
        return f"{self._prefix}.{token}"

    def forget(self, subject: str) -> None:
        """Let go of a reply subject; what still comes to it is dropped, and whoever wants an answer is told so."""
        self._waiting.pop(subject[self._skip :], None)

    def __len__(self) -> int:
        return len(self._waiting)

    def _receive(self, message: Incoming) -> None:
        token, _, more = message.subject[self._skip :].partition(".")
        on_message = self._waiting.get(token)
        if on_message is not None:
            on_message(more, message)
        elif takes_answers(message.reply):  # somebody still works for a caller that no longer waits: hang up
            self._acks.put((message.reply,))


def _many_tokens() -> Iterator[str]:
    while True:
        many = urandom(_TOKEN_BYTES * _TOKENS_AT_ONCE).hex()
        yield from (many[at : at + 2 * _TOKEN_BYTES] for at in range(0, len(many), 2 * _TOKEN_BYTES))


class Heard:
    """A subject that is listened to over the connection of that time, which may be closed or another by now."""

    def __init__(self, subscription: Subscription, inlet: Inlet) -> None:
        self._subscription = subscription
        self._inlet = inlet

    async def stop(self) -> None:
        """Listen no more. On a connection that is gone, nothing is left to be done."""
        with suppress(NatsError, OSError):
            await self._subscription.unsubscribe()
        self._inlet.forget(self._subscription)

    async def drain(self) -> None:
        """The same once all that the server has sent until now is heard."""
        with suppress(NatsError, OSError):
            await self._subscription.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it untyped
        self._inlet.forget(self._subscription)


class Link:
    """The connection. It comes back by itself; whoever must start over then registers with `on_reconnect`."""

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        self.name = name
        self._settings = settings
        self._broker: NatsBroker | None = None
        self._inbox: Inbox | None = None
        self._inlet: Inlet | None = None
        self._hooks: list[Callable[[], None]] = []
        self.acks = LateAcks(lambda: self.client)
        self.voice = Voice(lambda: self.client, BUFFER_BYTES)

    @property
    def durability(self) -> Durability:
        """How streams that are made anew are kept."""
        return Durability(self._settings.nats_replicas, self._settings.nats_relaxed)

    @property
    def broker(self) -> NatsBroker:
        """The FastStream broker; FastStream is loaded when it is first asked for."""
        if self._broker is None:
            self._broker = self._make_broker()
        return self._broker

    @property
    def client(self) -> Client:
        return self.broker.connection

    @property
    def jetstream(self) -> JetStreamContext:
        return self.client.jetstream(timeout=5)

    @property
    def inbox(self) -> Inbox:
        assert self._inbox is not None, "the link is not open"
        return self._inbox

    @property
    def inlet(self) -> Inlet:
        assert self._inlet is not None, "the link is not open"
        return self._inlet

    @property
    def connected(self) -> bool:
        return self._inbox is not None and self.client.is_connected

    @property
    def connections(self) -> int:
        """How often it was connected anew; what was sent before the last time may be lost."""
        return int(self.client.stats["reconnects"])

    def on_reconnect(self, hook: Callable[[], None]) -> Callable[[], None]:
        """Call `hook` after every reconnection, until what is returned is called."""
        self._hooks.append(hook)
        return lambda: self._hooks.remove(hook)

    async def open(self) -> None:
        """Connect.

        Raises
        ------
        Unavailable
            If NATS does not answer within `connect_timeout_s`.
        """
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self.broker.connect()
        except (TimeoutError, OSError) as error:
            raise Unavailable(
                f"NATS does not answer at {hosts_of(self._settings.nats_url)} "
                f"(waited {self._settings.connect_timeout_s:g} s); "
                "start it, or set PARACLE_NATS_URL to where it listens"
            ) from error
        self._inlet = Inlet.on(self.client)
        self._inbox = Inbox(self.new_inbox(), self.client, self._inlet, self.acks)
        await self._inbox.open()

    def new_inbox(self) -> str:
        """A subject to be told something on that nobody can guess: those of nats-py follow from one another."""
        return f"{self._settings.nats_inbox}.{urandom(_TOKEN_BYTES).hex()}"

    async def hear(self, subject: str, sink: Callable[[Incoming], None], *, queue: str = "") -> Heard:
        """Call `sink` with what comes on `subject`, as it comes; of all who share a `queue`, one is called."""
        subscription = await self.client.subscribe(subject, queue=queue)
        self.inlet.divert(subscription, sink)
        return Heard(subscription, self.inlet)

    async def close(self) -> None:
        """Send what is still buffered, then disconnect."""
        if self._broker is None or self._inbox is None:
            return
        self._inbox = self._inlet = None
        client = self._broker.connection
        if not client.is_connected:
            self.acks.drop()
            frames.drop_unsent(client)
            with _unless_cancelled():
                await client.close()
            return
        await self.acks.flush()
        await self.voice.flush()
        with _unless_cancelled():
            await self._broker.stop()

    async def check(self, within_s: float = 1.0) -> None:
        """Ask NATS whether it is there; it is, and has all that was sent before.

        Raises
        ------
        Unavailable
            If it does not answer in time.
        """
        try:
            async with asyncio.timeout(within_s):
                await self.acks.flush()
                await self.voice.flush()
                await frames.flushed(self.client, within_s)
        except Exception as error:  # whatever it is, NATS did not answer
            raise Unavailable(f"NATS does not answer: {type(error).__name__}") from error
        if not self.client.is_connected:  # while it reconnects, nats-py flushes into its own buffer
            raise Unavailable("NATS does not answer: the connection is lost")

    def _make_broker(self) -> NatsBroker:
        _lean.load("faststream.nats")
        from faststream.nats import NatsBroker  # noqa: PLC0415  # a second of CPU that provisioning does not need

        options: dict[str, Any] = {
            "name": f"paracle-{self.name}",
            "inbox_prefix": self._settings.nats_inbox,
            "connect_timeout": 2,
            "reconnect_time_wait": RECONNECT_WAIT_S,
            "max_reconnect_attempts": -1,
            "ping_interval": 10,
            "max_outstanding_pings": 2,
            "pending_size": BUFFER_BYTES,
            "graceful_timeout": self._settings.drain_timeout_s,
            "logger": None,
        }
        return NatsBroker(
            [url.strip() for url in self._settings.nats_url.split(",")],
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnected,
            **options,
        )

    async def _on_error(self, error: Exception) -> None:
        _log.debug("NATS: %s: %s", type(error).__name__, error)

    async def _on_disconnect(self) -> None:
        if self._inbox is not None:
            _log.warning("lost the connection to NATS; trying again until it is back")

    async def _on_reconnected(self) -> None:
        _log.info("connected to NATS again")
        for hook in list(self._hooks):
            hook()


@contextmanager
def _unless_cancelled() -> Iterator[None]:
    """Let no cancel come out of the closing of a connection but that of whoever closes it.

    If it was lost just before, nats-py waits for its end already, calls that off, and waits for what it called off.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


def status_of(message: Msg | Incoming) -> str | None:
    """The status of a server's control message; `None` if it is an ordinary one."""
    return message.headers.get("Status") if message.headers and not message.data else None
