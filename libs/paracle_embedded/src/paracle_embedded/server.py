"""What both servers share: a data directory with a state file, start, readiness, stop, kill."""

from __future__ import annotations

import fcntl
import json
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from paracle_embedded.processes import LOOPBACK, ProcessRef, free_port, port_is_free, undivided

_POLL_S: Final = 0.01
_BIND_ATTEMPTS: Final = 3
_TAIL_BYTES: Final = 64 * 1024


class ServerFailed(RuntimeError):
    """A server could not be started or stopped; the message says why, and shows the end of its log."""

    def __init__(self, message: str, *, log_path: Path | None = None) -> None:
        shown = ""
        if log_path is not None:
            lines = tail(log_path)
            shown = f"\nlog: {log_path}" + (f"\n{lines}" if lines else " (empty)")
        super().__init__(message + shown)
        self.log_path = log_path


class _PortLost(ServerFailed):
    """Somebody else took the port between our look and the server's."""


class Server(ABC):
    """A server that belongs to a data directory.

    The directory holds `server.json` (pid, start time and ports), `server.log` and the server's data. Opening a
    directory whose server runs attaches to it: `start` is then a no-op, and so is the end of a `with` block.

    Parameters
    ----------
    data_dir
        Made if it does not exist; must otherwise be one of ours.
    port
        0 takes the port that this directory had before, or else a free one.
    ready_timeout_s
        How long a start may take until the server answers.
    """

    kind: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, data_dir: Path, port: int = 0, *, ready_timeout_s: float = 30.0) -> None:
        self.data_dir = data_dir.absolute()
        self.log_path = self.data_dir / "server.log"
        self._state_path = self.data_dir / "server.json"
        self._asked_port = port
        self._ready_timeout_s = ready_timeout_s
        self._state = self._load()
        self._started_here = False

    # What a kind of server says of itself

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data and the configuration, so that `_launch` can follow."""

    @abstractmethod
    def _launch(self) -> ProcessRef:
        """Start the process, which listens on `self.port`."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server truly serves a client now."""

    def _extra_ports(self) -> dict[str, int]:
        """Further ports to remember, by their name in `server.json`."""
        return {}

    # What users see

    @property
    def port(self) -> int:
        """The port; known from the first start on."""
        if "port" not in self._state:
            message = f"{self.kind} in {self.data_dir} has no port before its first start"
            raise ServerFailed(message)
        return int(self._state["port"])

    @property
    def pid(self) -> int | None:
        """The pid of the running server, else `None`."""
        ref = self.process
        return None if ref is None else ref.pid

    @property
    def process(self) -> ProcessRef | None:
        """The running server's process, else `None`."""
        ref = self._recorded()
        return ref if ref is not None and ref.alive else None

    @property
    def running(self) -> bool:
        return self.process is not None

    def start(self) -> Self:
        """Start the server and return once it answers; does nothing if it runs already.

        Raises
        ------
        ServerFailed
            If it ends early or does not answer in time, with the end of its log.
        """
        with self._locked():
            self._state = self._load()
            if self.running:
                self._await_ready()
                return self
            for attempt in range(1, _BIND_ATTEMPTS + 1):
                try:
                    self._start_once()
                    break
                except _PortLost:
                    if attempt == _BIND_ATTEMPTS or self._asked_port:
                        raise
        return self

    def _start_once(self) -> None:
        self._state |= {"kind": self.kind, "port": self._choose_port(), **self._extra_ports()}
        self._prepare()
        with undivided():
            ref = self._launch()
            self._state |= {"process": ref.to_json()}
            self._save()
        self._started_here = True
        try:
            self._await_ready()
        except ServerFailed as error:
            ref.kill_tree()
            if not port_is_free(self.port):
                raise _PortLost(str(error)) from error
            raise

    def stop(self, *, timeout_s: float = 30) -> None:
        """Stop the server cleanly, or by force after `timeout_s`; does nothing if it does not run."""
        with self._locked():
            self._state = self._load()
            if (ref := self.process) is not None:
                ref.stop(self.stop_signal, timeout_s=timeout_s)

    def kill(self) -> None:
        """`kill -9` this server's processes, and no others."""
        self._state = self._load()
        if (ref := self.process) is not None:
            ref.kill_tree()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started_here:
            self.stop()

    # How it is done

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process at a time starts or stops this server."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            handle = (self.data_dir / "lock").open("ab")
        except OSError as error:
            message = f"cannot use {self.data_dir} as the data directory of {self.kind}: {error.strerror}"
            raise ServerFailed(message) from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _choose_port(self) -> int:
        known = self._asked_port or int(self._state.get("port", 0))
        if known and port_is_free(known):
            return known
        if self._asked_port:
            message = f"port {known} on {LOOPBACK} is taken; give {self.kind} another one, or 0 for a free one"
            raise ServerFailed(message)
        return free_port()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self._ready_timeout_s
        while not self._answers():
            if not self.running:
                ref = self._recorded()
                code = None if ref is None else ref.exit_code
                message = f"{self.kind} ended while it started (exit code {'unknown' if code is None else code})"
                raise ServerFailed(message, log_path=self.log_path)
            if time.monotonic() > deadline:
                message = f"{self.kind} did not answer on {LOOPBACK}:{self.port} within {self._ready_timeout_s:g} s"
                raise ServerFailed(message, log_path=self.log_path)
            time.sleep(_POLL_S)

    def _recorded(self) -> ProcessRef | None:
        data = self._state.get("process")
        return None if data is None else ProcessRef.from_json(data)

    def _load(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            message = f"{self._state_path} cannot be read ({error}); repair or remove it"
            raise ServerFailed(message) from error
        if state.get("kind") != self.kind:
            message = (
                f"{self.data_dir} belongs to {state.get('kind')!r}, not to {self.kind!r}; choose another directory"
            )
            raise ServerFailed(message)
        return state

    def _save(self) -> None:
        draft = self._state_path.with_suffix(".tmp")
        draft.write_text(json.dumps(self._state), encoding="utf-8")
        draft.replace(self._state_path)


def wheel_path(package: str) -> Path:
    """Where a wheel was installed, without importing it (its own server manager is not wanted, and slow to load)."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        message = f"the package {package!r} is not installed; `make install` (or `uv pip install {package}`) does it"
        raise ServerFailed(message)
    return Path(found.submodule_search_locations[0])


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log; empty if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
