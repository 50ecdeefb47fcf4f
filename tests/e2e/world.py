"""The system under test: one embedded stack for the session, with everything around it in the test's hands.

Model providers, the HTTP tool and the telemetry backend are servers of the tests, on ports that the stack was told
once. A port without a server is a provider that cannot be reached.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from tests.e2e.effects import EffectServer

from paracle_chassis.testing.otlp import OtlpReceiver
from paracle_client import AsyncClient, Client, Stack
from paracle_client.stack import SERVICES
from paracle_domain.run.commands import RunView
from paracle_embedded import ProcessRef, free_port

ROOT: Final = Path(__file__).parents[2]
PARACLE: Final = Path(sys.executable).parent / "paracle"
TRIAGE: Final = ROOT / "examples" / "triage"
MAILS: Final = "examples/triage/mails"
MCP_HOME: Final = ROOT / ".paracle" / "mcp"
EVERYTHING: Final = MCP_HOME / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
"""An MCP server, installed by the test that needs it."""
CANARY: Final = "sk-canary-a8f1c0de9b7e"
"""The key of every provider: it must never be seen anywhere."""
SUMMARY: Final = pytest.StashKey[list[object]]()
"""What tests have to say when all is over."""
PATIENCE_S: Final = 60.0
STILL_S: Final = 3.0
"""For so long the machine may stand still at any moment, all of it or a part."""
COMMAND_S: Final = 60.0
NEEDS_BUBBLEWRAP: Final = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap (bwrap) is not installed here, so no tool ran a command"
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the provider gateway looks for its providers."""

    compatible: int
    openai: int
    anthropic: int


class System:
    """The stack of the session and what surrounds it."""

    def __init__(self, root: Path, receiver: OtlpReceiver, effects: EffectServer) -> None:
        self.ports = Ports(free_port(), free_port(), free_port())
        self.receiver = receiver
        self.effects = effects
        everywhere = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "250",
            "OTEL_BLRP_SCHEDULE_DELAY": "250",
        }
        self.keys = root / "keys"
        self._extra = {one.name: dict(everywhere) for one in SERVICES}
        self._extra["provider_gateway"] |= self._providers()
        self._extra["api_gateway"] |= {"PARACLE_API_TRUST_IDENTITY": "true"}
        servers = {"everything": {"command": ["node", str(EVERYTHING), "stdio"]}}
        self._extra["agent_runtime"] |= {"PARACLE_MCP_SERVERS": json.dumps(servers)}
        # only workflows that ask for it are dropped, but those at once
        self._extra["orchestrator"] |= {"PARACLE_RUN_KEEP_LEAST_S": "0", "PARACLE_PURGE_EVERY_S": "0.5"}
        self._root = root / ".paracle"
        self.stack = Stack(self._root, port=0, files_root=ROOT, replicas={}, extra_env=self._extra)

    def scale(self, told: Mapping[str, Mapping[str, str]] | None = None, /, **replicas: int) -> None:
        """Have so many processes of these services, and one of each other; `told`: what some find in their environment.

        A process that runs already keeps the environment that it was started with.
        """
        self.stack = Stack(
            self._root, port=0, files_root=ROOT, replicas=replicas, extra_env={**self._extra, **(told or {})}
        )
        self.stack.up()

    def _providers(self) -> dict[str, str]:
        here = "http://127.0.0.1"
        return {
            "PARACLE_OPENAI_BASE_URL": f"{here}:{self.ports.compatible}/v1",
            "PARACLE_OPENAI_API_KEY": CANARY,
            "OPENAI_BASE_URL": f"{here}:{self.ports.openai}/v1",
            "OPENAI_API_KEY": CANARY,
            "ANTHROPIC_BASE_URL": f"{here}:{self.ports.anthropic}",
            "ANTHROPIC_API_KEY": CANARY,
            "PARACLE_DEFAULT_MODEL": "sandbox/rules",
            "PARACLE_MODEL_ATTEMPTS": "3",
            "PARACLE_BREAKER_FAILURES": "1000",  # the fake providers fail as each test likes; a breaker would mix tests
            "PARACLE_PROVIDER_KEYS_DIR": str(self.keys),
            "PARACLE_PROVIDER_KEY_HOSTS": json.dumps({"mine": ["127.0.0.1"]}),
        }

    @property
    def url(self) -> str:
        return self.stack.url

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        async with AsyncClient(self.url) as client:
            yield client

    def apply(self, text: str) -> None:
        """Put manifests in."""
        with Client(self.url) as client:
            client.apply(text)

    async def run(self, workflow: str, value: Any = None) -> RunView:
        """A run of `workflow`, ended."""
        async with self.client() as client, asyncio.timeout(PATIENCE_S):
            accepted = await client.start_run(workflow, value)
            return await client.wait(accepted.run_id)

    async def invoke(self, agent: str, value: Any) -> RunView:
        """A run of one agent, ended."""
        async with self.client() as client, asyncio.timeout(PATIENCE_S):
            accepted = await client.invoke(agent, value)
            return await client.wait(accepted.run_id)

    def pids(self) -> dict[str, int]:
        """Of everything that runs."""
        return {one.name: one.pid for one in self.stack.status() if one.pid is not None}

    def process(self, name: str) -> ProcessRef:
        """The process of a service (or of a replica of it), which runs."""
        pid = self.stack.pid(name)
        assert pid is not None, f"{name} does not run"
        return ProcessRef.of(pid)


def allowed_s(promised_s: float, took_s: float, usual_s: float) -> float:
    """How long something may take that is promised to take `promised_s` at most.

    A machine that is busy with other things is slower by as much as it was with something else just before, which
    usually takes `usual_s` and took `took_s`; and it may stand still.
    """
    return promised_s * max(1.0, took_s / usual_s) + STILL_S


def named(name: str) -> Callable[[psutil.Process], bool]:
    """Picks the processes of a name, for `ProcessRef.descendants`."""
    return lambda one: one.name() == name


def triage_text() -> str:
    """The example's manifests, as they ship."""
    return "\n---\n".join(path.read_text(encoding="utf-8") for path in sorted(TRIAGE.glob("*.yaml")))


def paracle(
    *arguments: str, cwd: Path = ROOT, url: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line, as a process of its own, with a bound on its time; `url` is what it talks to."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("PARACLE_")}
    if url is not None:
        known["PARACLE_URL"] = url
    known |= environment or {}
    return subprocess.run(
        [PARACLE, *arguments],
        cwd=cwd,
        env=known | {"COLUMNS": "120", "PYTHONWARNINGS": "default"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
