"""NATS and PostgreSQL as containers, of the images that `docker-compose.yml` names. They need a Docker engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

NATS_IMAGE: Final = "nats:2.15-alpine"
POSTGRES_IMAGE: Final = "postgres:18"
_CONFIG: Final = "/etc/paracle/nats.conf"


@contextmanager
def nats_container(config: Path | None = None) -> Iterator[str]:
    """A nats-server with JetStream, configured by `config` if there is one; gives its URL."""
    container = (
        DockerContainer(NATS_IMAGE).with_exposed_ports(4222).waiting_for(LogMessageWaitStrategy("Server is ready"))
    )
    if config is None:
        container.with_command("--jetstream")
    else:
        container.with_volume_mapping(str(config), _CONFIG, "ro").with_command(f"--config {_CONFIG}")
    with container:
        yield f"nats://{container.get_container_host_ip()}:{container.get_exposed_port(4222)}"


@contextmanager
def postgres_container() -> Iterator[str]:
    """A PostgreSQL; gives the DSN of a role that may create databases and roles."""
    with PostgresContainer(POSTGRES_IMAGE, driver=None) as container:
        yield container.get_connection_url()
