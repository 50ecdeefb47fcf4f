"""Child processes that may outlive their parent, and are never confused with a later owner of their pid."""

from __future__ import annotations

import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psutil

LOOPBACK: Final = "127.0.0.1"
_SAME_START_S: Final = 2.0
_KILL_WAIT_S: Final = 10.0
_POLL_S: Final = 0.005
_PORTS_BELOW_EPHEMERAL: Final = 12_000
_DEFAULT_EPHEMERAL_LOW: Final = 32_768
_MOST_HELD: Final = 256
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Children that we started: kept so that they are reaped here, and never complained about when they are left running.
_children: Final[dict[int, subprocess.Popen[bytes]]] = {}

# Descriptors of sockets that keep ports for those whom we gave them to.
_held: Final[deque[int]] = deque()


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process named by its pid and its start time (seconds since the epoch), since pids are used again."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has `pid` now; if none has, one that has ended."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return cls(pid, 0.0)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(int(data["pid"]), float(data["created"]))

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "created": self.created}

    @property
    def process(self) -> psutil.Process | None:
        """The living process, or `None` if it ended (or only waits to be reaped)."""
        child = _children.get(self.pid)
        if child is not None and child.poll() is not None:
            return None
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created) < _SAME_START_S
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    @property
    def alive(self) -> bool:
        return self.process is not None

    def descendants(self, which: Callable[[psutil.Process], bool] = lambda _: True) -> list[ProcessRef]:
        """The living processes below it for which `which` holds; one that ends while it is asked is none of them."""
        if (found := self.process) is None:
            return []
        below: list[ProcessRef] = []
        with suppress(psutil.NoSuchProcess):
            for one in found.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if one.status() != psutil.STATUS_ZOMBIE and which(one):
                        below.append(ProcessRef(one.pid, one.create_time()))
        return below

    @property
    def resident(self) -> int:
        """Bytes of memory that it holds; none once it has ended."""
        if (found := self.process) is not None:
            with suppress(psutil.NoSuchProcess):
                return int(found.memory_info().rss)
        return 0

    @property
    def environment(self) -> Mapping[str, str] | None:
        """What it was started with; `None` once it has ended, or where the system does not tell."""
        if (found := self.process) is not None:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                return found.environ()
        return None

    @property
    def exit_code(self) -> int | None:
        """How it ended, if it was started by this very process and has ended; negative for a signal."""
        child = _children.get(self.pid)
        return None if child is None else child.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if (found := self.process) is not None:
            with suppress(psutil.NoSuchProcess):
                found.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; whether it came in time."""
        child = _children.get(self.pid)
        try:
            if child is not None:
                child.wait(timeout_s)
            elif (found := self.process) is not None:
                found.wait(timeout_s)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            return False
        return True

    def kill_tree(self) -> None:
        """`kill -9` the process and its descendants (workers may be in sessions of their own), and wait for them."""
        below = self.descendants()
        for member in (self, *below):
            member.send(signal.SIGKILL)
        self.wait(_KILL_WAIT_S)
        deadline = time.monotonic() + _KILL_WAIT_S
        while any(member.alive for member in below) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout_s: float = 20) -> bool:
        """Ask it to end, then kill it if it does not; whether it went by itself."""
        self.send(number)
        if self.wait(timeout_s):
            return True
        self.kill_tree()
        return False


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
) -> ProcessRef:
    """Start `argv` in a session of its own, so that neither Ctrl-C nor our end takes it along.

    Its output is appended to `log`. With `user`, which needs root, it runs as that user.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", opener=_private) as output:
        child = subprocess.Popen(  # noqa: S603 - callers pass argument lists, no shell
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            user=user,
            group=None if user is None else _group_of(user),
            extra_groups=None if user is None else (),
        )
    _children[child.pid] = child
    return ProcessRef.of(child.pid)


@contextmanager
def undivided() -> Iterator[None]:
    """Signals that would end this process are heard when the block is over: what it starts, it also writes down.

    Only the main thread is ever interrupted by one; in others there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in _ENDING}
    held = {number: handler for number, handler in before.items() if handler not in {signal.SIG_IGN, None}}
    for number in held:
        signal.signal(number, lambda number, _frame: heard.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


def _private(path: str, flags: int) -> int:
    """Open a file that, if it is new, only its owner may read: logs can quote data."""
    return os.open(path, flags, 0o600)


def _group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A free port below the range that the kernel draws outgoing ports from, and that nobody else is given meanwhile.

    A client that reconnects to a dead server's port inside that range may be given the very same port as its own,
    connect to itself, and keep the server from coming back. And it takes a server seconds to start and to listen, in
    which others ask for ports, too.
    """
    top = _ephemeral_low()
    bottom = max(1_024, top - _PORTS_BELOW_EPHEMERAL)
    for _ in range(1_000):
        port = random.randrange(bottom, top)  # noqa: S311 - spreads ports, hides nothing
        if _hold(port):
            return port
    message = f"no free port between {bottom} and {top} on {LOOPBACK}"
    raise OSError(message)


def _hold(port: int) -> bool:
    """Keep `port`, if nobody has it, until this process ends or has been given many others.

    It is bound and not listened on: to connect is refused, and a server that reuses addresses, as servers do, may
    listen there. That holds for Linux; elsewhere nothing is kept.
    """
    holder = socket.socket()
    try:
        holder.bind((LOOPBACK, port))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not before: of two who ask, one gets it
    except OSError:
        holder.close()
        return False
    if sys.platform == "linux":
        _held.append(holder.detach())
    holder.close()
    if len(_held) > _MOST_HELD:
        os.close(_held.popleft())
    return True


def _ephemeral_low() -> int:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    except OSError:
        return _DEFAULT_EPHEMERAL_LOW
    low = int(text.split()[0])
    return low if low > 4_096 else _DEFAULT_EPHEMERAL_LOW


def clean_env(**more: str) -> dict[str, str]:
    """Our environment without what would steer a server from outside (`PG*`, `NATS_*`)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "NATS_"))}
    return kept | more
