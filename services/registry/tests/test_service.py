"""The registry's use cases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from registry_memory import MemorySpecStore
from registry_samples import ALL, BASE, CLASSIFY, TOOL, TRIAGE, together

from paracle_domain.envelope import Context
from paracle_domain.errors import InvalidInput, NotFound, ParacleError, SpecInvalid
from paracle_domain.registry import (
    Ancestor,
    Applied,
    ApplyManifests,
    ExplainAgent,
    GetSpec,
    ListRevisions,
    ListSpecs,
    ResolvePlan,
)
from paracle_registry import service as module
from paracle_registry.ports import SpecStore
from paracle_registry.service import RegistryService

CALL = Context("acme", principal="ann")


async def apply(registry: RegistryService, text: str, *, call: Context = CALL, **more: Any) -> Applied:
    return await registry.apply(ApplyManifests(text=text, source="t.yaml", **more), call)


async def refusals(registry: RegistryService, text: str) -> list[tuple[str, str]]:
    with pytest.raises(ParacleError) as refused:
        await apply(registry, text)
    error = refused.value
    return [(item.path, item.message) for item in error.problems] or [(error.path or "", error.message)]


def summary(applied: Applied) -> list[tuple[str, int, str]]:
    return [(item.name, item.revision, item.change) for item in applied.results]


async def test_apply_creates_and_the_same_again_changes_nothing(store: SpecStore) -> None:
    registry = RegistryService(store, lambda: None)
    names = ["read-mail", "base", "classify", "triage"]
    assert summary(await apply(registry, ALL)) == [(name, 1, "created") for name in names]
    assert summary(await apply(registry, ALL)) == [(name, 1, "unchanged") for name in names]
    assert len(await store.changes("acme", 0)) == 4


async def test_an_edit_names_what_it_touches(registry: RegistryService) -> None:
    await apply(registry, ALL)
    applied = await apply(registry, together(BASE.replace("careful", "kind"), CLASSIFY))
    assert summary(applied) == [("base", 2, "updated"), ("classify", 1, "unchanged")]
    assert [(item.kind, item.name) for item in applied.results[0].touches] == [
        ("Agent", "classify"),
        ("Workflow", "triage"),
    ]
    tool = await apply(registry, TOOL.replace("reads a mail", "reads mails"))
    assert [item.name for item in tool.results[0].touches] == ["base", "classify", "triage"]


async def test_a_dry_run_says_what_would_be_and_changes_nothing(registry: RegistryService) -> None:
    applied = await apply(registry, ALL, dry_run=True)
    assert applied.dry_run
    assert summary(applied)[0] == ("read-mail", 1, "created")
    assert (await registry.list_specs(ListSpecs(), CALL)).specs == ()


async def test_news_are_told_only_of_what_is_new() -> None:
    woken: list[None] = []
    registry = RegistryService(MemorySpecStore(), lambda: woken.append(None))
    await apply(registry, ALL, dry_run=True)
    assert woken == []
    await apply(registry, ALL)
    await apply(registry, ALL)
    assert len(woken) == 1


LABEL = "t.yaml#"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("t.yaml", "there is no manifest in it")),
        ("a: [", ("t.yaml:2:1", "did not find expected node content")),
        (together(TOOL, TOOL), (f"{LABEL}2 metadata.name", "Tool 'read-mail' is in t.yaml#1 already")),
        (together(TOOL, "kind: Agnt\n"), (f"{LABEL}2 kind", "kind 'Agnt' is unknown; did you mean 'Agent'?")),
        (
            together(TOOL, TRIAGE.replace("max_attempts: 3", "max_attempts: '3'")),
            (f"{LABEL}2 spec.steps[0].retry.max_attempts", "Input should be a valid integer (got '3')"),
        ),
        (BASE, (f"{LABEL}1 spec.tools", "there is no tool 'read-mail'")),
        (together(TOOL, CLASSIFY), (f"{LABEL}2 spec.extends", "there is no agent 'base'")),
        (
            ALL.replace("agent: classify", "agent: clasify"),
            (f"{LABEL}4 spec.steps[1].agent", "there is no agent 'clasify'; did you mean 'classify'?"),
        ),
        (
            ALL.replace("tool: read-mail", "tool: other"),
            (f"{LABEL}4 spec.steps[0].tool", "there is no tool 'other'; known: read-mail"),
        ),
        (
            ALL.replace("steps.read.output.text", "steps.raed.output.text"),
            (f"{LABEL}4 spec.steps[1].input.text", "there is no step 'raed'; did you mean 'read'?"),
        ),
        (
            ALL.replace("file: {type: string}}, required", "file: {type: strin}}, required"),
            (f"{LABEL}1 spec.input.properties.file.type", "no valid JSON Schema: "),
        ),
        (
            TOOL.replace("{text: {type: string}}", "{text: {$ref: 'http://127.0.0.1:1/schema'}}"),
            (f"{LABEL}1 spec.output", "no valid JSON Schema: "),
        ),
        (
            together(TOOL, BASE, CLASSIFY.replace("{{ input.text }}", "{{ steps.read }}")),
            (f"{LABEL}3 spec.instructions", "`steps` in 'You are careful. Classify {{ steps.read }}' is unknown"),
        ),
        (
            together(TOOL, BASE.replace("careful", "{{ 1 + }}")),
            (f"{LABEL}2 spec.instructions", "syntax error"),
        ),
        (
            ALL.replace('{file: "{{', '{fil: "{{'),
            (f"{LABEL}4 spec.steps[0].input", "'file' is required by the input schema of tool 'read-mail'"),
        ),
        (
            ALL.replace('{file: "{{', '{fil: "{{'),
            (f"{LABEL}4 spec.steps[0].input.fil", "the input schema of tool 'read-mail' has no field 'fil'"),
        ),
        (
            ALL.replace('"{{ input.file }}"', "5"),
            (f"{LABEL}4 spec.steps[0].input.file", '5 is not of type "string", says the input schema'),
        ),
        (
            ALL.replace("{{ input.file }}", "{{ input.fil }}"),
            (f"{LABEL}4 spec.steps[0].input.file", "`input.fil`: its schema has no field 'fil'"),
        ),
        (
            ALL.replace("steps.read.output.text", "steps.read.output.txt"),
            (f"{LABEL}4 spec.steps[1].input.text", "`steps.read.output.txt`: its schema has no field 'txt'"),
        ),
        (
            ALL.replace("steps.classify.output }}", "steps.classify.output.lable }}"),
            (f"{LABEL}4 spec.output", "`steps.classify.output.lable`: its schema has no field 'lable'; it has 'label'"),
        ),
        (
            ALL.replace("agent: classify", "agent: base, when: steps.read.output.txt")
            .replace("steps.classify.output }}", "steps.classify.output.x }}"),
            (f"{LABEL}4 spec.output", "`steps.classify.output.x`: agent 'base' has no output schema"),
        ),
        (
            ALL.replace("agent: classify", "agent: classify, when: steps.read.output.txt"),
            (f"{LABEL}4 spec.steps[1].when", "`steps.read.output.txt`: its schema has no field 'txt'"),
        ),
        (
            ALL.replace("extends: base", "extends: classify"),
            (f"{LABEL}3 spec.extends", "inheritance goes in a circle: classify → classify"),
        ),
        (
            ALL.replace("extends: base", "extends: base\n  limits: {turns: 6}"),
            (f"{LABEL}3 spec.limits", "limits is final in agent 'base' (revision 1) and cannot be changed"),
        ),
    ],
)  # fmt: skip
async def test_bad_input_is_refused_with_its_path_and_changes_nothing(
    registry: RegistryService, text: str, expected: tuple[str, str]
) -> None:
    found = await refusals(registry, text)
    assert any(path == expected[0] and message.startswith(expected[1]) for path, message in found), found
    assert (await registry.list_specs(ListSpecs(), CALL)).specs == ()


async def test_guarded_expressions_may_name_what_may_be_absent(registry: RegistryService) -> None:
    text = ALL.replace("steps.read.output.text }}", "steps.read.output.txt | default('') }}")
    assert {one.change for one in (await apply(registry, text)).results} == {"created"}


async def test_an_edit_may_not_break_what_is_stored(registry: RegistryService) -> None:
    await apply(registry, ALL)
    final = BASE.replace("final: [limits]", "final: [instructions]")
    message = "instructions is final in agent 'base' (revision 2) and cannot be changed"
    assert await refusals(registry, final) == [("Agent/classify spec.instructions", message)]
    narrowed = TOOL.replace("{text: {type: string}}", "{body: {type: string}}")
    assert (await refusals(registry, narrowed))[0][0] == "Workflow/triage spec.steps[1].input.text"
    assert (await registry.get_spec(GetSpec(kind="Agent", name="base"), CALL)).revision == 1


async def test_findings_are_many_but_bounded(registry: RegistryService) -> None:
    steps = "".join(f"    - {{id: s{n}, tool: nope}}\n" for n in range(module.MAX_FINDINGS + 10))
    text = f"apiVersion: paracle/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  steps:\n{steps}"
    found = await refusals(registry, text)
    assert len(found) == module.MAX_FINDINGS + 1
    assert found[-1][1] == "… and 10 more findings"


async def test_specs_are_got_and_listed(registry: RegistryService) -> None:
    await apply(registry, ALL)
    await apply(registry, BASE.replace("careful", "kind"))
    newest = await registry.get_spec(GetSpec(kind="Agent", name="base"), CALL)
    first = await registry.get_spec(GetSpec(kind="Agent", name="base", revision=1), CALL)
    again = await registry.get_spec(GetSpec(kind="Agent", name="base", revision=2), CALL)
    assert (newest.revision, first.revision, newest.author) == (2, 1, "ann")
    assert again == newest
    assert first.manifest["spec"] != newest.manifest["spec"]
    page = await registry.list_specs(ListSpecs(limit=3), CALL)
    rest = await registry.list_specs(ListSpecs(limit=3, cursor=page.next_cursor), CALL)
    assert [(s.kind, s.name, s.revision) for s in (*page.specs, *rest.specs)] == [
        ("Agent", "base", 2), ("Agent", "classify", 1), ("Tool", "read-mail", 1), ("Workflow", "triage", 1),
    ]  # fmt: skip
    assert rest.next_cursor is None
    assert page.specs[0].description == "all agents are this one"
    only = await registry.list_specs(ListSpecs(kind="Tool"), CALL)
    assert [s.name for s in only.specs] == ["read-mail"]


async def test_history_has_authors_and_diffs(store: SpecStore) -> None:
    registry = RegistryService(store, lambda: None)
    await apply(registry, ALL)
    await apply(registry, BASE.replace("careful", "kind"), call=Context("acme", principal="bob"))
    await apply(registry, BASE.replace("careful", "quick"))
    found = await registry.list_revisions(ListRevisions(kind="Agent", name="base", limit=2), CALL)
    assert [(item.revision, item.author) for item in found.revisions] == [(3, "ann"), (2, "bob")]
    assert "-  instructions: You are kind.\n+  instructions: You are quick.\n" in found.revisions[0].diff
    assert "-  instructions: You are careful.\n" in found.revisions[1].diff
    assert (await registry.list_revisions(ListRevisions(kind="Agent", name="base", before=1), CALL)).revisions == ()
    oldest = await registry.list_revisions(ListRevisions(kind="Agent", name="base", before=2), CALL)
    assert [(item.revision, item.diff) for item in oldest.revisions] == [(1, "")]


async def test_what_is_not_there(registry: RegistryService) -> None:
    await apply(registry, ALL)
    with pytest.raises(NotFound, match="there is no workflow 'triag'; did you mean 'triage'"):
        await registry.resolve_plan(ResolvePlan(workflow="triag"), CALL)
    with pytest.raises(NotFound, match="there is no agent 'nobody'"):
        await registry.resolve_plan(ResolvePlan(agent="nobody"), CALL)
    with pytest.raises(NotFound, match="workflow 'triage' has no revision 7; the newest is 1"):
        await registry.resolve_plan(ResolvePlan(workflow="triage", revision=7), CALL)
    with pytest.raises(NotFound, match="apply it first"):
        await registry.list_revisions(ListRevisions(kind="Tool", name="x"), Context("empty"))
    with pytest.raises(InvalidInput, match="cursor"):
        await registry.list_specs(ListSpecs(cursor="nonsense"), CALL)


async def test_an_agent_is_explained(registry: RegistryService) -> None:
    await apply(registry, ALL)
    found = await registry.explain_agent(ExplainAgent(name="classify"), CALL)
    base, own = Ancestor(name="base", revision=1), Ancestor(name="classify", revision=1)
    assert found.lineage == (own, base)
    assert found.spec.instructions == "You are careful. Classify {{ input.text }}"
    assert found.origins["limits.turns"] == base
    assert found.origins["instructions"] == own


async def test_a_plan_pins_everything_and_is_sent_only_if_it_is_news(registry: RegistryService) -> None:
    await apply(registry, ALL)
    answer = await registry.resolve_plan(ResolvePlan(workflow="triage"), CALL)
    assert answer.plan is not None
    assert list(answer.plan.agents) == ["classify"]
    assert answer.plan.agents["classify"].spec.tools == ("read-mail",)
    assert list(answer.plan.tools) == ["read-mail"]
    known = ResolvePlan(workflow="triage", known_digest=answer.digest)
    assert (await registry.resolve_plan(known, CALL)).plan is None
    await apply(registry, BASE.replace("careful", "kind"))
    newer = await registry.resolve_plan(known, CALL)
    assert newer.plan is not None
    assert newer.digest != answer.digest
    assert newer.plan.agents["classify"].spec.instructions.startswith("You are kind.")


async def test_an_agent_alone_has_a_plan(registry: RegistryService) -> None:
    await apply(registry, ALL)
    plan = (await registry.resolve_plan(ResolvePlan(agent="classify"), CALL)).plan
    assert plan is not None
    assert (plan.workflow.name, plan.workflow.revision) == ("invoke-classify", 0)
    (step,) = plan.workflow.spec.steps
    assert (step.id, step.agent, step.input) == ("invoke", "classify", "{{ input }}")
    assert plan.workflow.spec.output == "{{ steps.invoke.output }}"
    assert plan.workflow.spec.input == plan.agents["classify"].spec.input


def runs(name: str, *children: str) -> str:
    steps = "".join(f"    - {{id: s{n}, workflow: {child}}}\n" for n, child in enumerate(children))
    steps = steps or "    - {id: s, tool: read-mail, input: {file: x}}\n"
    return f"apiVersion: paracle/v1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec:\n  steps:\n{steps}"


async def test_a_plan_holds_those_of_children(registry: RegistryService) -> None:
    await apply(registry, together(TOOL, runs("grandchild"), runs("child", "grandchild"), runs("parent", "child")))
    before = (await registry.resolve_plan(ResolvePlan(workflow="parent"), CALL)).plan
    assert before is not None
    assert list(before.tools) == []
    assert list(before.children["child"].children["grandchild"].tools) == ["read-mail"]
    applied = await apply(registry, runs("grandchild").replace("file: x", "file: y"))
    assert [touched.name for touched in applied.results[0].touches] == ["child", "parent"]
    after = (await registry.resolve_plan(ResolvePlan(workflow="parent"), CALL)).plan
    assert after is not None
    assert after.digest != before.digest


async def test_workflows_run_no_circles_and_not_too_deep(registry: RegistryService) -> None:
    itself = await refusals(registry, together(TOOL, runs("a", "a")))
    assert itself == [("t.yaml#2 spec.steps[0].workflow", "workflows run one another in a circle: a → a")]
    circle = await refusals(registry, together(TOOL, runs("a", "c", "b"), runs("b", "a"), runs("c")))
    assert circle == [
        ("t.yaml#2 spec.steps[1].workflow", "workflows run one another in a circle: a → b → a"),
        ("t.yaml#3 spec.steps[0].workflow", "workflows run one another in a circle: b → a → b"),
    ]
    line = [runs("w0"), *(runs(f"w{n}", f"w{n - 1}") for n in range(1, 11))]
    await apply(registry, together(TOOL, *line))
    ((path, message),) = await refusals(registry, runs("w11", "w10"))
    assert path == "t.yaml#1 spec.steps[0].workflow"
    assert message == "below workflow 'w10' children run children more than 10 levels deep"
    missing = await refusals(registry, runs("x", "w12"))
    assert missing[0][1].startswith("there is no workflow 'w12'; did you mean")


async def test_what_maps_switches_and_approvals_give_is_known(registry: RegistryService) -> None:
    steps = """
    - {id: each, map: {over: "{{ input.list }}", tool: read-mail, input: {file: "{{ item.path }}"}}}
    - {id: again, loop: {tool: read-mail, max: 3, until: "{{ output.text }}", input: {file: "{{ iteration ~ '' }}"}}}
    - {id: way, switch: {cases: [{name: long, when: "{{ steps.each.output | length > 3 }}", then: [ok]}]}}
    - {id: ok, approval: {ask: "Go on with {{ steps.again.output.text }}?"}}
    - {id: tell, emit: {event: told, data: DATA}}
"""
    text = f"apiVersion: paracle/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  steps:{steps}"
    good = '["{{ steps.each.output[0].text }}", "{{ steps.way.output.case }}", "{{ steps.ok.output.approved }}"]'
    await apply(registry, together(TOOL, text.replace("DATA", good)))
    for wrong in ("each.output.text", "each.output[0].txt", "again.output.txt", "way.output.cas", "ok.output.yes"):
        found = await refusals(registry, text.replace("DATA", f'"{{{{ steps.{wrong} }}}}"'))
        assert [path for path, _ in found] == ["t.yaml#1 spec.steps[4].emit.data"], wrong


async def test_an_old_workflow_runs_if_it_still_fits(registry: RegistryService) -> None:
    await apply(registry, ALL)
    await apply(registry, TRIAGE.replace("max_attempts: 3", "max_attempts: 4"))
    old = (await registry.resolve_plan(ResolvePlan(workflow="triage", revision=1), CALL)).plan
    new = (await registry.resolve_plan(ResolvePlan(workflow="triage", revision=2), CALL)).plan
    assert old is not None
    assert new is not None
    assert (old.workflow.revision, new.workflow.revision) == (1, 2)
    other = TOOL.replace("{text:", "{body:")
    await apply(registry, together(other, TRIAGE.replace("output.text", "output.body")))
    with pytest.raises(SpecInvalid, match="revision 1 no longer fits"):
        await registry.resolve_plan(ResolvePlan(workflow="triage", revision=1), CALL)


async def test_applies_at_once_are_both_there(store: SpecStore) -> None:
    one, two = RegistryService(store, lambda: None), RegistryService(store, lambda: None)
    await apply(one, ALL)
    texts = [BASE.replace("careful", word) for word in ("kind", "quick", "calm", "warm")]
    await asyncio.gather(*(apply(registry, text) for registry, text in zip((one, two) * 2, texts, strict=True)))
    found = await one.list_revisions(ListRevisions(kind="Agent", name="base"), CALL)
    assert [item.revision for item in found.revisions] == [5, 4, 3, 2, 1]
    newest = await two.get_spec(GetSpec(kind="Agent", name="base"), CALL)
    assert newest == await one.get_spec(GetSpec(kind="Agent", name="base"), CALL)


async def test_a_replica_answers_by_the_last_apply_of_another(store: SpecStore) -> None:
    one, two = RegistryService(store, lambda: None), RegistryService(store, lambda: None)
    await apply(one, ALL)
    before = await two.resolve_plan(ResolvePlan(workflow="triage"), CALL)
    await apply(one, BASE.replace("careful", "kind"))
    assert (await two.resolve_plan(ResolvePlan(workflow="triage"), CALL)).digest != before.digest


async def test_tenants_are_apart(store: SpecStore) -> None:
    registry = RegistryService(store, lambda: None)
    await apply(registry, ALL)
    assert (await registry.list_specs(ListSpecs(), Context("other"))).specs == ()
    with pytest.raises(NotFound):
        await registry.get_spec(GetSpec(kind="Agent", name="base"), Context("other"))


async def test_memory_holds_a_bounded_number_of_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED_TENANTS", 2)
    registry = RegistryService(MemorySpecStore(), lambda: None)
    for tenant in ("a", "b", "c"):
        await apply(registry, TOOL, call=Context(tenant))
    assert (await registry.get_spec(GetSpec(kind="Tool", name="read-mail"), Context("a"))).revision == 1
    assert len(registry._catalogs) == 2


def agent_text(name: str, *delegates: str) -> str:
    listed = "".join(f"\n    - {{agent: {delegate}}}" for delegate in delegates)
    body = f"  delegates:{listed}" if delegates else "  description: helps"
    return f"apiVersion: paracle/v1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n{body}\n"


async def test_a_plan_holds_all_that_may_be_delegated_to(registry: RegistryService) -> None:
    await apply(
        registry, together(agent_text("boss", "left"), agent_text("left", "right"), agent_text("right", "left"))
    )
    plan = (await registry.resolve_plan(ResolvePlan(agent="boss"), CALL)).plan
    assert plan
    assert sorted(plan.agents) == ["boss", "left", "right"]
    applied = await apply(registry, agent_text("right"))
    assert sorted(item.name for item in applied.results[0].touches) == ["boss", "left"]


async def test_delegates_that_cannot_be(registry: RegistryService) -> None:
    await apply(registry, together(agent_text("left"), TOOL.replace("read-mail", "ask_left")))
    assert await refusals(registry, agent_text("boss", "lefft")) == [
        ("t.yaml#1 spec.delegates", "there is no agent 'lefft'; did you mean 'left'?")
    ]
    clash = agent_text("boss", "left") + "  tools: [ask_left]\n"
    assert await refusals(registry, clash) == [
        ("t.yaml#1 spec.delegates", "the tool 'ask_left' is called like this delegate; rename one")
    ]
    long = "x" * 61
    [(_, message)] = await refusals(registry, together(agent_text("boss", long), agent_text(long)))
    assert message == f"models take no tool called 'ask_{long}': 64 characters are the most"


async def test_error_codes_that_nothing_fails_with(registry: RegistryService) -> None:
    await apply(registry, ALL)
    typo = TRIAGE.replace("on: [tool_unavailable]", "on: [tool_unavailable, tool_faild], never_on: [x]")
    assert [(path, message.partition(";")[0]) for path, message in await refusals(registry, typo)] == [
        ("t.yaml#1 spec.steps[0].retry.on[1]", "there is no error code 'tool_faild'"),
        ("t.yaml#1 spec.steps[0].retry.never_on[0]", "there is no error code 'x'"),
    ]
    await apply(registry, typo.replace("retry:", "pool: mine, retry:"))


async def test_a_tool_that_could_never_work_is_refused(registry: RegistryService) -> None:
    shell = TOOL.replace("noop", "shell")
    [(path, message)] = await refusals(registry, shell)
    assert path == "t.yaml#1 spec.permissions.execute"
    assert message == "the function 'shell' runs commands; {} allows it, with the usual limits"
    await apply(registry, shell + "  permissions: {execute: {}}\n")


GUARDED = """apiVersion: paracle/v1
kind: Tool
metadata: {name: pay}
spec:
  description: pays
  backend: {type: builtin, function: noop}
  cost_usd: "{{ arguments.amount }}"
  approval: {when: "arguments.amount > 5", ask: "Pay {{ arguments.amount }}?", quorum: 2, roles: [finance]}
"""
CAREFUL = """apiVersion: paracle/v1
kind: Agent
metadata: {name: careful}
spec:
  tools: [pay]
  approvals: {pay: {quorum: 2, roles: [finance]}}
"""


PROBED = """apiVersion: paracle/v1
kind: Tool
metadata: {name: wire}
spec:
  description: pays
  backend: {type: builtin, function: noop}
  effect: at_most_once
  probe: {tool: trace, outcome: "{{ 'done' if output.paid else 'not_done' }}", output: {id: "{{ output.id }}"}}
"""
TRACE = """apiVersion: paracle/v1
kind: Tool
metadata: {name: trace}
spec:
  description: looks
  backend: {type: builtin, function: noop}
"""
PAYER = """apiVersion: paracle/v1
kind: Agent
metadata: {name: payer}
spec:
  tools: [wire]
"""


async def test_a_plan_holds_the_probes_of_its_tools(registry: RegistryService) -> None:
    await apply(registry, together(PROBED, TRACE, PAYER))
    plan = (await registry.resolve_plan(ResolvePlan(agent="payer"), CALL)).plan
    assert plan
    assert sorted(plan.tools) == ["trace", "wire"]
    assert plan.agents["payer"].spec.tools == ("wire",)
    applied = await apply(registry, TRACE.replace("looks", "looks well"))
    assert sorted(item.name for item in applied.results[0].touches) == ["payer", "wire"]
    again = (await registry.resolve_plan(ResolvePlan(agent="payer"), CALL)).plan
    assert again
    assert again.digest != plan.digest


async def test_probes_that_cannot_be(registry: RegistryService) -> None:
    await apply(registry, together(TRACE, GUARDED))
    assert await refusals(registry, PROBED.replace("trace", "trac")) == [
        ("t.yaml#1 spec.probe.tool", "there is no tool 'trac'; did you mean 'trace'?")
    ]
    [(path, why)] = await refusals(registry, PROBED.replace("trace", "pay"))
    assert (path, why) == (
        "t.yaml#1 spec.probe.tool",
        "tool 'pay': a probe is called without asking anybody, so it can have no approval",
    )
    wrong = PROBED.replace("output.paid", "outpt.paid").replace("output.id", "out.id")
    assert [path for path, _ in await refusals(registry, wrong)] == [
        "t.yaml#1 spec.probe.outcome",
        "t.yaml#1 spec.probe.output.id",
    ]
    await apply(registry, PROBED)
    [(path, why)] = await refusals(registry, TRACE + "  effect: idempotent\n")
    assert path == "Tool/wire spec.probe.tool"
    assert "its effect must be none, not idempotent" in why


async def test_an_agent_cannot_have_people_asked_before_what_a_probe_does_unasked(registry: RegistryService) -> None:
    guarded = PAYER.replace("[wire]", "[wire, trace]") + "  approvals: {trace: {roles: [finance]}}\n"
    [(path, why)] = await refusals(registry, together(PROBED, TRACE, guarded))
    assert path == "t.yaml#3 spec.approvals.trace"
    assert "it is the probe of the tool 'wire', which is called without asking anybody" in why
    unprobed = "".join(line for line in PROBED.splitlines(keepends=True) if "probe:" not in line)
    await apply(registry, together(unprobed, TRACE, guarded))
    assert [path for path, _ in await refusals(registry, PROBED)] == ["Agent/payer spec.approvals.trace"]


async def test_approvals_of_tools_are_checked(registry: RegistryService) -> None:
    await apply(registry, together(GUARDED, CAREFUL))
    assert [path for path, _ in await refusals(registry, GUARDED.replace("arguments.amount", "argument.amount"))] == [
        "t.yaml#1 spec.approval.when",
        "t.yaml#1 spec.approval.ask",
        "t.yaml#1 spec.cost_usd",
    ]
    assert await refusals(registry, CAREFUL.replace("quorum: 2", "quorum: 1")) == [
        ("t.yaml#1 spec.approvals.pay.quorum", "an agent can only be stricter: the tool wants 2 approvals")
    ]
    assert await refusals(registry, CAREFUL.replace("{pay:", "{pray:")) == [
        ("t.yaml#1 spec.approvals.pray", "the agent has no tool 'pray'; did you mean 'pay'?")
    ]
    [(path, _)] = await refusals(registry, GUARDED.replace("quorum: 2", "quorum: 3"))
    assert path == "Agent/careful spec.approvals.pay.quorum"
