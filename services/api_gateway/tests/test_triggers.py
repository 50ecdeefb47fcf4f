"""What the routes of triggers, and of deletions, ask of whom."""

import pytest
from api_fakes import AT, RUN

from paracle_domain.errors import NotFound
from paracle_domain.ids import is_id, new_id, ulid_time_ms
from paracle_domain.registry import Applied, AppliedSpec, DeleteManifests, SpecKey
from paracle_domain.run.commands import RunAccepted, RunStatus
from paracle_domain.trigger.commands import (
    FireTrigger,
    GetTrigger,
    ListTriggers,
    PauseTrigger,
    ResumeTrigger,
    TriggerPage,
    TriggerSummary,
    TriggerView,
)

SUMMARY = TriggerSummary(name="nightly", revision=2, workflow="report", on="0 2 * * * (UTC)", next_at=AT)
VIEW = TriggerView(trigger=SUMMARY, spec={"workflow": "report"}, next_fires=(AT,))
GONE = Applied(results=(AppliedSpec(kind="Trigger", name="nightly", revision=3, change="deleted"),))


async def test_triggers_are_listed_and_shown(client, world):
    page = TriggerPage(triggers=(SUMMARY,), next_cursor="nightly")
    world.bus.answers |= {ListTriggers: page, GetTrigger: VIEW}
    assert TriggerPage.model_validate((await client.get("/v1/triggers?limit=1&cursor=a")).json()) == page
    assert TriggerView.model_validate((await client.get("/v1/triggers/nightly")).json()) == VIEW
    assert [question for question, _ in world.bus.asked] == [
        ListTriggers(limit=1, cursor="a"),
        GetTrigger(name="nightly"),
    ]


@pytest.mark.parametrize("path", ["/v1/triggers/No", "/v1/triggers?limit=0", "/v1/triggers?cursor=%00"])
async def test_what_can_be_no_trigger_is_refused(client, path):
    assert (await client.get(path)).status_code == 422


async def test_a_trigger_is_paused_and_resumed(client, world):
    world.bus.answers |= {PauseTrigger: VIEW, ResumeTrigger: VIEW}
    paused = await client.post("/v1/triggers/nightly/pause", json={"reason": "closed"})
    assert TriggerView.model_validate(paused.json()) == VIEW
    await client.post("/v1/triggers/nightly/pause")
    assert (await client.post("/v1/triggers/nightly/resume")).status_code == 200
    assert [command for command, *_ in world.bus.commanded] == [
        PauseTrigger(name="nightly", reason="closed"),
        PauseTrigger(name="nightly"),
        ResumeTrigger(name="nightly"),
    ]
    assert (await client.post("/v1/triggers/nightly/pause", json={"why": "x"})).status_code == 422


async def test_a_trigger_is_fired_once_for_each_key(client, world):
    world.bus.answers[FireTrigger] = RunAccepted(run_id=RUN, status=RunStatus.RUNNING)
    for key in ("one", "one", "two", None):
        headers = {} if key is None else {"Idempotency-Key": key}
        response = await client.post("/v1/triggers/orders/fire", json={"message": {"n": 1}}, headers=headers)
        assert (response.status_code, response.headers["location"]) == (202, f"/v1/runs/{RUN}")
    commands, envelopes, subjects = zip(*world.bus.commanded, strict=True)
    assert set(map(str, subjects)) == {"paracle.v1.default.cmd.orchestrator.fire_trigger"}
    assert commands[0] == FireTrigger(name="orders", message={"n": 1})
    ids = [envelope.id for envelope in envelopes]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(is_id(one, "msg") for one in ids)


async def test_a_key_with_a_time_hands_it_on(client, world):
    world.bus.answers[FireTrigger] = RunAccepted(run_id=RUN, status=RunStatus.RUNNING)
    key = new_id("msg")
    for _ in range(2):
        await client.post("/v1/triggers/orders/fire", headers={"Idempotency-Key": key})
    first, again = (envelope.id for _, envelope, _ in world.bus.commanded)
    assert (first, ulid_time_ms(first)) == (again, ulid_time_ms(key))
    assert first != key


async def test_what_is_not_there_is_a_problem(client, world):
    world.bus.answers[FireTrigger] = NotFound("there is no trigger 'x'", path="name")
    response = await client.post("/v1/triggers/x/fire")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("agents", "Agent"),
        ("tools", "Tool"),
        ("workflows", "Workflow"),
        ("manifests/triggers", "Trigger"),
        ("manifests/providers", "Provider"),
        ("manifests/models", "Model"),
    ],
)
async def test_one_manifest_is_deleted(client, world, path, kind):
    world.bus.answers[DeleteManifests] = GONE
    response = await client.delete(f"/v1/{path}/a?dry_run=true")
    assert Applied.model_validate(response.json()) == GONE
    assert world.bus.asked[0][0] == DeleteManifests(specs=(SpecKey(kind=kind, name="a"),), dry_run=True)


async def test_manifests_are_deleted_together(client, world):
    world.bus.answers[DeleteManifests] = GONE
    response = await client.post(
        "/v1/manifests/delete?source=a.yaml", content="kind: Trigger", headers={"Content-Type": "application/yaml"}
    )
    assert Applied.model_validate(response.json()) == GONE
    assert world.bus.asked[0][0] == DeleteManifests(text="kind: Trigger", source="a.yaml")
