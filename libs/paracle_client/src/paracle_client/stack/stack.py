"""Starting, stopping and looking at the embedded stack."""

from __future__ import annotations

import fcntl
import hmac
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from paracle_client.stack.drift import Drift, drift_lines, drifts
from paracle_client.stack.health import readiness
from paracle_client.stack.logs import line, log_end, rotate
from paracle_client.stack.provisioning import Provisioning
from paracle_client.stack.services import SERVICES, Replica, Service
from paracle_client.stack.state import Member, Standing, State
from paracle_embedded import (
    NatsServer,
    PostgresServer,
    ProcessRef,
    ServerFailed,
    free_port,
    port_is_free,
    spawn,
    undivided,
)

DEFAULT_PORT: Final = 8080
EDGE: Final = "api_gateway"
NATS: Final = "nats"
POSTGRES: Final = "postgres"
_SERVERS: Final = frozenset({NATS, POSTGRES})
_POLL_S: Final = 0.05
_DRAIN_S: Final = 25.0
_MOST_REPLICAS: Final = 32
_THIS_MACHINE: Final = "localhost,127.0.0.1,::1"


class StackFailed(RuntimeError):
    """The stack could not do what was asked; the message names the process, its log, and what to do."""


class Stack:
    """The embedded stack whose data, logs and state are under `root`.

    Parameters
    ----------
    root
        A folder of its own, made when needed.
    port
        Of the REST API. `None`: the port that it had before, else 8080, else a free one. 0: likewise without 8080.
    files_root
        What builtin tools may read files below.
    replicas
        How many processes each service is to have, where that is not one; they share its work. `None`: as many as it
        had before. The API is served by one.
    extra_env
        Further environment by the name of a service (or of one of its replicas), or of `provision`.
    report
        Is given a line for each thing that happens.
    ready_timeout_s
        How long the services may take until they answer.
    """

    def __init__(
        self,
        root: Path = Path(".paracle"),
        *,
        port: int | None = None,
        files_root: Path | None = None,
        replicas: Mapping[str, int] | None = None,
        extra_env: Mapping[str, Mapping[str, str]] | None = None,
        report: Callable[[str], None] = lambda _line: None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        self.root = root.absolute()
        self._port = port
        self._files_root = (files_root or Path.cwd()).absolute()
        self._extra_env = dict(extra_env or {})
        self._asked = None if replicas is None else _checked(replicas)
        self._report = report
        self._ready_timeout_s = ready_timeout_s
        try:
            self._state = State.load(self.root)
            self.nats = NatsServer(self.root / NATS)
            self.postgres = PostgresServer(self.root / POSTGRES)
        except (ValueError, ServerFailed) as error:
            raise StackFailed(str(error)) from error

    # Looking at it

    @property
    def url(self) -> str:
        """Where the REST API is; known once the stack was up."""
        if self._state.url is None:
            message = f"the stack under {self.root} was never up; start it with `paracle up`"
            raise StackFailed(message)
        return self._state.url

    @property
    def nats_url(self) -> str:
        """Where NATS clients connect."""
        return self.nats.url

    @property
    def is_up(self) -> bool:
        """Whether every process of the stack runs (not: whether it is ready)."""
        return self.nats.running and self.postgres.running and all(self._alive(name) for name in self._names())

    def log_path(self, name: str) -> Path:
        """The log of a service, or of `nats` or `postgres`."""
        return self._server(name).log_path if name in _SERVERS else self.root / "logs" / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The pid of a running service, or of `nats` or `postgres`."""
        ref = self._ref(name)
        return ref.pid if ref is not None and ref.alive else None

    def status(self) -> list[Standing]:
        """How every process stands now."""
        self._state = State.load(self.root)
        return [self._standing(name) for name in (NATS, POSTGRES, *self._names())]

    def drift(self) -> list[str]:
        """Lines about what services that run were started with, where they would be started otherwise now."""
        found: dict[Drift, list[str]] = {}
        for replica in self._wanted():
            member = self._state.members.get(replica.name)
            there = None if member is None else member.process.environment
            if member is None or there is None:
                continue
            port = None if member.port is None else self._port or member.port
            for one in drifts(self._env_of(replica, member.health_port, port), there):
                found.setdefault(one, []).append(replica.name)
        return drift_lines(found, self._names())

    # Changing it

    def up(self) -> bool:
        """Start what does not run yet, and return once everything answers; false if there was nothing to do.

        Replicas beyond those that are wanted are stopped.

        Raises
        ------
        StackFailed
            Naming the process that did not come up, its exit code, log and last lines. What this call started is
            stopped again.
        """
        began = time.monotonic()
        with self._locked():
            self._state = State.load(self.root)
            fewer = self._settle_replicas()
            if self.is_up:
                self._await_ready(self._names())
                return fewer
            started: list[str] = []
            if EDGE in self._names() and not self._alive(EDGE):
                self._choose_port()  # one that is taken is better told before anything starts
            try:
                self._start_servers(started)
                self._start_services(started)
            except BaseException as error:  # an interrupt, too, must leave nothing behind
                self._stop(started)
                if isinstance(error, ServerFailed):
                    raise StackFailed(str(error)) from error
                raise
        self._report(f"stack up in {time.monotonic() - began:.1f} s: {self.url}")
        return True

    def down(self) -> bool:
        """Stop everything, the services first; false if nothing ran."""
        with self._locked():
            self._state = State.load(self.root)
            running = [name for name in (NATS, POSTGRES, *self._state.members) if self._alive(name)]
            self._stop(running)
        return bool(running)

    def provision(self) -> None:
        """Put databases, schemas, streams and buckets in place; what is there already stays."""
        if not (self.nats.running and self.postgres.running):
            raise StackFailed("NATS and PostgreSQL do not run; start them with `paracle up`")
        self._provision()

    def kill(self, name: str) -> None:
        """`kill -9` one service, or `nats` or `postgres`."""
        if name in _SERVERS:
            self._server(name).kill()
        elif (ref := self._ref(name)) is not None:
            ref.kill_tree()

    def start(self, name: str) -> None:
        """Start one service, or `nats` or `postgres`, if it does not run, and wait until it answers."""
        with self._locked():
            self._state = State.load(self.root)
            if name in _SERVERS:
                self._server(name).start()
            elif not self._alive(name):
                self._spawn(self._replica(name))
                self._await_ready([name])

    def restart(self, name: str) -> None:
        """Stop one service, or `nats` or `postgres`, cleanly and start it again."""
        with self._locked():
            self._stop([name])
        self.start(name)

    # Starting

    def _start_servers(self, started: list[str]) -> None:
        """Both at once: each spends its time waiting for its own disk."""
        missing = [name for name in (NATS, POSTGRES) if not self._alive(name)]
        started += missing
        with ThreadPoolExecutor(2) as pool:
            starts = [pool.submit(self._start_server, name) for name in missing]
        for one in starts:
            one.result()
        self._link_logs()

    def _start_server(self, name: str) -> None:
        began = time.monotonic()
        self._server(name).start()
        self._report(line(name, "ready", began, self.log_path(name)))

    def _start_services(self, started: list[str]) -> None:
        """Provision, unless this very schema and topology are in place, and start the services, all together.

        Interpreters take most of the time: what can be left out or done side by side makes the start fast.
        """
        if not self._provisioning.is_done:
            self._provision()
        missing = [one for one in self._wanted() if not self._alive(one.name)]
        for one in missing:
            started.append(one.name)
            self._spawn(one)
        self._await_ready(self._names(), announce={one.name for one in missing})

    @property
    def _provisioning(self) -> Provisioning:
        return Provisioning(self.nats, self.postgres, SERVICES, self.root / "logs" / "provision.log")

    def _provision(self) -> None:
        began, provisioning = time.monotonic(), self._provisioning
        environment = SERVICES[0].inherits(os.environ) | {
            "PARACLE_NATS_URL": self.nats.url,
            "PARACLE_POSTGRES_ADMIN_DSN": self.postgres.dsn,
            "PARACLE_POSTGRES_PASSWORD": self._service_password(),
            **self._extra_env.get("provision", {}),
        }
        ref = provisioning.spawn(environment)
        if not ref.wait(self._ready_timeout_s):
            ref.kill_tree()
            message = f"provisioning did not end within {self._ready_timeout_s:g} s{log_end(provisioning.log)}"
            raise StackFailed(message)
        if ref.exit_code != 0:
            message = f"provisioning failed (exit code {ref.exit_code}){log_end(provisioning.log)}"
            raise StackFailed(message)
        provisioning.note()
        self._report(line("provision", "done", began, provisioning.log))

    def _spawn(self, replica: Replica) -> None:
        service = replica.service
        log = self.log_path(replica.name)
        rotate(log)
        port = self._choose_port() if service.name == EDGE else None
        health_port = free_port() if port is None else port
        environment = self._env_of(replica, health_port, port)
        with undivided():
            ref = spawn(service.argv, log=log, env=environment, cwd=self.root)
            self._state.members[replica.name] = Member(ref, health_port, port)
            if port is not None:
                self._state.url = f"http://127.0.0.1:{port}"
            self._state.save(self.root)

    def env(self, service: Service, health_port: int, port: int | None = None) -> dict[str, str]:
        """The environment that `service` is started with."""
        environment = service.inherits(os.environ)
        environment |= {
            "PARACLE_NATS_URL": self.nats.url,
            "PARACLE_HEALTH_PORT": str(health_port),
            "PARACLE_FILES_ROOT": str(self._files_root),
            "PYTHONUNBUFFERED": "1",
        }
        for name in ("PARACLE_POSTGRES_DSN", "PARACLE_POSTGRES_ADMIN_DSN", "PARACLE_POSTGRES_PASSWORD"):
            environment.pop(name, None)
        if service.sees_provider_keys:
            environment.setdefault("PARACLE_PROVIDER_HOSTS", _THIS_MACHINE)
        if service.database is not None:
            login = f"{service.database}:{self._service_password()}"
            environment["PARACLE_POSTGRES_DSN"] = (
                f"postgresql://{login}@127.0.0.1:{self.postgres.port}/{service.database}"
            )
        if port is not None:
            environment["PARACLE_API_PORT"] = str(port)
        return environment | dict(self._extra_env.get(service.name, {}))

    def _env_of(self, replica: Replica, health_port: int, port: int | None) -> dict[str, str]:
        return self.env(replica.service, health_port, port) | dict(self._extra_env.get(replica.name, {}))

    def _service_password(self) -> str:
        """What the roles of the services log in with; the administrator's password does not follow from it."""
        return hmac.digest(self.postgres.password.encode(), b"services", "sha256").hex()

    def _choose_port(self) -> int:
        if self._port:
            if not port_is_free(self._port):
                message = f"port {self._port} on 127.0.0.1 is taken; give another with --port, or 0 for a free one"
                raise StackFailed(message)
            return self._port
        known = self._state.members.get(EDGE)
        before = known.port if known is not None else None
        for port in (before, DEFAULT_PORT if self._port is None else None):
            if port is not None and port_is_free(port):
                return port
        return free_port()

    def _await_ready(self, names: list[str], announce: set[str] | None = None) -> None:
        began = time.monotonic()
        waiting = list(names)
        why: dict[str, str] = {}
        while waiting:
            for name in list(waiting):
                if self._has_answered(name, why):
                    waiting.remove(name)
                    if announce and name in announce:
                        self._report(line(name, "ready", began, self.log_path(name)))
            if waiting and time.monotonic() - began > self._ready_timeout_s:
                late, log = waiting[0], self.log_path(waiting[0])
                message = f"{late} is not ready after {self._ready_timeout_s:g} s ({why[late]}){log_end(log)}"
                raise StackFailed(message)
            time.sleep(_POLL_S if waiting else 0)

    def _has_answered(self, name: str, why: dict[str, str]) -> bool:
        member = self._state.members[name]
        if not member.process.alive:
            code = member.process.exit_code
            ended = "ended" if code is None else f"ended with exit code {code}"
            raise StackFailed(f"{name} {ended} before it was ready{log_end(self.log_path(name))}")
        reason = readiness(member.health_port)
        if reason is not None:
            why[name] = reason
        return reason is None

    # Stopping

    def _stop(self, names: list[str]) -> None:
        """Ask all services to drain at once, wait for them, and only then stop what they stand on."""
        services = [(name, ref) for name in names if (ref := self._member_ref(name)) is not None and ref.alive]
        for _, ref in services:
            ref.send(signal.SIGTERM)
        deadline = time.monotonic() + _DRAIN_S
        for name, ref in services:
            if not ref.wait(max(0.0, deadline - time.monotonic())):
                ref.kill_tree()
                self._report(f"  {name:<17} did not drain within {_DRAIN_S:g} s and was killed; nothing is lost by it")
        for name in (NATS, POSTGRES):
            if name in names:
                self._server(name).stop()

    # Small things

    def _wanted(self) -> list[Replica]:
        """Every process of a service that there is to be."""
        numbers = self._state.replicas if self._asked is None else self._asked
        return [Replica(one, number) for one in SERVICES for number in range(1, numbers.get(one.name, 1) + 1)]

    def _names(self) -> list[str]:
        return [one.name for one in self._wanted()]

    def _settle_replicas(self) -> bool:
        """Remember how many are wanted, and stop those that are not; whether there were any."""
        if self._asked is None:
            return False
        surplus = [name for name in self._state.members if name not in self._names()]
        running = [name for name in surplus if self._alive(name)]
        self._stop(running)
        for name in surplus:
            del self._state.members[name]
        self._state.replicas = self._asked
        self._state.save(self.root)
        return bool(running)

    def _replica(self, name: str) -> Replica:
        for one in self._wanted():
            if one.name == name:
                return one
        message = f"there is no process {name!r}; known: {NATS}, {POSTGRES}, {', '.join(self._names())}"
        raise StackFailed(message)

    def _ref(self, name: str) -> ProcessRef | None:
        if name in _SERVERS:
            return self._server(name).process
        return self._member_ref(name if name in self._state.members else self._replica(name).name)

    def _server(self, name: str) -> NatsServer | PostgresServer:
        return self.nats if name == NATS else self.postgres

    def _member_ref(self, name: str) -> ProcessRef | None:
        member = self._state.members.get(name)
        return None if member is None else member.process

    def _alive(self, name: str) -> bool:
        ref = self._ref(name)
        return ref is not None and ref.alive

    def _standing(self, name: str) -> Standing:
        log = str(self.log_path(name))
        ref = self._ref(name)
        if ref is None or not ref.alive:
            return Standing(name, "down", None, None, None, None, log)
        member = self._state.members.get(name)
        state, port = "ready", None
        if member is not None:
            state = "ready" if readiness(member.health_port) is None else "not ready"
            port = member.port or member.health_port
        elif name in _SERVERS:
            port = self._server(name).port
        family = [ref, *ref.descendants()] if name == POSTGRES else [ref]
        rss = sum(one.resident for one in family)
        return Standing(name, state, ref.pid, port, time.time() - ref.created, rss, log)

    def _link_logs(self) -> None:
        """All logs can be found under `logs/`."""
        folder = self.root / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        for name in (NATS, POSTGRES):
            link = folder / f"{name}.log"
            if not link.is_symlink():
                link.symlink_to(Path("..") / name / "server.log")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time changes the stack."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / "lock").open("ab")
        except OSError as error:
            message = f"{self.root} cannot hold the stack's data: {error.strerror}; choose another folder with --root"
            raise StackFailed(message) from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _checked(replicas: Mapping[str, int]) -> dict[str, int]:
    """`replicas`, without those of one, if they can be had."""
    for name, number in replicas.items():
        if name not in {one.name for one in SERVICES} - {EDGE}:
            several = ", ".join(one.name for one in SERVICES if one.name != EDGE)
            raise StackFailed(f"{name!r} cannot have replicas; those that can are {several}")
        if not 1 <= number <= _MOST_REPLICAS:
            raise StackFailed(f"{name} cannot have {number} replicas; give a number from 1 to {_MOST_REPLICAS}")
    return {name: number for name, number in replicas.items() if number > 1}
