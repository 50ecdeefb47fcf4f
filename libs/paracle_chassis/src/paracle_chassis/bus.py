"""The bus as services see it: ask, publish, tell everyone, command.

`Bus` is the port. `NatsBus` is it over NATS, `testing.memory.MemoryBus` within one process; both are held to the same
contract suite (`testing.contracts.bus`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.messages import Command, Encodable, JsonObject, Message, Request
from paracle_domain.records import record

CLAIM_THRESHOLD: Final = 256 * 1024
PAYLOAD_LIMIT: Final = 64 * 1024 * 1024


@record
class Outgoing:
    """A message with where it goes. Bodies over 256 KiB travel by claim check, unseen.

    `joins`: the subject of a bundle that it may travel in, with others for the same stream of its tenant; also unseen.
    Whoever gets a bundle gets all of it, so only what is done at once should travel so.
    """

    subject: str
    message: Encodable
    envelope: Envelope
    joins: str | None = None


class Bus(ABC):
    """How a service talks to the others.

    Every method raises `Unavailable` if NATS stays away for longer than its deadline, and `PayloadTooLarge` for a
    body over 64 MiB.
    """

    @abstractmethod
    async def call[R: Message](
        self, request: Request[R], context: Context, *, timeout_s: float = 5.0, idle_s: float | None = None
    ) -> R:
        """Ask the service that `request` names, and wait for its answer.

        Parameters
        ----------
        request
            The question; its class knows whom to ask and what the answer is.
        context
            On whose behalf; its tenant is that of the subject.
        timeout_s
            Seconds until `DeadlineExceeded`.
        idle_s
            For handlers that are declared `long`: seconds without a sign of life until `Unavailable`.

        Raises
        ------
        ParacleError
            What the other side raised, as the same class; `Unavailable` if nobody answers.
        """

    @abstractmethod
    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish to streams; all are stored on return. A message with an id that is stored already changes nothing.

        Commands are an exception: their stream confirms nothing, so on return the server has them, and no more is
        known. `command` waits for the answer; whoever publishes one repeats it until he sees its effect.

        Raises
        ------
        PayloadTooLarge
            If one is more than travels; all others are stored.
        """

    def packer(self) -> Callable[[Outgoing], Outgoing]:
        """What does as much of `publish` as can be done: for whoever has to wait before messages may be published.

        It is of the moment, and of the span around it: whoever has many messages asks for it once.
        """
        return _as_it_is

    @abstractmethod
    async def broadcast(self, message: Outgoing) -> None:
        """Tell whoever listens just now."""

    @abstractmethod
    async def send(
        self, subject: str, message: Encodable, envelope: Envelope, *, timeout_s: float = 10.0
    ) -> JsonObject:
        """Publish a command, or a message for triggers, and wait for its answer (see `command`)."""

    async def command(
        self,
        command: Command,
        context: Context,
        *,
        id: str | None = None,
        timeout_s: float = 10.0,  # CloudEvents' word
    ) -> JsonObject:
        """Order `command` durably; the answer that its service gives once it is committed.

        It is sent again until it is answered, so its service must take a second one with the same `id` for the first.

        Raises
        ------
        ParacleError
            What the service refused it with; `DeadlineExceeded` without an answer in `timeout_s`.
        """
        envelope = Envelope.wrap(command.type_name, source_of(command), context, id=id)
        subject = subjects.cmd(context.tenant, command.service, command.verb)
        return await self.send(subject, command, envelope, timeout_s=timeout_s)


def _as_it_is(message: Outgoing) -> Outgoing:
    """Packed where nothing can be done beforehand."""
    return message


def source_of(message: Message) -> str:
    """The default CloudEvents source of a message that says nothing better."""
    return f"paracle/{message.type_name.partition('.')[0]}"


def outgoing(
    subject: str,
    message: Message,
    context: Context,
    *,
    source: str,
    id: str | None = None,
    **more: Any,
) -> Outgoing:
    """An `Outgoing` with a fresh envelope."""
    return Outgoing(subject, message, Envelope.wrap(message.type_name, source, context, id=id, **more))
