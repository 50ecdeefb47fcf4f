"""How histories are told where what happened together does not fit into one message."""

from __future__ import annotations

from typing import Any

import pytest
from nested import nested

from paracle_chassis.bus import PAYLOAD_LIMIT
from paracle_domain.envelope import Context
from paracle_domain.run.commands import GetRun, GetRunEvents, RunEvents, RunStatus, RunView
from paracle_domain.run.nodes import MOST_BYTES, MOST_LEVELS

CALL = Context("acme")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paracle_orchestrator.pages.MOST_BYTES", 2_000)
    monkeypatch.setattr("paracle_orchestrator.pages.ANSWER_BYTES", 2_000)


@pytest.mark.usefixtures("narrow")
async def test_what_happens_together_and_is_large_is_told_in_several_messages(desk: Any, tools: Any) -> None:
    desk.knows("w", tools.plan_of({"id": "a", "map": {"over": [1, 2, 3, 4, 5], "tool": "t", "input": "{{ input.x }}"}}))
    run_id = await desk.start(value={"x": "x" * 600})
    told = [item for item in desk.bus.take() if ".evt." in item.subject]
    assert [event["seq"] for event in tools.events(told)] == list(range(1, 8))
    assert len(told) > 2
    assert [item.envelope.id for item in told][-1] == f"{run_id}.7"
    assert all(len(item.message.encode()) < 3_000 for item in told)


@pytest.mark.usefixtures("narrow")
async def test_events_are_answered_as_far_as_they_fit(desk: Any, tools: Any) -> None:
    desk.knows("w", tools.plan_of({"id": "a", "map": {"over": [1, 2, 3, 4, 5], "tool": "t", "input": "{{ input.x }}"}}))
    run_id = await desk.start(value={"x": "x" * 600})
    seen: list[int] = []
    while len(seen) < 7:
        answer = await desk.service.get_run_events(GetRunEvents(run_id=run_id, after=len(seen)), CALL)
        assert 0 < len(answer.events) < 5
        seen += [event.seq for event in answer.events]
    assert seen == list(range(1, 8))


async def test_a_result_that_nothing_could_pass_on_fails_its_step(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    await desk.finish(task, output="x" * MOST_BYTES)
    view = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.run.status is RunStatus.FAILED
    assert view.error is not None
    assert view.error.code == "payload_too_large"
    assert f"at most {MOST_BYTES:,} fit into a run" in view.error.message


@pytest.mark.parametrize(
    ("levels", "status"), [(MOST_LEVELS, "completed"), (MOST_LEVELS + 1, "failed"), (198, "failed")]
)
async def test_a_result_that_nests_too_deep_for_what_holds_it_fails_its_step(
    desk: Any, tools: Any, levels: int, status: str
) -> None:
    desk.knows("w", tools.plan_of({"id": "a"}))
    run_id = await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    await desk.finish(task, output=nested(levels))
    view = RunView.model_validate_json((await desk.service.get_run(GetRun(run_id=run_id), CALL)).encode())
    events = await desk.service.get_run_events(GetRunEvents(run_id=run_id), CALL)
    told = RunEvents.model_validate_json(events.encode())
    assert (view.run.status, told.events[-1].type) == (status, f"run.{status}")
    if status == "failed":
        assert view.error is not None
        assert view.error.code == "output_invalid"
        assert "more than 150 levels" in view.error.message


def test_there_is_room_for_what_surrounds_a_value() -> None:
    assert MOST_BYTES * 1.2 < PAYLOAD_LIMIT
