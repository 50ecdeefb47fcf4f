"""Validation of a set of manifests together with all that they touch: everything that can be known before a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from paracle_domain.agent.inheritance import Resolved
from paracle_domain.agent.spec import AgentSpec
from paracle_domain.errors import BY_CODE, ExpressionFailed, Finding, SpecInvalid
from paracle_domain.expression_syntax import Path
from paracle_domain.expressions import check_names, has_code, read, read_condition, texts
from paracle_domain.manifest import (
    AgentDocument,
    ModelDocument,
    ProviderDocument,
    ToolDocument,
    TriggerDocument,
    WorkflowDocument,
)
from paracle_domain.messages import JsonObject
from paracle_domain.names import suggest
from paracle_domain.provider.validation import validate_provider
from paracle_domain.task.approvals import NAMES, loosened
from paracle_domain.task.probes import NAMES as PROBE_NAMES
from paracle_domain.task.probes import misfits
from paracle_domain.tool.spec import Probe, ToolApproval, ToolSpec
from paracle_domain.tool.validation import validate_tool
from paracle_domain.trigger.spec import TriggerSpec
from paracle_domain.trigger.validation import validate_trigger
from paracle_domain.workflow.graph import expressions_of, validate_workflow
from paracle_domain.workflow.spec import StepSpec, WorkflowSpec, WorkSpec
from paracle_registry.catalog import Catalog, Entry, Key, key_of, models_of
from paracle_registry.children import check_children
from paracle_registry.guards import check_guard
from paracle_registry.models import check_model, misnamed
from paracle_registry.schemas import check_schema, check_value, unknown_part

INSTRUCTION_NAMES = frozenset({"input"})
_LONGEST_TOOL_NAME: Final = 64


def validate(catalog: Catalog, keys: Iterable[Key], labels: Mapping[Key, str]) -> list[Finding]:
    """What is wrong with the specs `keys` of `catalog`; `labels` say how findings call the manifests just given."""
    validator = _Validator(catalog, labels)
    findings = [finding for key in keys for finding in validator.check(catalog.entries[key])]
    return list(dict.fromkeys(findings))


@dataclass(frozen=True, slots=True)
class _Validator:
    catalog: Catalog
    labels: Mapping[Key, str]

    def check(self, entry: Entry) -> Iterator[Finding]:
        label = self._label(entry.key)
        match entry.manifest:
            case AgentDocument():
                yield from self._agent(entry.revision.name)
            case ToolDocument(spec=spec):
                yield from check_schema(spec.input, f"{label} spec.input")
                yield from check_schema(spec.output, f"{label} spec.output")
                yield from _below(label, validate_tool(spec))
                yield from _check_approval(spec.approval, f"{label} spec.approval")
                yield from _check_expression(spec.cost_usd, f"{label} spec.cost_usd", NAMES)
                if spec.probe is not None:
                    yield from self._probe(spec, spec.probe, f"{label} spec.probe")
            case WorkflowDocument(spec=spec):
                yield from self._workflow(spec, label)
                yield from check_children(self.catalog, entry.revision.name, spec, label)
            case TriggerDocument(spec=spec):
                yield from self._trigger(spec, label)
            case ProviderDocument(spec=spec):
                yield from _below(label, validate_provider(entry.revision.name, spec))
            case ModelDocument(spec=spec):
                yield from check_model(self.catalog, entry.revision.name, spec, label)

    def _probe(self, spec: ToolSpec, probe: Probe, path: str) -> Iterator[Finding]:
        """A probe only looks, so it has no calls in doubt and no probe of its own."""
        entry = self.catalog.get("Tool", probe.tool)
        if entry is None or not isinstance(entry.manifest, ToolDocument):
            message = f"there is no tool {probe.tool!r}{suggest(probe.tool, self.catalog.names('Tool'))}"
            yield Finding(path=f"{path}.tool", message=message)
        else:
            found = misfits(spec, entry.manifest.spec)
            yield from (Finding(path=f"{path}.tool", message=f"tool {probe.tool!r}: {why}") for why in found)
        yield from _check_expression(probe.outcome, f"{path}.outcome", PROBE_NAMES, condition=True)
        for place, text in texts(probe.output, f"{path}.output"):
            yield from _check_expression(text, place, PROBE_NAMES)

    def _label(self, key: Key) -> str:
        return self.labels.get(key, f"{key[0]}/{key[1]}")

    def _locate(self, name: str) -> str:
        return self._label(("Agent", name))

    def _agent(self, name: str) -> Iterator[Finding]:
        try:
            resolved = self.catalog.resolve(name, self._locate)
        except SpecInvalid as error:
            yield Finding(path=error.path or "", message=error.message)
            return
        spec = resolved.spec
        yield from check_schema(spec.input, self._where(resolved, "input"))
        if spec.output is not None:
            yield from check_schema(spec.output, self._where(resolved, "output"))
        yield from _check_instructions(spec.instructions, self._where(resolved, "instructions"))
        for tool in spec.tools:
            if self.catalog.get("Tool", tool) is None:
                message = f"there is no tool {tool!r}{suggest(tool, self.catalog.names('Tool'))}"
                yield Finding(path=self._where(resolved, "tools", f"tools[{tool}]"), message=message)
        for guard in spec.guards:
            yield from check_guard(self.catalog, guard, self._where(resolved, f"guards[{guard.name}]"))
        yield from self._delegates(resolved)
        yield from self._approvals(resolved)
        for field, model in models_of(spec):
            if (reason := misnamed(self.catalog, model)) is not None:
                yield Finding(path=self._where(resolved, field), message=reason)

    def _approvals(self, resolved: Resolved) -> Iterator[Finding]:
        probed = dict(self._probes(resolved.spec.tools))
        for tool, policy in resolved.spec.approvals.items():
            where = self._where(resolved, f"approvals.{tool}")
            yield from _check_approval(policy, where)
            if tool in probed:
                message = f"it is the probe of the tool {probed[tool]!r}, which is called without asking anybody"
                yield Finding(path=where, message=f"{message}; have a tool of its own as the probe")
            entry = self.catalog.get("Tool", tool)
            if tool not in resolved.spec.tools:
                message = f"the agent has no tool {tool!r}{suggest(tool, resolved.spec.tools)}"
                yield Finding(path=where, message=message)
            elif entry is not None and isinstance(entry.manifest, ToolDocument) and entry.manifest.spec.approval:
                for field, why in loosened(entry.manifest.spec.approval, policy):
                    yield Finding(path=f"{where}.{field}", message=f"an agent can only be stricter: {why}")

    def _probes(self, tools: Iterable[str]) -> Iterator[tuple[str, str]]:
        """The probes of `tools`, each with the tool that it is for."""
        for tool in tools:
            entry = self.catalog.get("Tool", tool)
            if entry is not None and isinstance(entry.manifest, ToolDocument) and entry.manifest.spec.probe is not None:
                yield entry.manifest.spec.probe.tool, tool

    def _delegates(self, resolved: Resolved) -> Iterator[Finding]:
        tools = resolved.spec.tools
        for delegate in resolved.spec.delegates:
            where = self._where(resolved, "delegates", f"delegates[{delegate.agent}]")
            called = delegate.tool_name
            if self.catalog.get("Agent", delegate.agent) is None:
                message = f"there is no agent {delegate.agent!r}{suggest(delegate.agent, self.catalog.names('Agent'))}"
                yield Finding(path=where, message=message)
            if called in tools:
                yield Finding(path=where, message=f"the tool {called!r} is called like this delegate; rename one")
            if len(called) > _LONGEST_TOOL_NAME:
                message = f"models take no tool called {called!r}: {_LONGEST_TOOL_NAME} characters are the most"
                yield Finding(path=where, message=message)

    def _where(self, resolved: Resolved, field: str, origin: str | None = None) -> str:
        """The place in the manifest that set `field`."""
        setter = resolved.origins.get(origin or field, resolved.lineage[0])
        return f"{self._locate(setter.name)} spec.{field}"

    def _workflow(self, spec: WorkflowSpec, label: str) -> Iterator[Finding]:
        yield from check_schema(spec.input, f"{label} spec.input")
        graph_findings = validate_workflow(spec)
        yield from _below(label, graph_findings)
        for path, work in spec.works():
            yield from self._work(work, f"{label} spec.{path}")
            yield from self._codes(work, f"{label} spec.{path}.retry")
        if not graph_findings:
            yield from self._paths(spec, label)

    def _trigger(self, spec: TriggerSpec, label: str) -> Iterator[Finding]:
        yield from _below(label, validate_trigger(spec))
        entry = self.catalog.get("Workflow", spec.workflow)
        if entry is None or not isinstance(entry.manifest, WorkflowDocument):
            message = f"there is no workflow {spec.workflow!r}{suggest(spec.workflow, self.catalog.names('Workflow'))}"
            yield Finding(path=f"{label} spec.workflow", message=message)
            return
        newest = entry.revision.revision
        if spec.revision is not None and spec.revision > newest:
            message = f"workflow {spec.workflow!r} has no revision {spec.revision}; the newest is {newest}"
            yield Finding(path=f"{label} spec.revision", message=message)
        schema = entry.manifest.spec.input
        if spec.revision in {None, newest} and not any(True for _ in check_schema(schema, "")):
            yield from check_value(spec.input, schema, f"{label} spec.input", f"workflow {spec.workflow!r}")

    def _work(self, work: WorkSpec, path: str) -> Iterator[Finding]:
        kind, name = key_of(work)
        schema = self._input_schema(work)
        if schema is None:
            message = f"there is no {kind.lower()} {name!r}{suggest(name, self.catalog.names(kind))}"
            yield Finding(path=f"{path}.{work.target_kind}", message=message)
        elif not any(True for _ in check_schema(schema, "")):
            yield from check_value(work.input, schema, f"{path}.input", f"{kind.lower()} {name!r}")

    def _codes(self, work: WorkSpec, path: str) -> Iterator[Finding]:
        """Error codes that nothing of ours fails with; a pool may be served by a program with codes of its own."""
        found = self._spec_of(work)
        if not isinstance(found, AgentSpec | ToolSpec) or (work.pool or found.pool) is not None:
            return
        for field, codes in (("on", work.retry.on), ("never_on", work.retry.never_on)):
            for index, code in enumerate(codes):
                if code not in BY_CODE:
                    message = f"there is no error code {code!r}{suggest(code, BY_CODE)}"
                    yield Finding(path=f"{path}.{field}[{index}]", message=message)

    def _input_schema(self, work: WorkSpec) -> JsonObject | None:
        found = self._spec_of(work)
        return None if found is None else found.input

    def _spec_of(self, work: WorkSpec) -> AgentSpec | ToolSpec | WorkflowSpec | None:
        """What is to do `work`; `None` if there is no such thing."""
        entry = self.catalog.get(*key_of(work))
        match entry.manifest if entry is not None else None:
            case None | TriggerDocument() | ProviderDocument() | ModelDocument():
                return None
            case AgentDocument():
                return self._agent_spec(work.target)
            case ToolDocument(spec=tool):
                return tool
            case WorkflowDocument(spec=workflow):
                return workflow

    def _agent_spec(self, name: str) -> AgentSpec:
        try:
            return self.catalog.agent(name)
        except SpecInvalid:
            return AgentSpec()  # why it does not resolve is said of the agent itself

    def _paths(self, spec: WorkflowSpec, label: str) -> Iterator[Finding]:
        """Fields that expressions name and schemas exclude."""
        steps = {step.id: step for step in spec.steps}
        for place, named in _named_paths(spec):
            reason = self._excluded(named, steps, spec)
            if reason is not None:
                yield Finding(path=f"{label} {place}", message=f"`{named}`: {reason}")

    def _excluded(self, path: Path, steps: Mapping[str, StepSpec], spec: WorkflowSpec) -> str | None:
        match path.parts:
            case ("input", *rest):
                return unknown_part(spec.input, rest)
            case ("steps", str(step), "output", *rest) if rest:
                work = steps[step].work
                found = self._spec_of(work) if work is not None else None
                if work is not None and isinstance(found, AgentSpec) and found.output is None:
                    return f"agent {work.target!r} has no output schema, so its output is text"
                schema = self._output_schema(steps[step])
                return None if schema is None else unknown_part(schema, rest)
            case _:
                return None

    def _output_schema(self, step: StepSpec) -> JsonObject | None:
        """What is known of a step's output."""
        if step.switch is not None:
            return {"properties": {"case": {}}}
        if step.approval is not None:
            return {"properties": {"approved": {}, "decisions": {}}}
        work = step.work or step.map or step.loop
        schema: JsonObject | None = None
        match self._spec_of(work) if work is not None else None:
            case AgentSpec(output=dict(found)) | ToolSpec(output=found):
                schema = found
            case _:
                pass
        return {"items": schema or {}, "properties": {}} if step.map is not None else schema


def _below(label: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """`findings` of a spec as those of the manifest that it stands in."""
    return (Finding(path=f"{label} {item.path}", message=item.message) for item in findings)


def _check_approval(policy: ToolApproval | None, path: str) -> Iterator[Finding]:
    if policy is not None:
        yield from _check_expression(policy.when, f"{path}.when", NAMES, condition=True)
        yield from _check_expression(policy.ask, f"{path}.ask", NAMES)


def _check_expression(
    text: str | None, path: str, names: frozenset[str], *, condition: bool = False
) -> Iterator[Finding]:
    if text is None:
        return
    try:
        check_names(read_condition(text) if condition else read(text), names)
    except ExpressionFailed as error:
        yield Finding(path=path, message=error.message)


def _named_paths(spec: WorkflowSpec) -> Iterator[tuple[str, Path]]:
    for index, step in enumerate(spec.steps):
        for part in expressions_of(step):
            at = f"spec.steps[{index}].{part.path}"
            if part.condition:
                yield from ((at, path) for path in read_condition(str(part.value)).required)
            else:
                yield from _paths_in(part.value, at)
    yield from _paths_in(spec.output, "spec.output")


def _paths_in(template: JsonValue, at: str) -> Iterator[tuple[str, Path]]:
    for place, text in texts(template, at):
        yield from ((place, path) for path in read(text).required)


def _check_instructions(text: str, path: str) -> Iterator[Finding]:
    if has_code(text):
        try:
            check_names(read(text), INSTRUCTION_NAMES)
        except ExpressionFailed as error:
            yield Finding(path=path, message=error.message)
