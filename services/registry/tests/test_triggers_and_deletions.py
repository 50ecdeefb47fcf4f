"""Triggers as manifests, how the orchestrator follows them, and taking manifests out."""

from __future__ import annotations

from typing import Any

import pytest
from registry_memory import MemorySpecStore
from registry_samples import ALL, BASE, CLASSIFY, TOOL, TRIAGE, together

from paracle_domain.envelope import Context
from paracle_domain.errors import NotFound, ParacleError, SpecInvalid
from paracle_domain.registry import (
    Applied,
    ApplyManifests,
    DeleteManifests,
    GetSpec,
    ListRevisions,
    ListSpecs,
    ListTriggerChanges,
    ResolvePlan,
    SpecKey,
    TriggerChanges,
)
from paracle_registry.ports import SpecStore
from paracle_registry.service import RegistryService

CALL = Context("acme", principal="ann")
NIGHTLY = """\
apiVersion: paracle/v1
kind: Trigger
metadata: {name: nightly}
spec:
  workflow: triage
  input: {file: "{{ trigger.scheduled_at }}"}
  schedule: {cron: "0 2 * * *", timezone: Europe/Berlin}
"""
MAILED = """\
apiVersion: paracle/v1
kind: Trigger
metadata: {name: mailed}
spec:
  workflow: triage
  input: {file: "{{ message.file }}"}
  subject: {topic: "mails.*"}
"""


async def apply(registry: RegistryService, text: str, **more: Any) -> Applied:
    return await registry.apply(ApplyManifests(text=text, source="t.yaml", **more), CALL)


async def refusals(asked: Any) -> list[tuple[str, str]]:
    with pytest.raises(ParacleError) as refused:
        await asked
    error = refused.value
    return [(item.path, item.message) for item in error.problems] or [(error.path or "", error.message)]


async def delete(registry: RegistryService, *keys: tuple[str, str], **more: Any) -> Applied:
    specs = tuple(SpecKey.model_validate({"kind": kind, "name": name}) for kind, name in keys)
    return await registry.delete(DeleteManifests(specs=specs, **more), CALL)


async def changes(registry: RegistryService, after: int = 0, limit: int = 200) -> TriggerChanges:
    return await registry.list_trigger_changes(ListTriggerChanges(after=after, limit=limit), CALL)


@pytest.fixture
async def filled(store: SpecStore) -> RegistryService:
    registry = RegistryService(store, lambda: None)
    await apply(registry, together(ALL, NIGHTLY, MAILED))
    return registry


async def test_a_trigger_is_a_manifest_like_others(filled: RegistryService) -> None:
    view = await filled.get_spec(GetSpec(kind="Trigger", name="nightly"), CALL)
    assert view.manifest["spec"]["workflow"] == "triage"  # type: ignore[index,call-overload]
    found = await filled.list_specs(ListSpecs(kind="Trigger"), CALL)
    assert [spec.name for spec in found.specs] == ["mailed", "nightly"]


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        (
            "workflow: triage",
            "workflow: triag",
            "spec.workflow",
            "there is no workflow 'triag'; did you mean",
        ),
        ("workflow: triage", "workflow: triage\n  revision: 7", "spec.revision", "has no revision 7; the newest is 1"),
        ("0 2 * * *", "0 2 * *", "spec.schedule.cron", "is no cron expression"),
        ("Europe/Berlin", "Europe/Berln", "spec.schedule.timezone", "is no time zone"),
        ("trigger.scheduled_at", "trigger.at", "spec.input.file", "has no 'at' here"),
        ('"{{ trigger.scheduled_at }}"', "7", "spec.input.file", "is not of type"),
        (
            'schedule: {cron: "0 2 * * *", timezone: Europe/Berlin}',
            'subject: {topic: a, filter: "message >"}',
            "spec.subject.filter",
            "syntax error",
        ),
        (
            'schedule: {cron: "0 2 * * *", timezone: Europe/Berlin}',
            'subject: {topic: "a b"}',
            "spec.subject.topic",
            "should be a topic",
        ),
    ],
)
async def test_what_is_wrong_with_a_trigger_is_said_with_its_path(
    registry: RegistryService, old: str, new: str, path: str, message: str
) -> None:
    await apply(registry, ALL)
    found = dict(await refusals(apply(registry, NIGHTLY.replace(old, new))))
    assert message in found[f"t.yaml#1 {path}"]


async def test_an_edit_of_the_workflow_names_its_triggers_and_holds_them_to_its_input(filled: RegistryService) -> None:
    edited = TRIAGE.replace("properties: {file: {type: string}}", "properties: {file: {type: string}, n: {}}")
    applied = await apply(filled, edited)
    assert [(item.kind, item.name) for item in applied.results[0].touches] == [
        ("Trigger", "mailed"),
        ("Trigger", "nightly"),
    ]
    needs_more = edited.replace("input: {type: object,", "input: {type: object, required: [n],")
    assert await refusals(apply(filled, needs_more)) == [
        ("Trigger/mailed spec.input", "'n' is required by the input schema of workflow 'triage'"),
        ("Trigger/nightly spec.input", "'n' is required by the input schema of workflow 'triage'"),
    ]


async def test_a_trigger_of_an_older_revision_is_not_held_to_the_newest(filled: RegistryService) -> None:
    await apply(filled, NIGHTLY.replace("workflow: triage", "workflow: triage\n  revision: 1"))
    await delete(filled, ("Trigger", "mailed"))
    (done,) = (
        await apply(filled, TRIAGE.replace("input: {type: object,", "input: {type: object, required: [n],", 1))
    ).results
    assert (done.kind, done.revision, done.change) == ("Workflow", 2, "updated")


async def test_the_orchestrator_learns_what_changed_since_it_last_asked(filled: RegistryService) -> None:
    first = await changes(filled)
    assert [(item.name, item.revision, item.author) for item in first.changes] == [
        ("mailed", 1, "ann"),
        ("nightly", 1, "ann"),
    ]
    assert (first.version, first.more) == (1, False)
    await apply(filled, TOOL.replace("reads a mail", "reads mails"))
    assert await changes(filled, first.version) == TriggerChanges(version=2)
    await delete(filled, ("Trigger", "mailed"))
    (gone,) = (await changes(filled, 2)).changes
    assert (gone.name, gone.revision, gone.spec, gone.version) == ("mailed", 2, None, 3)


async def test_changes_come_in_pages_that_do_not_tear_a_version_apart(filled: RegistryService) -> None:
    await apply(filled, NIGHTLY.replace("0 2", "0 3").replace("nightly", "later"))
    page = await changes(filled, limit=1)
    assert ([item.name for item in page.changes], page.version, page.more) == (["mailed", "nightly"], 1, True)
    rest = await changes(filled, page.version, limit=1)
    assert ([item.name for item in rest.changes], rest.version, rest.more) == (["later"], 2, False)


async def test_a_version_from_the_future_is_left_alone(registry: RegistryService) -> None:
    assert await changes(registry, 9) == TriggerChanges(version=9)


# ── deletions ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_deleted_is_gone_and_its_history_stays(filled: RegistryService) -> None:
    applied = await delete(filled, ("Trigger", "nightly"))
    assert [(item.name, item.revision, item.change) for item in applied.results] == [("nightly", 2, "deleted")]
    with pytest.raises(NotFound, match=r"'nightly' was deleted by ann \(revision 2\); apply it to have it again"):
        await filled.get_spec(GetSpec(kind="Trigger", name="nightly"), CALL)
    assert [spec.name for spec in (await filled.list_specs(ListSpecs(kind="Trigger"), CALL)).specs] == ["mailed"]
    history = await filled.list_revisions(ListRevisions(kind="Trigger", name="nightly"), CALL)
    assert [(item.revision, item.deleted) for item in history.revisions] == [(2, True), (1, False)]
    old = await filled.get_spec(GetSpec(kind="Trigger", name="nightly", revision=1), CALL)
    assert old.manifest["kind"] == "Trigger"
    with pytest.raises(NotFound, match="has no revision 2"):
        await filled.get_spec(GetSpec(kind="Trigger", name="nightly", revision=2), CALL)


async def test_what_was_deleted_can_be_applied_again(filled: RegistryService, store: SpecStore) -> None:
    await delete(filled, ("Trigger", "nightly"))
    again = await apply(filled, NIGHTLY)
    assert [(item.revision, item.change) for item in again.results] == [(3, "created")]
    other = RegistryService(store, lambda: None)  # reads all of it anew
    assert (await other.get_spec(GetSpec(kind="Trigger", name="nightly"), CALL)).revision == 3
    assert [item.revision for item in (await changes(other)).changes] == [1, 3]


async def test_what_is_in_use_is_not_deleted(filled: RegistryService) -> None:
    found = await refusals(delete(filled, ("Workflow", "triage"), ("Tool", "read-mail")))
    assert ("Trigger/nightly spec.workflow", "there is no workflow 'triage': it is to be deleted") in found
    assert any(path == "Agent/base spec.tools" for path, _ in found)
    await apply(filled, TOOL.replace("read-mail", "read-mails"))
    found = await refusals(delete(filled, ("Tool", "read-mail")))
    assert ("Agent/base spec.tools", "there is no tool 'read-mail': it is to be deleted") in found
    await filled.get_spec(GetSpec(kind="Workflow", name="triage"), CALL)


async def test_what_is_used_only_by_what_goes_too_is_deleted(filled: RegistryService) -> None:
    text = together(TRIAGE, NIGHTLY, MAILED, CLASSIFY, BASE, "kind: Tool\nmetadata: {name: read-mail}\n")
    applied = await filled.delete(DeleteManifests(text=text), CALL)
    assert {item.change for item in applied.results} == {"deleted"}
    assert (await filled.list_specs(ListSpecs(), CALL)).specs == ()
    with pytest.raises(NotFound, match="was deleted"):
        await filled.resolve_plan(ResolvePlan(workflow="triage"), CALL)


async def test_a_dry_run_deletes_nothing() -> None:
    woken: list[None] = []
    registry = RegistryService(MemorySpecStore(), lambda: woken.append(None))
    await apply(registry, together(ALL, NIGHTLY))
    applied = await delete(registry, ("Trigger", "nightly"), dry_run=True)
    assert (applied.dry_run, applied.results[0].change) == (True, "deleted")
    await registry.get_spec(GetSpec(kind="Trigger", name="nightly"), CALL)
    assert len(woken) == 1
    await delete(registry, ("Trigger", "nightly"))
    assert len(woken) == 2


@pytest.mark.parametrize(
    ("request_", "path", "message"),
    [
        (DeleteManifests(source="d.yaml"), "d.yaml", "it names no manifest"),
        (DeleteManifests(text="kind: Agent", source="d.yaml"), "d.yaml#1", "say what to delete"),
        (DeleteManifests(text="kind: Ant\nmetadata: {name: x}", source="d.yaml"), "d.yaml#1", "say what to delete"),
    ],
)
async def test_a_deletion_says_what(registry: RegistryService, request_: Any, path: str, message: str) -> None:
    with pytest.raises(SpecInvalid) as refused:
        await registry.delete(request_, CALL)
    assert refused.value.path == path
    assert message in refused.value.message


async def test_what_is_not_there_cannot_be_deleted(filled: RegistryService) -> None:
    with pytest.raises(NotFound, match="there is no agent 'clasify'; did you mean"):
        await delete(filled, ("Agent", "clasify"))
    with pytest.raises(NotFound, match="there is no agent"):
        await filled.list_revisions(ListRevisions(kind="Agent", name="nope"), CALL)
    with pytest.raises(NotFound, match="there is no agent"):
        await filled.get_spec(GetSpec(kind="Agent", name="nope", revision=1), CALL)
