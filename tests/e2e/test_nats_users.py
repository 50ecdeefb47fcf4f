"""The services with the NATS users that we ship: they may do all that they have to, and tenants what is theirs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, override

import pytest
from tests.e2e.world import MAILS, ROOT, triage_text

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.nats_users import OTHER, GuardedNats, Guest, guest
from paracle_client import AsyncClient, Stack
from paracle_client.stack import Service
from paracle_client.worker import Worker
from paracle_domain import subjects
from paracle_domain.run.commands import RunStatus

WORKFLOW: Final = """
apiVersion: paracle/v1
kind: Workflow
metadata: {name: sums}
spec:
  steps: [{id: one, tool: add, input: {a: 2, b: 3}}]
  output: "{{ steps.one.output }}"
"""


class GuardedStack(Stack):
    """Each service connects as a user of its own."""

    def __init__(self, root: Path) -> None:
        self._provisioner: dict[str, str] = {}
        super().__init__(root, port=0, files_root=ROOT, extra_env={"provision": self._provisioner})
        self.nats: GuardedNats = GuardedNats(self.root / "nats")
        self.nats.start()
        self._provisioner.update(self._login("provision"))

    @override
    def env(self, service: Service, health_port: int, port: int | None = None) -> dict[str, str]:
        return super().env(service, health_port, port) | self._login(service.name)

    def _login(self, user: str) -> dict[str, str]:
        return {"PARACLE_NATS_URL": self.nats.url_of(user), "PARACLE_NATS_INBOX": f"_INBOX.{user}"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStack]:
    found = GuardedStack(tmp_path_factory.mktemp("guarded") / ".paracle")
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture
async def tenant(stack: GuardedStack) -> AsyncIterator[Guest]:
    async with guest(stack.nats, "default") as found:
        yield found


@asynccontextmanager
async def adding(stack: GuardedStack) -> AsyncIterator[None]:
    """A worker of the tenant `default`, whose tool is known."""
    worker = Worker(stack.nats.url_of("default-worker"), inbox="_INBOX.default-worker")

    @worker.tool(effect="none")
    def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b

    async with AsyncClient(stack.url) as client:
        await client.apply(f"{worker.manifests()}\n---\n{WORKFLOW}")
    async with worker.serving():
        yield


async def start(tenant: Guest, **body: Any) -> dict[str, Any]:
    subject = subjects.cmd("default", "orchestrator", "start_run")
    answer = await tenant.client.request(subject, json.dumps(body).encode(), timeout=30)
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def test_services_have_all_the_rights_that_they_need(stack: GuardedStack, tenant: Guest) -> None:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    await tenant.client.subscribe("paracle.v1.default.evt.>", cb=hear)
    await flushed(tenant.client)
    async with adding(stack), AsyncClient(stack.url) as client, asyncio.timeout(90):
        await client.apply(triage_text())
        triaged = await client.wait((await client.start_run("triage", {"folder": MAILS})).run_id)
        summed = await client.wait((await start(tenant, workflow="sums"))["run_id"])
    assert triaged.run.status is RunStatus.COMPLETED
    assert (summed.run.status, summed.output) == (RunStatus.COMPLETED, 5)
    await eventually(lambda: subjects.evt("default", "run", summed.run.run_id, "run_completed") in heard)
    assert _refused(stack) == []
    assert tenant.refused == []


async def test_a_tenant_cannot_have_a_service_order_something_of_another(stack: GuardedStack, tenant: Guest) -> None:
    """It names another tenant's command as the subject that the answer should go to."""
    heard: list[bytes] = []

    async def hear(message: Any) -> None:
        heard.append(message.data)

    order = subjects.cmd(OTHER, "orchestrator", "start_run")
    asked, told = subjects.rpc("default", "provider_gateway", "list_models"), {"paracle-reply-to": order}
    async with guest(stack.nats, "orchestrator") as service:
        await service.client.subscribe(subjects.cmd(OTHER, "orchestrator", subjects.ANY), cb=hear)
        await flushed(service.client)
        await tenant.client.publish(asked, b"{}", reply=order)
        await tenant.client.publish(subjects.cmd("default", "orchestrator", "start_run"), b"{}", order, headers=told)
        await start(tenant, workflow="nothing")
        await tenant.client.request(asked, b"{}", timeout=30)
        await flushed(service.client)
    assert heard == []
    assert _refused(stack) == []


async def test_tenants_do_not_reach_each_other(stack: GuardedStack, tenant: Guest) -> None:
    asked = subjects.rpc("default", "registry", "list_specs")
    async with guest(stack.nats, OTHER) as other, asyncio.timeout(60):
        answer = await other.client.request(asked.replace("default", OTHER), b'{"kind":"Workflow"}', timeout=30)
        assert b"triage" not in answer.data
        assert not await other.may_say(asked)
    log = stack.nats.log_path.read_text(encoding="utf-8")
    assert f'user:{OTHER}" - Publish Violation' in log, "what is refused is told there"


def _refused(stack: GuardedStack) -> list[str]:
    """What the server refused to services."""
    lines = stack.nats.log_path.read_text(encoding="utf-8").splitlines()
    tenants = ("user:default", f"user:{OTHER}")
    return [line for line in lines if "Violation" in line and not any(one in line for one in tenants)]
