"""An HTTP tool that counts: what the world outside Paracle sees of tool calls."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self, override
from urllib.parse import parse_qs, urlsplit

HEADER = "Idempotency-Key"


class Moment(StrEnum):
    """How far the server is with a call: it is here, it is obeyed, it is answered."""

    ARRIVED = "arrived"
    DONE = "done"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class EffectCall:
    """One request that arrived: its key, what was asked for, and when."""

    key: str | None
    run: str
    step: str
    at: datetime


class EffectServer:
    """Listens on a free port of the loopback interface while it is entered; remembers every call that it obeyed.

    It is too busy for the first `busy` calls (an argument) of a step, which therefore have no effect.
    """

    def __init__(self) -> None:
        self._calls: defaultdict[str, list[EffectCall]] = defaultdict(list)
        self._watchers: dict[Moment, Callable[[str], object]] = {}
        own = {"calls": self._calls, "refused": Counter(), "watchers": self._watchers}
        handler = type("Handler", (_Handler,), own)
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @contextmanager
    def watched(self, moment: Moment, watcher: Callable[[str], object]) -> Iterator[None]:
        """Tell `watcher` whenever a call has come so far, and of which run it is."""
        self._watchers[moment] = watcher
        try:
            yield
        finally:
            del self._watchers[moment]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Calls that arrive within wait until it is left."""
        over = threading.Event()
        with self.watched(Moment.ARRIVED, lambda _run: over.wait()):
            try:
                yield
            finally:
                over.set()

    def calls(self, run: str) -> list[EffectCall]:
        """All that arrived on behalf of `run` (the name that the test gave it)."""
        return list(self._calls.get(run, ()))

    def keys_by_step(self, run: str) -> dict[str, set[str | None]]:
        """The keys under which each step of `run` was asked for: one each, however often the call came."""
        found: dict[str, set[str | None]] = {}
        for call in self.calls(run):
            found.setdefault(call.step, set()).add(call.key)
        return found

    def times_by_step(self, run: str) -> Counter[str]:
        """How often the call of each step of `run` came."""
        return Counter(call.step for call in self.calls(run))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    calls: ClassVar[defaultdict[str, list[EffectCall]]]
    refused: ClassVar[Counter[tuple[str, str]]]
    watchers: ClassVar[dict[Moment, Callable[[str], object]]]

    def do_POST(self) -> None:
        at = datetime.now(UTC)
        body: Any = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        run, step = str(body["run"]), str(body["step"])
        self._reached(Moment.ARRIVED, run)
        if self.refused[run, step] < body.get("busy", 0):
            self.refused[run, step] += 1
            self._answer(429, {"error": "busy"})
            return
        self.calls[run].append(EffectCall(self.headers.get(HEADER), run, step, at))
        self._reached(Moment.DONE, run)
        self._answer(200, {"done": step})
        self._reached(Moment.ANSWERED, run)

    def do_GET(self) -> None:
        """Look for the call that has the key of this one."""
        run = parse_qs(urlsplit(self.path).query)["run"][0]
        found = [call for call in self.calls.get(run, ()) if call.key == self.headers.get(HEADER)]
        self._answer(200, {"seen": bool(found), "step": found[0].step if found else ""})

    def _reached(self, moment: Moment, run: str) -> None:
        watcher = self.watchers.get(moment)
        if watcher is not None:
            watcher(run)

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        answer = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    @override
    def log_message(self, *_args: object) -> None:
        """The test's output stays its own."""
