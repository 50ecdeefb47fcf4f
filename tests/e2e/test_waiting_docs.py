"""What the refund example and docs/people.md show: applied as it stands, and followed as a reader would."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.e2e.deciding import asked_for, step_is
from tests.e2e.world import PATIENCE_S, ROOT, System, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_client import Client
from paracle_domain.run.commands import RunStatus, StepStatus

REFUND = ROOT / "examples" / "refund"
PEOPLE = ROOT / "docs" / "people.md"


def shown() -> str:
    """All manifests of the page."""
    blocks = re.findall(r"```yaml\n(.*?)```", PEOPLE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    return "---\n".join(blocks)


async def command(system: System, *arguments: str) -> str:
    told = await asyncio.to_thread(paracle, *arguments, url=system.url)
    assert told.returncode == 0, told.stderr
    return told.stdout


async def test_the_refund_is_approved_paid_and_settled(system: System) -> None:
    await command(system, "apply", "-f", str(REFUND))
    given = ("-i", "order=A-17", "-i", "amount:=49.5", "-i", "reason=arrived broken")
    run_id = (await command(system, "run", "refund", *given)).strip()
    async with system.client() as client:
        one = await asked_for(client, run_id)
        assert one.action == {"pay": {"order": "A-17", "amount": 49.5}, "because": "arrived broken"}
        await command(system, "approvals", "approve", one.approval_id, "--digest", one.digest, "--reason", "photo seen")
        await step_is(client, run_id, "settled", StepStatus.WAITING)
        await command(system, "runs", "signal", run_id, "settled", "--payload", "reference=B-9931")
        run = await client.wait(run_id)
    assert run.run.status is RunStatus.COMPLETED
    assert run.output == {"paid": 49.5, "approved_by": ["anonymous"], "reference": "B-9931"}
    forked = json.loads(await command(system, "runs", "fork", run_id, "--from", "pay", "-o", "json"))
    assert forked["run_id"] != run_id


async def test_a_small_refund_needs_nobody_and_a_rejected_one_gives_back(system: System) -> None:
    with Client(system.url) as client:
        for path in sorted(REFUND.glob("*.yaml")):
            client.apply(path.read_text(encoding="utf-8"))
    async with system.client() as rest:
        small = (await rest.start_run("refund", {"order": "A-1", "amount": 5, "reason": "late"})).run_id
        await rest.signal(small, "settled", {"reference": "B-1"})
        assert (await rest.wait(small)).output == {"paid": 5, "approved_by": [], "reference": "B-1"}
        large = (await rest.start_run("refund", {"order": "A-2", "amount": 500, "reason": "late"})).run_id
        one = await asked_for(rest, large)
        await rest.decide(one.approval_id, "reject", digest=one.digest, reason="not our order")
        run = await rest.wait(large)
    assert run.error is not None
    assert (run.run.status, run.error.code) == (RunStatus.FAILED, "approval_rejected")
    assert [step.id for step in run.steps if step.compensated] == ["reserve"]


async def test_what_the_page_shows_runs(system: System) -> None:
    await asyncio.to_thread(system.apply, shown())
    async with system.client() as client:
        run_id = (await client.start_run("deliveries", {"orders": ["a", "b"]})).run_id

        async def both_are_there() -> bool:
            return len((await client.runs(parent=run_id)).runs) == 2

        await eventually(both_are_there)
        for child in (await client.runs(parent=run_id)).runs:
            await client.signal(child.run_id, "paid", {"by": "card"})
        run = await client.wait(run_id)
    assert run.run.status is RunStatus.COMPLETED
    each = next(step for step in run.steps if step.id == "each")
    assert each.output == [{"by": "card"}, {"by": "card"}]


async def test_who_is_asked_is_told_as_the_page_shows(system: System, tmp_path: Path) -> None:
    await asyncio.to_thread(system.apply, shown())
    (code,) = re.findall(r"```python\n(.*?)```", PEOPLE.read_text(encoding="utf-8"), re.DOTALL)
    assert "nats://127.0.0.1:4222" in code
    script = tmp_path / "tell.py"
    script.write_text(code.replace("nats://127.0.0.1:4222", system.stack.nats_url), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(sys.executable, "-u", script, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with system.client() as client, asyncio.timeout(PATIENCE_S):
            said = asyncio.create_task(process.stdout.readline())

            async def heard() -> bool:  # what was published before it subscribed, it never hears
                await client.start_run("payout", {"to": "bob", "amount": 12})
                await asyncio.wait((said,), timeout=1)
                return said.done()

            await eventually(heard, within_s=PATIENCE_S)
            told = (await said).decode()
    finally:
        process.kill()
        await process.wait()
    assert re.fullmatch(r"apr_\w{26} Pay 12 EUR to bob\? \['finance'\]\n", told), told
