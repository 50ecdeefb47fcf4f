"""All newest manifests of a tenant at one version, read and ready: who uses whom, agents resolved, plans pinned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Self

from paracle_domain.agent.inheritance import Layer, Origin, Resolved, manifest_label, resolve
from paracle_domain.agent.spec import AgentSpec
from paracle_domain.errors import NotFound, ParacleError
from paracle_domain.guard.spec import ModerationGuard
from paracle_domain.manifest import (
    AgentDocument,
    Manifest,
    ModelDocument,
    ProviderDocument,
    ToolDocument,
    TriggerDocument,
    WorkflowDocument,
    load_manifest,
)
from paracle_domain.names import suggest
from paracle_domain.plan import Plan, PlannedAgent, PlannedTool, PlannedWorkflow
from paracle_domain.provider.spec import is_deployment, provider_of
from paracle_domain.registry import Kind
from paracle_domain.workflow.spec import StepSpec, WorkflowSpec, WorkSpec
from paracle_registry.ports import Revision

type Key = tuple[Kind, str]

INVOKED_STEP: Final = "invoke"


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest with its revision."""

    revision: Revision
    manifest: Manifest

    @property
    def key(self) -> Key:
        return self.revision.kind, self.revision.name

    @classmethod
    def of(cls, revision: Revision) -> Self:
        return cls(revision, load_manifest(revision.kind, revision.manifest))


@dataclass(frozen=True)
class Catalog:
    """The tenant's specs at `version`; immutable, so what is computed from it is computed once.

    `deleted` has the last revisions of those that were taken out.
    """

    version: int = 0
    entries: Mapping[Key, Entry] = field(default_factory=dict)
    deleted: Mapping[Key, Revision] = field(default_factory=dict)
    _resolved: dict[str, Resolved] = field(default_factory=dict, repr=False)
    _plans: dict[Key, Plan] = field(default_factory=dict, repr=False)

    def updated(self, entries: Iterable[Entry], version: int) -> Catalog:
        """This catalog with `entries` put in."""
        fresh = {entry.key: entry for entry in entries}
        deleted = {key: last for key, last in self.deleted.items() if key not in fresh}
        return Catalog(version, {**self.entries, **fresh}, deleted)

    def without(self, deleted: Sequence[Revision]) -> Catalog:
        """This catalog with what `deleted` ended taken out."""
        gone = {(last.kind, last.name): last for last in deleted}
        left = {key: entry for key, entry in self.entries.items() if key not in gone}
        return Catalog(self.version, left, {**self.deleted, **gone})

    def with_revisions(self, revisions: Sequence[Revision]) -> Catalog:
        """This catalog after `revisions`; itself if there are none."""
        if not revisions:
            return self
        version = max(revision.version for revision in revisions)
        after = self.updated((Entry.of(revision) for revision in revisions if not revision.deleted), version)
        deleted = [revision for revision in revisions if revision.deleted]
        return after.without(deleted) if deleted else after

    def get(self, kind: Kind, name: str) -> Entry | None:
        return self.entries.get((kind, name))

    def need(self, kind: Kind, name: str) -> Entry:
        """The entry, or `NotFound` with the nearest names."""
        entry = self.get(kind, name)
        if entry is None:
            raise self.missing(kind, name)
        return entry

    def last(self, kind: Kind, name: str) -> Revision | None:
        """The newest revision, which may be that of its deletion."""
        entry = self.get(kind, name)
        return self.deleted.get((kind, name)) if entry is None else entry.revision

    def missing(self, kind: Kind, name: str) -> NotFound:
        gone = self.deleted.get((kind, name))
        if gone is not None:
            return NotFound(
                f"{kind.lower()} {name!r} was deleted by {gone.author} (revision {gone.revision}); "
                "apply it to have it again"
            )
        return NotFound(f"there is no {kind.lower()} {name!r}{suggest(name, self.names(kind)) or '; apply it first'}")

    def names(self, kind: Kind) -> Iterator[str]:
        return (name for found, name in self.entries if found == kind)

    def resolve(self, name: str, locate: Callable[[str], str] = manifest_label) -> Resolved:
        """Agent `name` with its inheritance applied."""
        if name not in self._resolved:
            self._resolved[name] = resolve(name, self._layer, locate)
        return self._resolved[name]

    def agent(self, name: str) -> AgentSpec:
        return self.resolve(name).spec

    def _layer(self, name: str) -> Layer | None:
        entry = self.get("Agent", name)
        if entry is None or not isinstance(entry.manifest, AgentDocument):
            return None
        return Layer(Origin(name, entry.revision.revision), entry.manifest.spec)

    @cached_property
    def users(self) -> Mapping[Key, frozenset[Key]]:
        """Of each spec, those that extend or use it directly."""
        found: defaultdict[Key, set[Key]] = defaultdict(set)
        for key, entry in self.entries.items():
            for used in self._uses(entry):
                found[used].add(key)
        return {used: frozenset(users) for used, users in found.items()}

    def _uses(self, entry: Entry) -> Iterator[Key]:
        match entry.manifest:
            case AgentDocument(spec=spec):
                if spec.extends is not None:
                    yield "Agent", spec.extends
                agent = self._resolved_or_none(entry.revision.name)
                if agent is not None:
                    yield from (("Tool", tool) for tool in agent.tools)
                    yield from (("Agent", delegate.agent) for delegate in agent.delegates)
                    yield from (named for name in asked_by(agent) for named in named_by(name))
            case WorkflowDocument(spec=spec):
                yield from {key_of(work): None for _, work in spec.works()}
            case TriggerDocument(spec=spec):
                yield "Workflow", spec.workflow
            case ToolDocument(spec=spec):
                if spec.probe is not None:
                    yield "Tool", spec.probe.tool
            case ModelDocument(spec=spec):
                yield from (named for route in spec.routes for named in named_by(route.model))
                yield from (named for name in spec.fallbacks for named in named_by(name))
            case ProviderDocument():
                pass

    def _resolved_or_none(self, name: str) -> AgentSpec | None:
        try:
            return self.agent(name)
        except ParacleError:
            return None  # an agent that does not resolve is reported by the validation, not here

    def dependents(self, keys: Iterable[Key]) -> set[Key]:
        """All that changes when `keys` do, `keys` left out: users, users of users, and so on."""
        start = set(keys)
        found: set[Key] = set()
        ahead = list(start)
        while ahead:
            for user in self.users.get(ahead.pop(), ()):
                if user not in found:
                    found.add(user)
                    ahead.append(user)
        return found - start

    def plan_of_workflow(self, name: str) -> Plan:
        """The plan of a run of the newest `name`."""
        key: Key = ("Workflow", name)
        if key not in self._plans:
            self._plans[key] = self.pin(self.need(*key))
        return self._plans[key]

    def plan_of_agent(self, name: str) -> Plan:
        """The plan of an invocation of agent `name`: a workflow of one step, made up for it."""
        key: Key = ("Agent", name)
        if key not in self._plans:
            self.need(*key)
            step = StepSpec(id=INVOKED_STEP, agent=name, input="{{ input }}")
            spec = WorkflowSpec(
                description=f"Invokes agent {name}.",
                input=self.agent(name).input,
                steps=(step,),
                output=f"{{{{ steps.{INVOKED_STEP}.output }}}}",
            )
            self._plans[key] = self._pin(PlannedWorkflow(name=f"invoke-{name}", revision=0, spec=spec))
        return self._plans[key]

    def pin(self, workflow: Entry) -> Plan:
        """The plan of this very revision of a workflow, with everything that it reaches at its newest."""
        assert isinstance(workflow.manifest, WorkflowDocument)
        revision = workflow.revision
        return self._pin(PlannedWorkflow(name=revision.name, revision=revision.revision, spec=workflow.manifest.spec))

    def _pin(self, workflow: PlannedWorkflow) -> Plan:
        works = [work for _, work in workflow.spec.works()]
        agents = self._planned_agents({work.agent for work in works if work.agent})
        tools = {work.tool for work in works if work.tool} | {
            tool for agent in agents.values() for tool in agent.spec.tools
        }
        children = sorted({work.workflow for work in works if work.workflow})
        return Plan.pin(
            workflow,
            agents,
            self._planned_tools(tools),
            {name: self.plan_of_workflow(name) for name in children},
        )

    def _planned_agents(self, names: set[str]) -> dict[str, PlannedAgent]:
        """The agents `names`, and all that they may delegate to, at any depth."""
        found: dict[str, PlannedAgent] = {}
        ahead = set(names)
        while ahead:
            name = ahead.pop()
            found[name] = self._planned_agent(name)
            ahead |= {delegate.agent for delegate in found[name].spec.delegates} - found.keys()
        return {name: found[name] for name in sorted(found)}

    def _planned_agent(self, name: str) -> PlannedAgent:
        revision = self.need("Agent", name).revision
        return PlannedAgent(name=name, revision=revision.revision, spec=self.agent(name))

    def _planned_tools(self, names: set[str]) -> dict[str, PlannedTool]:
        """The tools `names`, and what is asked about their calls in doubt."""
        found = {name: self._planned_tool(name) for name in names}
        probes = {tool.spec.probe.tool for tool in found.values() if tool.spec.probe is not None}
        found |= {name: self._planned_tool(name) for name in probes - found.keys()}
        return {name: found[name] for name in sorted(found)}

    def _planned_tool(self, name: str) -> PlannedTool:
        entry = self.need("Tool", name)
        assert isinstance(entry.manifest, ToolDocument)
        return PlannedTool(name=name, revision=entry.revision.revision, spec=entry.manifest.spec)


def key_of(work: WorkSpec) -> Key:
    """What `work` uses."""
    match work.target_kind:
        case "agent":
            return "Agent", work.target
        case "tool":
            return "Tool", work.target
        case "workflow":
            return "Workflow", work.target


def models_of(agent: AgentSpec) -> Iterator[tuple[str, str]]:
    """The names of models that `agent` uses, each after the field that says so."""
    yield "model.name", agent.model.name
    if agent.compaction.model is not None:
        yield "compaction.model", agent.compaction.model


def asked_by(agent: AgentSpec) -> Iterator[str]:
    """The names of all models that `agent` has asked, its guards included."""
    yield from (name for _, name in models_of(agent))
    yield from (guard.model for guard in agent.guards if isinstance(guard, ModerationGuard))


def named_by(model: str) -> Iterator[Key]:
    """The manifest that the name of a model speaks of; a `default` without one is the operator's."""
    yield ("Provider", provider_of(model)) if is_deployment(model) else ("Model", model)
