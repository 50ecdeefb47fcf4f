"""A run whose outputs fit into no answer can be read nevertheless."""

from __future__ import annotations

import asyncio
import json

import pytest
from pydantic import JsonValue
from tests.e2e.world import System, paracle

from paracle_domain.errors import PayloadTooLarge
from paracle_domain.run.commands import Outputs, RunStatus

EACH = """
apiVersion: paracle/v1
kind: Tool
metadata: {name: echo-large}
spec:
  description: Gives back its arguments.
  backend: {type: builtin, function: noop}
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: large}
spec:
  steps: [{id: each, map: {over: "{{ input.items }}", tool: echo-large, input: {text: "{{ input.text }}"}}}]
  output: done
"""
TEXT = "x" * 3_000_000


@pytest.mark.timeout(300)  # so much takes long where there is little of a machine
async def test_a_run_of_more_than_an_answer_holds_is_read_in_parts(system: System) -> None:
    await asyncio.to_thread(system.apply, EACH)
    async with system.client() as client:
        items: list[JsonValue] = list(range(12))
        run_id = (await client.start_run("large", {"items": items, "text": TEXT})).run_id
        ended = await client.wait(run_id)
        assert (ended.run.status, ended.output, ended.outputs) == (RunStatus.COMPLETED, "done", Outputs.RUN)
        with pytest.raises(PayloadTooLarge, match=r"\?outputs=run"):
            await client.get_run(run_id)
        whole = (await client.get_step(run_id, "each")).step
        item = (await client.get_step(run_id, "each[11]")).step
    assert isinstance(whole.output, list)
    assert (len(whole.output), len(whole.parts), item.output) == (12, 12, whole.output[11])
    shown = await asyncio.to_thread(paracle, "runs", "show", run_id, "-o", "json", url=system.url)
    assert json.loads(shown.stdout)["outputs"] == "run"
    table = await asyncio.to_thread(paracle, "runs", "show", run_id, url=system.url)
    assert "each[11]" in table.stdout
