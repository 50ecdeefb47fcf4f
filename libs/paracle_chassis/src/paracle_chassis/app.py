"""The life of a service: start, ready, drain, stop.

    def create_app(settings: RegistrySettings) -> Service:
        bus = NatsBus("registry", settings)
        database = Database(settings, "paracle_registry")
        registry = RegistryService(PostgresStore(database.pool), bus)
        return Service("registry", settings, bus=bus, routes=routes(registry), resources=[database],
                       checks={"postgres": database.check})

    # __main__.py
    run(create_app)

Nothing connects or reads the environment before `run`. A start that fails says why in one line and exits: 2 for
settings, 1 for everything else.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from inspect import signature
from typing import Any, Final, get_type_hints

from paracle_chassis import garbage, telemetry
from paracle_chassis import logging as json_logs
from paracle_chassis.health import Check, Health
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.outages import is_outage
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings, load_settings
from paracle_domain.errors import ParacleError

_log = logging.getLogger(__name__)

EXIT_FAILED: Final = 1


class Service:
    """One service, composed but not started.

    Parameters
    ----------
    routes
        What it answers, obeys and hears; `None` for one that only asks.
    bus
        Its bus, if the composition made one to hand to its parts; otherwise one is made.
    resources
        Async context managers, entered in this order once the bus is connected, left in reverse after the drain.
    checks
        What readiness asks besides NATS, by name: functions that raise if all is not well.
    facts
        Gives what readiness shows besides, whether or not all is well.
    """

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        *,
        routes: Routes | None = None,
        bus: NatsBus | None = None,
        resources: Sequence[AbstractAsyncContextManager[Any]] = (),
        checks: Mapping[str, Check] | None = None,
        facts: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.name = name
        self.settings = settings
        self.routes = routes or Routes(name)
        self.bus = bus or NatsBus(name, settings)
        self._resources = tuple(resources)
        self.health = Health(name, {"nats": self.bus.check, **(checks or {})}, self.describe, facts)

    def describe(self) -> Mapping[str, Any]:
        """The AsyncAPI document of what it answers, obeys and hears."""
        from paracle_chassis.asyncapi import document  # noqa: PLC0415  # only whoever asks for it needs the generator

        return document(self.routes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        """Started and ready within; drained and stopped on leaving."""
        async with AsyncExitStack() as stack:
            stack.callback(telemetry.setup(self.name, self.settings.otlp_endpoint))
            await self.health.start(self.settings.health_host, self.settings.health_port)
            stack.push_async_callback(self.health.stop)
            stack.push_async_callback(self.bus.close)
            await self.bus.open()
            for resource in self._resources:
                await stack.enter_async_context(resource)
            stack.push_async_callback(self._drain)
            await self.bus.serve(self.routes)
            self.health.state = "ready"
            _log.info("ready", extra={"health_port": self.health.port})
            yield self

    async def _drain(self) -> None:
        self.health.state = "draining"
        _log.info("draining")
        await self.bus.drain(self.settings.drain_timeout_s)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        waiting = loop.create_task(stopping.wait())
        running = loop.create_task(self._run_until(stopping))
        await asyncio.wait((waiting, running), return_when=asyncio.FIRST_COMPLETED)
        if not running.done() and self.health.state == "starting":
            running.cancel()  # told to stop before it was ready
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        try:
            await running
        except asyncio.CancelledError:
            _log.info("stopped before it was ready")
        else:
            _log.info("stopped")

    async def _run_until(self, stopping: asyncio.Event) -> None:
        async with self.running():
            garbage.settle()
            looking = asyncio.create_task(garbage.keep_looking(), name="garbage")
            await stopping.wait()
            looking.cancel()


def run[S: ServiceSettings](create_app: Callable[[S], Service], settings: type[S] | None = None) -> None:
    """The `main` of a service: read its settings, compose it, run it until it is told to stop.

    The settings class is that of `create_app`'s first parameter, unless `settings` says otherwise.
    """
    kind = settings or settings_of(create_app)
    found = load_settings(kind)
    name = kind.__module__.partition(".")[0].removeprefix("paracle_")
    json_logs.configure(name, found.log_level)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_compose_and_run(partial(create_app, found)))
    except Exception as error:  # noqa: BLE001  # the last stop: say why in one line, and leave with a code
        _report(error)
        raise SystemExit(EXIT_FAILED) from None


async def _compose_and_run(create: Callable[[], Service]) -> None:
    await create().run()


def _report(error: Exception) -> None:
    if isinstance(error, ParacleError):
        _log.critical("cannot run: %s", error)
    elif is_outage(error) or isinstance(error, OSError):
        _log.critical("cannot run: %s: %s", type(error).__name__, error)
    else:
        _log.critical("stopped by an unexpected error", exc_info=error)


def settings_of(create_app: Callable[..., Service]) -> type[Any]:
    """The settings class that `create_app` takes."""
    first = next(iter(signature(create_app).parameters))
    kind = get_type_hints(create_app).get(first)
    if not (isinstance(kind, type) and issubclass(kind, ServiceSettings)):
        raise TypeError(f"the first parameter of {create_app.__qualname__} must be annotated with its ServiceSettings")
    return kind


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop  # noqa: PLC0415  # only a real process needs it

    return uvloop.new_event_loop
