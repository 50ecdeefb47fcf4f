"""The process: connect, listen, drain on SIGTERM, disconnect."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, override

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from paracle_api_gateway.adapters.nats import NatsBells
from paracle_api_gateway.adapters.outputs import NatsOutputs
from paracle_api_gateway.app import Api, create_app
from paracle_api_gateway.edge import Edge
from paracle_api_gateway.settings import Settings
from paracle_chassis import logging as chassis_logging
from paracle_chassis import telemetry
from paracle_chassis.nats_bus import NatsBus
from paracle_domain.errors import ParacleError

EXIT_UNAVAILABLE: Final = 1
_BACKLOG: Final = 2048
log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """Tells event streams that it drains, so that they end and their readers go elsewhere."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._closing = closing

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Being told to stop is no failure: unlike uvicorn's own, this does not raise the signal again at the end."""
        loop = asyncio.get_running_loop()
        for number in HANDLED_SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in HANDLED_SIGNALS:
                loop.remove_signal_handler(number)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._closing.set()
        super().handle_exit(sig, frame)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises
    ------
    Unavailable
        If NATS does not answer.
    OSError
        If the address cannot be listened on.
    """
    listener = listen(settings.api_host, settings.api_port)
    bus = NatsBus("api_gateway", settings)
    await bus.open()
    try:
        bells = NatsBells(bus.link)
        app = create_app(settings, bus=bus, bells=bells, outputs=NatsOutputs(bus.link, bells), check=bus.check)
        server = _Server(config(app, settings), app.state.closing)
        host, port = listener.getsockname()[:2]
        log.info("listening", extra={"host": host, "port": port})
        await server.serve([listener])
    finally:
        await bus.close()


def config(app: Api, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves `app`."""
    return uvicorn.Config(
        Edge(app, only_local=not settings.api_allow_unauthenticated),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.drain_timeout_s),
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, made before anything else starts so that a taken port is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno, f"cannot listen on {host}:{port} ({error.strerror}); set PARACLE_API_PORT to a free port"
        ) from error
    listener.listen(_BACKLOG)
    listener.set_inheritable(True)
    return listener


def run(settings: Settings) -> int:
    """Run the process; its exit code."""
    chassis_logging.configure("api_gateway", settings.log_level)
    stop_telemetry = telemetry.setup("api_gateway", settings.otlp_endpoint)
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(serve(settings))
    except ParacleError as error:
        log.critical("cannot start: %s", error.message)
        return EXIT_UNAVAILABLE
    except OSError as error:
        log.critical("cannot start: %s", error.strerror or error)
        return EXIT_UNAVAILABLE
    finally:
        stop_telemetry()
    return 0


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415  # not where settings are wrong

    return uvloop.new_event_loop()


__all__ = ["run", "serve"]
