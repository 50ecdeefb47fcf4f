"""nats-server and PostgreSQL from their wheels, as child processes with our own configuration.

    with NatsServer(Path(".paracle/nats")) as nats, PostgresServer(Path(".paracle/postgres")) as postgres:
        nats.url, postgres.dsn

A server belongs to its data directory: any process may open the same directory, see whether the server runs, and
stop it. Everything listens on loopback alone.
"""

from paracle_embedded.nats import NatsServer
from paracle_embedded.postgres import PostgresServer
from paracle_embedded.processes import ProcessRef, free_port, port_is_free, spawn, undivided
from paracle_embedded.server import ServerFailed, tail

__all__ = [
    "NatsServer",
    "PostgresServer",
    "ProcessRef",
    "ServerFailed",
    "free_port",
    "port_is_free",
    "spawn",
    "tail",
    "undivided",
]
