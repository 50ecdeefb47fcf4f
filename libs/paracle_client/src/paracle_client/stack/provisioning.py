"""Databases, schemas, streams and buckets of the stack: put in place once, and looked at no more until they change."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paracle_client.stack.services import Service, package_folder
from paracle_embedded import NatsServer, PostgresServer, ProcessRef, spawn


@dataclass(frozen=True, slots=True)
class Provisioning:
    """What `paracle_chassis.provision` does to the stack's servers, as a process of its own.

    Both data directories carry the mark of what was put in place; one that was made anew does not.
    """

    nats: NatsServer
    postgres: PostgresServer
    services: Sequence[Service]
    log: Path

    def spawn(self, environment: Mapping[str, str]) -> ProcessRef:
        """Start it, with a log of its own."""
        self.log.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "paracle_chassis.provision"]
        return spawn(argv, log=self.log, env=environment, cwd=self.log.parent.parent)

    @property
    def is_done(self) -> bool:
        """Whether the schemas and the topology of the installed code are in place."""
        wanted = self._fingerprint()
        return all(_read(mark) == wanted for mark in self._marks())

    def note(self) -> None:
        """Remember that they are."""
        done = self._fingerprint()
        for mark in self._marks():
            mark.write_text(done, encoding="ascii")

    def _marks(self) -> tuple[Path, Path]:
        return self.nats.data_dir / "jetstream" / ".provisioned", self.postgres.data_dir / "data" / ".provisioned"

    def _fingerprint(self) -> str:
        """Names the schemas and the topology that the installed code would put in place."""
        digest = hashlib.sha256()
        files = [path for one in self.services for path in one.migrations]
        files += sorted(package_folder("paracle_chassis").rglob("*.py"))
        for path in files:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""
