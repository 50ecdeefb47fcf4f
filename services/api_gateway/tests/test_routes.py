"""What each route asks of whom, and what it answers."""

from datetime import UTC, datetime

import pytest
from api_fakes import AT, RUN

from paracle_domain.audit import AuditPage, GetAudit, GetUsage, UsageReport
from paracle_domain.errors import PayloadTooLarge, Unavailable
from paracle_domain.ids import derive_id, is_id
from paracle_domain.inference.usage import Usage
from paracle_domain.registry import (
    Applied,
    AppliedSpec,
    ApplyManifests,
    GetSpec,
    ListRevisions,
    ListSpecs,
    RevisionList,
    SpecList,
    SpecView,
)
from paracle_domain.run.commands import (
    ApprovalPage,
    ApprovalView,
    CancelRun,
    CancelRuns,
    DecideApproval,
    ForkRun,
    GetApproval,
    GetRun,
    GetStep,
    ListApprovals,
    ListRuns,
    Outputs,
    Parent,
    PauseRun,
    ResumeRun,
    ResumeRuns,
    RunAccepted,
    RunFilter,
    RunPage,
    RunsAccepted,
    RunStatus,
    RunSummary,
    RunView,
    ShownStep,
    SignalRun,
    StepStatus,
    StepView,
)
from paracle_domain.run.diff import DiffRuns, Pins, RunsDiff

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_manifests_are_applied_as_they_are(client, world):
    applied = Applied(results=(AppliedSpec(kind="Agent", name="a", revision=1, change="created"),), dry_run=True)
    world.bus.answers[ApplyManifests] = applied
    response = await client.post(
        "/v1/manifests?source=a.yaml&dry_run=true",
        content="kind: Ägent".encode(),
        headers={"Content-Type": "text/yaml"},
    )
    assert response.status_code == 200
    assert Applied.model_validate(response.json()) == applied
    [(question, _)] = world.bus.asked
    assert question == ApplyManifests(text="kind: Ägent", source="a.yaml", dry_run=True)


@pytest.mark.parametrize(
    ("plural", "kind"),
    [
        ("agents", "Agent"),
        ("tools", "Tool"),
        ("workflows", "Workflow"),
        ("manifests/triggers", "Trigger"),
        ("manifests/providers", "Provider"),
        ("manifests/models", "Model"),
    ],
)
async def test_specs_of_each_kind(client, world, plural, kind):
    view = SpecView(
        kind=kind, name="a", revision=3, manifest={"spec": {"x": None}}, digest="d", author="me", created_at=AT
    )
    world.bus.answers |= {
        ListSpecs: SpecList(specs=()),
        GetSpec: view,
        ListRevisions: RevisionList(kind=kind, name="a", revisions=()),
    }
    assert (await client.get(f"/v1/{plural}?limit=7&cursor=c")).json() == {"specs": []}
    assert SpecView.model_validate((await client.get(f"/v1/{plural}/a?revision=3")).json()) == view
    assert (await client.get(f"/v1/{plural}/a/revisions?before=9")).status_code == 200
    assert [question for question, _ in world.bus.asked] == [
        ListSpecs(kind=kind, limit=7, cursor="c"),
        GetSpec(kind=kind, name="a", revision=3),
        ListRevisions(kind=kind, name="a", before=9),
    ]


async def test_a_run_of_a_workflow(client, world):
    body = {"input": {"mails": [1, None, "ü"]}, "labels": {"team": "a"}, "revision": 2, "priority": 7}
    response = await client.post("/v1/workflows/triage/runs", json=body, headers={"traceparent": TRACE})
    assert response.status_code == 202
    run_id = response.json()["run_id"]
    assert response.headers["location"] == f"/v1/runs/{run_id}"
    [(command, envelope, subject)] = world.bus.commanded
    assert (command.workflow, command.agent, command.revision, command.priority) == ("triage", None, 2, 7)
    assert (command.input, command.labels, command.run_id) == (body["input"], body["labels"], run_id)
    assert subject == "paracle.v1.default.cmd.orchestrator.start_run"
    assert envelope.id == run_id
    assert (envelope.context.principal, envelope.context.traceparent) == ("anonymous", TRACE)


@pytest.mark.parametrize("content", [b"", b"{}", b" \n"])
async def test_a_run_without_input(client, world, content):
    assert (await client.post("/v1/agents/greeter/runs", content=content)).status_code == 202
    [(command, _, _)] = world.bus.commanded
    assert (command.agent, command.workflow, command.input) == ("greeter", None, {})


async def test_a_null_input_is_none_at_all(client, world):
    await client.post("/v1/agents/greeter/runs", json={"input": None})
    assert world.bus.commanded[0][0].input == {}


async def test_the_same_key_is_the_same_run(client, world):
    first, second, other = [
        (await client.post("/v1/workflows/w/runs", json={}, headers={"Idempotency-Key": key})).json()["run_id"]
        for key in ("order-1", "order-1", "order-2")
    ]
    assert first == second != other
    assert is_id(first, "run")


async def test_without_a_key_every_request_is_a_run_of_its_own(client, world):
    ids = {(await client.post("/v1/workflows/w/runs", json={})).json()["run_id"] for _ in range(3)}
    assert len(ids) == 3


def a_run():
    summary = RunSummary(run_id=RUN, workflow="w", revision=1, status=RunStatus.RUNNING, created_at=AT, plan="d")
    return RunView(run=summary, principal="me", last_seq=4, usage=Usage(cost_usd=None))


async def test_a_run_of_more_than_an_answer_holds_is_to_be_had_in_parts(client, world):
    world.bus.answers |= {
        GetRun: PayloadTooLarge("70,000,000 bytes"),
        GetStep: ShownStep(
            run_id=RUN,
            step=StepView(id="each[3]", status=StepStatus.COMPLETED, target_kind="tool", target="t", output=1),
        ),
    }
    refused = await client.get(f"/v1/runs/{RUN}?parts=0")
    assert (refused.status_code, refused.json()["path"]) == (413, "query.outputs")
    assert f"/v1/runs/{RUN}?outputs=run" in refused.json()["detail"]
    world.bus.answers[GetRun] = a_run().model_copy(update={"outputs": Outputs.NONE})
    assert (await client.get(f"/v1/runs/{RUN}?outputs=none")).json()["outputs"] == "none"
    assert (await client.get(f"/v1/runs/{RUN}?outputs=some")).json()["path"] == "query.outputs"
    shown = await client.get(f"/v1/runs/{RUN}/steps/each%5B3%5D?parts=2")
    assert ShownStep.model_validate(shown.json()).step.output == 1
    assert [question for question, _ in world.bus.asked] == [
        GetRun(run_id=RUN, parts=0),
        GetRun(run_id=RUN, outputs=Outputs.NONE),
        GetStep(run_id=RUN, step="each[3]", parts=2),
    ]


async def test_runs_are_listed_and_shown(client, world):
    view = a_run()
    world.bus.answers |= {ListRuns: RunPage(runs=(view.run,), next_cursor="n"), GetRun: view}
    asked = "workflow=w&status=running&status=paused&label=team:a:b&label=x:y&created_after=2026-01-02T03:04:05Z"
    listed = await client.get(
        f"/v1/runs?{asked}&created_before=2026-01-03T00:00:00Z&parent={RUN}&stuck=true&limit=3&cursor=c"
    )
    assert RunPage.model_validate(listed.json()).next_cursor == "n"
    shown = (await client.get(f"/v1/runs/{RUN}")).json()
    assert RunView.model_validate(shown) == view
    assert shown["usage"]["cost_usd"] is None
    assert world.bus.asked[0][0] == ListRuns(
        workflow="w",
        statuses=(RunStatus.RUNNING, RunStatus.PAUSED),
        labels={"team": "a:b", "x": "y"},
        created_after=AT,
        created_before=datetime(2026, 1, 3, tzinfo=UTC),
        parent=RUN,
        stuck=True,
        limit=3,
        cursor="c",
    )


@pytest.mark.parametrize(("verb", "kind"), [("cancel", CancelRuns), ("resume", ResumeRuns)])
async def test_many_runs_are_told_at_once(client, world, verb, kind):
    world.bus.answers[kind] = RunsAccepted(count=3)
    wanted = {"workflow": "w", "labels": {"a": "b"}}
    response = await client.post(f"/v1/runs/{verb}", json={"filter": wanted, "reason": "r", "dry_run": True})
    assert (response.status_code, response.json()) == (200, {"count": 3})
    [(command, _, subject)] = world.bus.commanded
    assert command == kind(filter=RunFilter(workflow="w", labels={"a": "b"}), reason="r", dry_run=True)
    assert subject == f"paracle.v1.default.cmd.orchestrator.{verb}_runs"


async def test_a_run_says_where_what_belongs_to_it_is(client, world):
    view = a_run()
    parent = Parent(run_id=RUN, step="s", attempt=1, root_run_id=RUN, depth=1)
    forked = view.run.model_copy(update={"forked_from": RUN})
    world.bus.answers[GetRun] = view.model_copy(update={"parent": parent, "run": forked})
    links = (await client.get(f"/v1/runs/{RUN}?parts=3")).headers["link"].split(", ")
    assert world.bus.asked[0][0] == GetRun(run_id=RUN, parts=3)
    assert f'</v1/runs?parent={RUN}>; rel="children"' in links
    assert links[-2:] == [f'</v1/runs/{RUN}>; rel="up"', f'</v1/runs/{RUN}>; rel="forked-from"']
    assert len(links) == 8


async def test_runs_are_compared(client, world):
    pins = Pins(run_id=RUN, workflow="w", revision=1, plan="d", contract="1.0")
    world.bus.answers[DiffRuns] = RunsDiff(left=pins, right=pins, same=True)
    assert (await client.get(f"/v1/runs/{RUN}/diff?with={RUN}")).json()["same"] is True
    assert world.bus.asked[0][0] == DiffRuns(left=RUN, right=RUN)
    assert (await client.get(f"/v1/runs/{RUN}/diff")).status_code == 422


async def test_a_label_may_have_colons_in_its_key(client, world):
    world.bus.answers[ListRuns] = RunPage(runs=())
    response = await client.get("/v1/runs", params={"label": ["k8s\\:app:a:b", "c\\\\d:\\"]})
    assert response.status_code == 200
    assert world.bus.asked[0][0].labels == {"k8s:app": "a:b", "c\\d": "\\"}
    assert (await client.get("/v1/runs", params={"label": "k8s\\:app"})).json()["path"] == "query.label"


@pytest.mark.parametrize("verb", ["cancel", "resume"])
async def test_a_filter_that_is_misspelt_tells_nobody(client, world, verb):
    """Left out, it would let the order go to all runs of the workflow."""
    wanted = {"workflow": "w", "label": {"team": "a"}}
    response = await client.post(f"/v1/runs/{verb}", json={"filter": wanted})
    assert (response.status_code, response.json()["path"]) == (422, "filter.label")
    assert world.bus.commanded == []


async def test_many_runs_must_be_named(client, world):
    response = await client.post("/v1/runs/cancel", json={})
    assert (response.status_code, response.json()["path"]) == (422, "filter")
    assert world.bus.commanded == []


async def test_a_run_is_cancelled(client, world):
    world.bus.answers[CancelRun] = RunAccepted(run_id=RUN, status=RunStatus.CANCELLING, created=False)
    response = await client.post(f"/v1/runs/{RUN}/cancel", json={"reason": "wrong mails"})
    assert (response.status_code, response.json()["status"]) == (202, "cancelling")
    assert world.bus.commanded[0][0] == CancelRun(run_id=RUN, reason="wrong mails")


@pytest.mark.parametrize(("verb", "kind"), [("pause", PauseRun), ("resume", ResumeRun)])
async def test_a_run_is_paused_and_resumed(client, world, verb, kind):
    world.bus.answers[kind] = RunAccepted(run_id=RUN, status=RunStatus.PAUSED, created=False)
    assert (await client.post(f"/v1/runs/{RUN}/{verb}", json={"reason": "audit"})).status_code == 202
    assert (await client.post(f"/v1/runs/{RUN}/{verb}")).json()["status"] == "paused"
    assert [told for told, _, _ in world.bus.commanded] == [kind(run_id=RUN, reason="audit"), kind(run_id=RUN)]


async def test_a_run_is_signalled_once_a_key(client, world):
    world.bus.answers[SignalRun] = RunAccepted(run_id=RUN, status=RunStatus.RUNNING, created=False)
    path, key = f"/v1/runs/{RUN}/signals/paid", {"Idempotency-Key": "p-1"}
    for headers in (key, key, {}, {}):
        assert (await client.post(path, json={"payload": [12]}, headers=headers)).status_code == 202
    assert {told.encode() for told, _, _ in world.bus.commanded} == {
        SignalRun(run_id=RUN, signal="paid", payload=[12]).encode()
    }
    first, second, third, fourth = (envelope.id for _, envelope, _ in world.bus.commanded)
    assert first == second
    assert len({first, third, fourth}) == 3
    assert (await client.post(f"/v1/runs/{RUN}/signals/No%20way")).json()["path"] == "path.name"


async def test_a_run_is_forked(client, world):
    world.bus.answers[ForkRun] = lambda told: RunAccepted(run_id=told.new_run_id, status=RunStatus.RUNNING)
    body = {"from_step": "pay", "revision": 2, "input": {"a": 1}, "labels": {"x": "y"}}
    first, again = [
        await client.post(f"/v1/runs/{RUN}/fork", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert first.json()["run_id"] == again.json()["run_id"] != RUN
    assert first.headers["location"] == f"/v1/runs/{first.json()['run_id']}"
    told = world.bus.commanded[0][0]
    assert told == ForkRun(run_id=RUN, new_run_id=first.json()["run_id"], **body)
    assert (await client.post(f"/v1/runs/{RUN}/fork", json={})).json()["path"] == "from_step"


def an_approval():
    return ApprovalView(
        approval_id=derive_id("apr", RUN, "ok"), run_id=RUN, workflow="w", step="ok", status="open", ask="Refund?",
        action={"amount": 12}, digest="sha256:1", requested_by="ann", asked_at=AT,
    )  # fmt: skip


async def test_approvals_are_listed_and_shown(client, world):
    view = an_approval()
    world.bus.answers |= {ListApprovals: ApprovalPage(approvals=(view,)), GetApproval: view}
    query = f"status=open&run_id={RUN}&workflow=w&approver=finance&mine=true&limit=3&cursor=c"
    listed = await client.get(f"/v1/approvals?{query}")
    assert ApprovalPage.model_validate(listed.json()).approvals == (view,)
    assert ApprovalView.model_validate((await client.get(f"/v1/approvals/{view.approval_id}")).json()) == view
    assert [question for question, _ in world.bus.asked] == [
        ListApprovals(status="open", run_id=RUN, workflow="w", approver="finance", mine=True, limit=3, cursor="c"),
        GetApproval(approval_id=view.approval_id),
    ]


async def test_a_decision_is_looked_at_anew_whenever_it_is_sent(client, world):
    view = an_approval()
    world.bus.answers[DecideApproval] = RunAccepted(run_id=RUN, status=RunStatus.RUNNING, created=False)
    path = f"/v1/approvals/{view.approval_id}/decision"
    yes = {"decision": "approve", "digest": "sha256:1", "reason": "fine"}
    for _ in range(2):
        assert (await client.post(path, json=yes)).status_code == 202
    assert [command for command, _, _ in world.bus.commanded] == [
        DecideApproval(approval_id=view.approval_id, **yes)
    ] * 2
    first, second = (envelope.id for _, envelope, _ in world.bus.commanded)
    assert first != second, "the first may have been refused to somebody who has the role now"


@pytest.mark.parametrize(
    ("body", "path"),
    [({"decision": "approve"}, "digest"), ({"decision": "perhaps", "digest": "d"}, "decision"), ({}, "decision")],
)
async def test_a_decision_names_what_it_is_of(client, world, body, path):
    response = await client.post(f"/v1/approvals/{an_approval().approval_id}/decision", json=body)
    assert (response.status_code, response.json()["path"]) == (422, path)
    assert world.bus.commanded == []


async def test_usage_and_audit(client, world):
    report = UsageReport(run_id=RUN, total=Usage(model_calls=1, cost_usd=None), unpriced_calls=1)
    world.bus.answers |= {GetUsage: report, GetAudit: AuditPage(events=(), next_cursor=None)}
    assert UsageReport.model_validate((await client.get(f"/v1/runs/{RUN}/usage")).json()) == report
    assert (await client.get(f"/v1/runs/{RUN}/audit?after=3&limit=5")).json() == {"events": [], "incomplete": False}
    assert world.bus.asked[-1][0] == GetAudit(run_id=RUN, after=3, limit=5)


@pytest.mark.parametrize("what", ["usage", "audit", "events"])
async def test_what_belongs_to_an_unknown_run_is_not_found(client, world, what):
    assert (await client.get(f"/v1/runs/{RUN[:-1]}0/{what}")).status_code == 404


async def test_health(client, world):
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/readyz")).json()["status"] == "ready"
    world.outage = Unavailable("NATS does not answer")
    response = await client.get("/readyz")
    assert (response.status_code, response.json()["checks"]["nats"]) == (503, "NATS does not answer")
    world.outage = None
    world.app.state.closing.set()
    assert (await client.get("/readyz")).json()["status"] == "draining"


@pytest.mark.parametrize("given", ["nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01", TRACE + "x"])
async def test_a_malformed_trace_is_left_out(client, world, given):
    await client.post("/v1/workflows/w/runs", json={}, headers={"traceparent": given})
    assert world.bus.commanded[0][1].context.traceparent is None


async def test_a_request_id_is_kept_or_made(client):
    assert (await client.get("/livez", headers={"X-Request-Id": "r-1"})).headers["x-request-id"] == "r-1"
    assert len((await client.get("/livez", headers={"X-Request-Id": "no good"})).headers["x-request-id"]) == 32
