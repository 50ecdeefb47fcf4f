"""A process that answers calls of tools, and questions to guards, as long as it runs.

    from paracle_client.worker import Worker

    worker = Worker()

    @worker.tool()
    def add(a: int, b: int) -> int:
        \"\"\"The sum of two numbers.\"\"\"
        return a + b

    if __name__ == "__main__":
        worker.main()

`python tools.py manifests | paracle apply -f -` makes the tools known, `python tools.py` answers calls of them. Any
number of such processes share the calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, override

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import ProtocolError
from nats.protocol.parser import PERMISSIONS_ERR

from paracle_client.worker.functions import EffectName, Function, function
from paracle_client.worker.guards import GuardFunction, guard_function
from paracle_client.worker.serving import Crew, Served, Serving
from paracle_client.yaml_text import dump
from paracle_domain import subjects
from paracle_domain.errors import Conflict, ParacleError, SpecInvalid, Unavailable
from paracle_domain.subjects import DEFAULT_TENANT
from paracle_domain.wording import hosts_of

_log = logging.getLogger(__name__)

DEFAULT_URL: Final = "nats://127.0.0.1:4222"
DEFAULT_INBOX: Final = "_INBOX"
_CONNECT_S: Final = 10.0


class LastingClient(Client):
    """A client that connects anew, too, when the server ends the connection with an error: nats-py's is closed then."""

    @override
    async def _process_err(self, err_msg: str) -> None:
        if PERMISSIONS_ERR in err_msg:  # ends nothing
            await super()._process_err(err_msg)
            return
        _log.warning("NATS ends the connection: %s", err_msg)
        raise ProtocolError


class Worker:
    """Functions as tools.

    Parameters
    ----------
    url
        Where NATS is; `PARACLE_NATS_URL`, or else port 4222 of this machine, if absent.
    tenant
        Whose calls it answers.
    inbox
        What the subjects begin with on which it is told things; its NATS user may listen there. `PARACLE_NATS_INBOX`,
        or else `_INBOX`, if absent.
    concurrency
        Most calls of tools that it works on at once, and as many questions to guards beside them; further ones wait.
    drain_s
        How long calls in hand may take when it is told to stop.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        inbox: str | None = None,
        concurrency: int = 64,
        drain_s: float = 30.0,
    ) -> None:
        self._url = url or os.environ.get("PARACLE_NATS_URL") or DEFAULT_URL
        self._inbox = inbox or os.environ.get("PARACLE_NATS_INBOX") or DEFAULT_INBOX
        self._tenant = tenant
        self._concurrency = concurrency
        self._drain_s = drain_s
        self._functions: dict[str, Function] = {}
        self._guards: dict[str, GuardFunction] = {}

    def tool[F: Callable[..., Any]](
        self,
        *,
        name: str | None = None,
        effect: EffectName = "at_most_once",
        timeout_s: float = 30.0,
        concurrency: int | None = None,
        probe: str | None = None,
    ) -> Callable[[F], F]:
        """Make the function below a tool: types become its schemas, its docstring the description.

        An argument of type `ToolCall` gets the call itself: its key, task, run and deadline. Without an `effect` it is
        assumed that the tool must never be called twice; `probe` names the tool that then looks whether a call whose
        answer was lost had its effect. `ToolFailed`, `ToolUnavailable` and `InputInvalid` say that nothing was done;
        any other exception leaves that open.

        Raises
        ------
        SpecInvalid
            If the function can be no tool.
        Conflict
            If there is a tool of that name already.
        """

        def register(call: F) -> F:
            made = function(call, name=name, effect=effect, timeout_s=timeout_s, concurrency=concurrency, probe=probe)
            if made.name in self._functions:
                raise Conflict(f"this worker has two tools called {made.name!r}")
            self._functions[made.name] = made
            return call

        return register

    def guard[F: Callable[..., Any]](
        self, *, name: str | None = None, concurrency: int | None = None
    ) -> Callable[[F], F]:
        """Make the function below a guard: it takes a `GuardQuestion`, and gives a `GuardAnswer`; nothing: it may pass.

        Agents name it in a guard of `type: nats`. What it raises says that nobody knows; then the manifest's `on_error`
        says what is done.

        Raises
        ------
        SpecInvalid
            If its name can be none.
        Conflict
            If there is a guard of that name already.
        """

        def register(call: F) -> F:
            made = guard_function(call, name=name, concurrency=concurrency)
            if made.name in self._guards:
                raise Conflict(f"this worker has two guards called {made.name!r}")
            self._guards[made.name] = made
            return call

        return register

    def manifests(self) -> str:
        """The Tools as YAML, as `paracle apply -f -` takes them."""
        return dump(one.manifest for one in self._functions.values())

    def main(self) -> None:
        """The `main` of a program: `manifests` as its argument prints them, without one it runs until SIGTERM.

        Why it cannot run is one line on standard error, and exit code 1.
        """
        if sys.argv[1:] == ["manifests"]:
            sys.stdout.write(self.manifests())
        elif sys.argv[1:]:
            raise SystemExit(f"usage: {sys.argv[0]} [manifests]")
        else:
            logging.basicConfig(level=logging.INFO)
            try:
                asyncio.run(self.run())
            except ParacleError as error:
                raise SystemExit(f"error: {error}") from None

    async def run(self) -> None:
        """Answer calls until SIGTERM or SIGINT; then take no more, and finish those in hand."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        async with self.serving():
            await stopping.wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer calls while this is entered. A connection that is lost comes back by itself.

        Raises
        ------
        SpecInvalid
            If there is neither a tool nor a guard.
        Unavailable
            If NATS does not answer.
        """
        served: list[Served] = [*self._functions.values(), *self._guards.values()]
        if not served:
            raise SpecInvalid("this worker has no tool: decorate a function with @worker.tool(), or @worker.guard()")
        client = await self._connect()
        crews = {service: Crew(service, self._concurrency) for service in {one.service for one in served}}
        hangups = client.new_inbox()
        table = {(one.service, one.name): Serving(client, one, crews[one.service], hangups) for one in served}

        async def hear(message: Msg) -> None:
            service, name, _ = message.subject.rsplit(".", 3)[1:]
            one = table[service, name]
            if message.headers:  # it is the server, saying that nobody heard
                one.not_heard(message.subject)
            else:
                one.hang_up(message.subject)

        try:
            await client.subscribe(f"{hangups}.>", cb=hear)
            taken = [await self._subscribe(client, *key, one) for key, one in table.items()]
            await _known(client)
            _log.info("serving %s for tenant %s", ", ".join(one.name for one in served), self._tenant)
            yield
            await self._drain(client, taken, list(table.values()))
        finally:
            for crew in crews.values():
                crew.threads.shutdown(wait=False, cancel_futures=True)
            await _close(client)
            _log.info("stopped")

    async def _subscribe(self, client: Client, service: str, name: str, one: Serving) -> Subscription:
        return await client.subscribe(
            subjects.rpc(self._tenant, service, name),
            queue=service,
            cb=one.receive,
            pending_msgs_limit=0,
            pending_bytes_limit=0,
        )

    async def _drain(self, client: Client, taken: list[Subscription], table: list[Serving]) -> None:
        try:
            for subscription in taken:
                await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it untyped
        except (NatsError, OSError) as error:
            _log.warning("NATS is away while stopping: %s", type(error).__name__)
        await asyncio.gather(*(one.finish(self._drain_s) for one in table))
        if client.is_connected:
            await client.flush()

    async def _connect(self) -> Client:
        client = LastingClient()

        async def on_disconnect() -> None:
            if not client.is_closed:  # else it was closed on purpose
                _log.warning("lost the connection to NATS; trying again until it is back")

        _log.info("connecting to NATS at %s", hosts_of(self._url))
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client.connect(
                    [url.strip() for url in self._url.split(",")],
                    name="paracle-worker",
                    inbox_prefix=self._inbox,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # a float is as good
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=_on_error,
                    disconnected_cb=on_disconnect,
                    reconnected_cb=_on_reconnect,
                )
                return client
        except (TimeoutError, OSError, NatsError) as error:
            message = (
                f"NATS does not answer at {hosts_of(self._url)} (waited {_CONNECT_S:g} s); set PARACLE_NATS_URL to "
                "where it listens, which `paracle status` shows"
            )
            raise Unavailable(message) from error


async def _close(client: Client) -> None:
    """Close the connection. If it was lost just now, nats-py waits for a wait that it called off: that is no cancel."""
    try:
        await client.close()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


async def _known(client: Client) -> None:
    """Wait until NATS has read all that was sent before. Its own `flush` lets a PING overtake what waits to be written.

    Raises
    ------
    Unavailable
        If it does not within ten seconds.
    """
    inbox = client.new_inbox()
    echo = await client.subscribe(inbox, max_msgs=1)
    await client.publish(inbox)
    try:
        await echo.next_msg(_CONNECT_S)
    except (NatsError, OSError) as error:
        raise Unavailable(f"NATS does not answer: {type(error).__name__}") from error


async def _on_error(error: Exception) -> None:
    _log.debug("NATS: %s: %s", type(error).__name__, error)


async def _on_reconnect() -> None:
    _log.info("connected to NATS again")
