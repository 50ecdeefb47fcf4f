"""What can be asked of the registry: put manifests in, look at them, and pin the plan of a run."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from paracle_domain import subjects
from paracle_domain.agent.spec import AgentSpec
from paracle_domain.messages import HIGHEST, JsonObject, Message, Request, Value
from paracle_domain.plan import Plan

type Kind = Literal["Agent", "Tool", "Workflow", "Trigger", "Provider", "Model"]
type Change = Literal["created", "updated", "unchanged", "deleted"]

MAX_TEXT_BYTES = 4 * 1024 * 1024


class Touched(Value):
    """Something that an edit changes although it was not edited itself: it extends or uses what was."""

    kind: Kind
    name: str


class AppliedSpec(Value):
    """What became of one manifest. `touches` are the descendants and workflows whose next run sees it."""

    kind: Kind
    name: str
    revision: int
    change: Change
    touches: tuple[Touched, ...] = ()


class Applied(Message, type_name="registry.applied"):
    """What an apply did (or, if `dry_run`, would have done), in the order of the documents."""

    results: tuple[AppliedSpec, ...]
    dry_run: bool = False


class ApplyManifests(Request[Applied], service="registry", method="apply_manifests", answer=Applied):
    """Put all manifests of `text` (YAML or JSON, many documents) in, or none of them.

    `source` is what errors call the text: a file's name.
    """

    text: str
    source: str = Field(default="manifest", max_length=500)
    dry_run: bool = False


class SpecKey(Value):
    """A manifest by its kind and name."""

    kind: Kind
    name: str = Field(max_length=63)


class DeleteManifests(Request[Applied], service="registry", method="delete_manifests", answer=Applied):
    """Take manifests out, all of them or none: those named in `specs`, or (by kind and name) those in `text`.

    What others still use is refused, unless those go with it. Revisions are kept, the deletion is the newest of them,
    and runs that began keep what they pinned.
    """

    specs: tuple[SpecKey, ...] = Field(default=(), max_length=1_000)
    text: str | None = None
    source: str = Field(default="manifest", max_length=500)
    dry_run: bool = False


class SpecView(Message, type_name="registry.spec"):
    """One revision of a manifest, as it was written. `digest` is that of the manifest."""

    kind: Kind
    name: str
    revision: int
    manifest: JsonObject
    digest: str
    author: str
    created_at: datetime


class GetSpec(Request[SpecView], service="registry", method="get_spec", answer=SpecView, query=True):
    """A manifest: its newest revision, or the one given."""

    kind: Kind
    name: str
    revision: int | None = Field(default=None, ge=1, le=HIGHEST)


class SpecSummary(Value):
    """A manifest in a list."""

    kind: Kind
    name: str
    revision: int
    description: str = ""
    author: str
    created_at: datetime


class SpecList(Message, type_name="registry.spec_list"):
    """Newest revisions, by kind and name; `next_cursor` asks for the page after it."""

    specs: tuple[SpecSummary, ...]
    next_cursor: str | None = None


class ListSpecs(Request[SpecList], service="registry", method="list_specs", answer=SpecList, query=True):
    """What there is, of one kind or of all."""

    kind: Kind | None = None
    limit: int = Field(default=500, ge=1, le=1_000)
    cursor: str | None = None


class RevisionView(Value):
    """One revision in a manifest's history; `diff` is a unified diff (as YAML) against the one before it."""

    revision: int
    digest: str
    author: str
    created_at: datetime
    diff: str = ""
    deleted: bool = False


class RevisionList(Message, type_name="registry.revision_list"):
    """A manifest's revisions, newest first."""

    kind: Kind
    name: str
    revisions: tuple[RevisionView, ...]


class ListRevisions(
    Request[RevisionList], service="registry", method="list_revisions", answer=RevisionList, query=True
):
    """How a manifest came to be what it is."""

    kind: Kind
    name: str
    limit: int = Field(default=50, ge=1, le=500)
    before: int | None = Field(default=None, ge=1, le=HIGHEST, description="only revisions older than this one")


class Ancestor(Value):
    """An agent in a line of inheritance, at a revision."""

    name: str
    revision: int


class Explanation(Message, type_name="registry.explanation"):
    """A resolved agent, and which ancestor set each field of it.

    `origins` maps paths of fields (`model.name`, `tools[search]`, `limits.turns`) to who set them; a field without an
    origin has the default. `lineage` begins with the agent and ends with its root.
    """

    name: str
    revision: int
    spec: AgentSpec
    origins: dict[str, Ancestor]
    lineage: tuple[Ancestor, ...]


class ExplainAgent(Request[Explanation], service="registry", method="explain_agent", answer=Explanation, query=True):
    """An agent with its inheritance resolved, and where each field comes from."""

    name: str


class PlanAnswer(Message, type_name="registry.plan_answer"):
    """The plan, or only its digest if that is the `known_digest` of the question."""

    digest: str
    plan: Plan | None = None


class ResolvePlan(Request[PlanAnswer], service="registry", method="resolve_plan", answer=PlanAnswer, query=True):
    """Pin what a run of `workflow`, or an invocation of `agent`, uses.

    `revision` is the workflow's (the newest if absent); agents and tools are always pinned at their newest.
    """

    workflow: str | None = None
    agent: str | None = None
    revision: int | None = Field(default=None, ge=1, le=HIGHEST)
    known_digest: str | None = None

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.workflow is None) == (self.agent is None):
            message = "give exactly one of workflow and agent"
            raise ValueError(message)
        if self.agent is not None and self.revision is not None:
            message = "revision is a workflow's; an agent is always pinned at its newest"
            raise ValueError(message)
        return self


class SpecsChanged(Message, type_name="registry.changed"):
    """What the registry said before may no longer be so; events tell what changed.

    It is broadcast on `changed_subject(tenant)` after every apply and deletion, before that is answered. Whoever hears
    it on the connection by which he is told to start runs may believe until then what he knows.
    """


def changed_subject(tenant: str) -> str:
    """Where `SpecsChanged` is broadcast (core NATS, no answer)."""
    return subjects.rpc(tenant, "registry", "changed")


class TriggerChange(Value):
    """A trigger's newest revision. `spec`: absent if that is its deletion. `version` counts the tenant's applies."""

    name: str
    revision: int
    spec: JsonObject | None = None
    author: str
    at: datetime
    version: int


class TriggerChanges(Message, type_name="registry.trigger_changes_answer"):
    """Triggers that changed, older changes first. `more`: ask again, after the version of the last one."""

    changes: tuple[TriggerChange, ...] = ()
    version: int
    more: bool = False


class ListTriggerChanges(
    Request[TriggerChanges], service="registry", method="list_trigger_changes", answer=TriggerChanges, query=True
):
    """Which triggers were applied or deleted after `version`: how the orchestrator follows the registry."""

    after: int = Field(default=0, ge=0)
    limit: int = Field(default=200, ge=1, le=500)


class ProviderChange(Value):
    """The newest revision of a provider or a model. `spec`: absent if that is its deletion."""

    kind: Literal["Provider", "Model"]
    name: str
    revision: int
    spec: JsonObject | None = None
    version: int


class ProviderChanges(Message, type_name="registry.provider_changes_answer"):
    """Providers and models that changed, older changes first. `more`: ask again, after `version`."""

    changes: tuple[ProviderChange, ...] = ()
    version: int
    more: bool = False


class ListProviderChanges(
    Request[ProviderChanges], service="registry", method="list_provider_changes", answer=ProviderChanges, query=True
):
    """Which providers and models were applied or deleted after `version`: how the gateway follows the registry."""

    after: int = Field(default=0, ge=0)
    limit: int = Field(default=200, ge=1, le=500)
