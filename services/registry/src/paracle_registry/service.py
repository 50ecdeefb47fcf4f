"""The registry's use cases. They know no technology."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Final, Literal

from paracle_domain.envelope import Context
from paracle_domain.errors import Finding, InvalidInput, NotFound, SpecInvalid, quote
from paracle_domain.manifest import Manifest, label_of, parse_document
from paracle_domain.messages import JsonObject
from paracle_domain.plan import Plan
from paracle_domain.registry import (
    Ancestor,
    Applied,
    AppliedSpec,
    ApplyManifests,
    Change,
    DeleteManifests,
    ExplainAgent,
    Explanation,
    GetSpec,
    ListProviderChanges,
    ListRevisions,
    ListSpecs,
    ListTriggerChanges,
    PlanAnswer,
    ProviderChange,
    ProviderChanges,
    ResolvePlan,
    RevisionList,
    RevisionView,
    SpecList,
    SpecSummary,
    SpecView,
    Touched,
    TriggerChange,
    TriggerChanges,
)
from paracle_registry.catalog import Catalog, Entry, Key
from paracle_registry.changes import changes_after
from paracle_registry.deleting import keys_of, plan_delete
from paracle_registry.ports import Edit, Revision, SpecStore
from paracle_registry.validation import validate
from paracle_registry.yaml_text import read_documents, write_document

MAX_FINDINGS: Final = 50
MAX_CACHED_TENANTS: Final = 256


def _now() -> datetime:
    return datetime.now(UTC)


async def _nobody_listens(_: Context) -> None:
    """For a registry without a bus."""


@dataclass(frozen=True, slots=True)
class _Given:
    """The manifests of one apply, by key in the order of the text, and what errors call each."""

    manifests: dict[Key, Manifest]
    labels: dict[Key, str]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an apply comes to: the catalog after it, and the revisions that lead there."""

    catalog: Catalog
    revisions: tuple[Revision, ...]
    results: tuple[AppliedSpec, ...]


class RegistryService:
    """The manifests of all tenants.

    The newest manifests of a tenant are kept in memory as a `Catalog`; before each answer the store is asked what
    changed since, so that every replica answers by the last apply that was acknowledged.
    """

    def __init__(
        self,
        store: SpecStore,
        announce_soon: Callable[[], None],
        clock: Callable[[], datetime] = _now,
        tell: Callable[[Context], Awaitable[None]] = _nobody_listens,
    ) -> None:
        self._store = store
        self._announce_soon = announce_soon
        self._clock = clock
        self._tell = tell
        self._catalogs: dict[str, Catalog] = {}

    async def apply(self, request: ApplyManifests, call: Context) -> Applied:
        """Put manifests in: all of them, or none.

        Raises
        ------
        SpecInvalid
            With all that is wrong, each finding with its document and path.
        """
        given = await asyncio.to_thread(_read, request.text, request.source)
        async with self._store.edit(call.tenant) as edit:
            current = await self._catalog_within(edit, call.tenant)
            outcome = await asyncio.to_thread(_plan_apply, current, given, call.principal, self._clock())
            if outcome.revisions and not request.dry_run:
                await edit.add(outcome.revisions)
        if outcome.revisions and not request.dry_run:
            self._remember(call.tenant, outcome.catalog)
            self._announce_soon()
        if not request.dry_run:
            await self._tell(call)  # also of nothing new: an apply before this one may have died before it told
        return Applied(results=outcome.results, dry_run=request.dry_run)

    async def delete(self, request: DeleteManifests, call: Context) -> Applied:
        """Take manifests out: all of them, or none.

        Raises
        ------
        NotFound
            If one is not there.
        SpecInvalid
            If others use them; each finding has the path at which they do.
        """
        keys = await asyncio.to_thread(keys_of, request)
        async with self._store.edit(call.tenant) as edit:
            current = await self._catalog_within(edit, call.tenant)
            outcome = await asyncio.to_thread(plan_delete, current, keys, call.principal, self._clock())
            if not request.dry_run:
                await edit.add(outcome.revisions)
        if not request.dry_run:
            self._remember(call.tenant, outcome.catalog)
            self._announce_soon()
            await self._tell(call)
        return Applied(results=outcome.results, dry_run=request.dry_run)

    async def get_spec(self, request: GetSpec, call: Context) -> SpecView:
        """A manifest, newest or at a revision; revisions of what was deleted can still be looked at."""
        catalog = await self._catalog(call.tenant)
        if request.revision is None:
            return _view(catalog.need(request.kind, request.name).revision)
        newest = catalog.last(request.kind, request.name)
        if newest is None:
            raise catalog.missing(request.kind, request.name)
        return _view(await self._revision(call.tenant, newest, request.revision))

    async def list_specs(self, request: ListSpecs, call: Context) -> SpecList:
        """What there is, by kind and name."""
        catalog = await self._catalog(call.tenant)
        after = _read_cursor(request.cursor)
        keys = sorted(key for key in catalog.entries if request.kind in (None, key[0]) and key > after)
        page = keys[: request.limit]
        more = f"{page[-1][0]}/{page[-1][1]}" if len(keys) > len(page) else None
        return SpecList(specs=tuple(_summary(catalog.entries[key]) for key in page), next_cursor=more)

    async def list_revisions(self, request: ListRevisions, call: Context) -> RevisionList:
        """A manifest's revisions, newest first, each with its diff."""
        catalog = await self._catalog(call.tenant)
        if catalog.last(request.kind, request.name) is None:
            raise catalog.missing(request.kind, request.name)
        found = await self._store.history(call.tenant, request.kind, request.name, request.before, request.limit + 1)
        views = [_revision_view(new, old) for new, old in zip_longest(found, found[1:])]
        return RevisionList(kind=request.kind, name=request.name, revisions=tuple(views[: request.limit]))

    async def explain_agent(self, request: ExplainAgent, call: Context) -> Explanation:
        """An agent with its inheritance resolved, and who set what."""
        catalog = await self._catalog(call.tenant)
        revision = catalog.need("Agent", request.name).revision
        resolved = catalog.resolve(request.name)
        return Explanation(
            name=request.name,
            revision=revision.revision,
            spec=resolved.spec,
            origins={path: Ancestor(name=by.name, revision=by.revision) for path, by in resolved.origins.items()},
            lineage=tuple(Ancestor(name=by.name, revision=by.revision) for by in resolved.lineage),
        )

    async def resolve_plan(self, request: ResolvePlan, call: Context) -> PlanAnswer:
        """Pin what a run uses. Asked again with the digest of the answer, it says only that this holds still."""
        catalog = await self._catalog(call.tenant)
        plan = await self._plan(catalog, request, call.tenant)
        return PlanAnswer(digest=plan.digest, plan=None if plan.digest == request.known_digest else plan)

    async def list_trigger_changes(self, request: ListTriggerChanges, call: Context) -> TriggerChanges:
        """Triggers applied or deleted after a version; those of one version come together."""
        catalog = await self._catalog(call.tenant)
        page = changes_after(catalog, request.after, {"Trigger"}, request.limit)
        changes = tuple(map(_trigger_change, page.revisions))
        return TriggerChanges(changes=changes, version=page.version, more=page.more)

    async def list_provider_changes(self, request: ListProviderChanges, call: Context) -> ProviderChanges:
        """Providers and models applied or deleted after a version; those of one version come together."""
        catalog = await self._catalog(call.tenant)
        page = changes_after(catalog, request.after, {"Provider", "Model"}, request.limit)
        changes = tuple(map(_provider_change, page.revisions))
        return ProviderChanges(changes=changes, version=page.version, more=page.more)

    async def _plan(self, catalog: Catalog, request: ResolvePlan, tenant: str) -> Plan:
        if request.agent is not None:
            return catalog.plan_of_agent(request.agent)
        name = request.workflow or ""
        newest = catalog.need("Workflow", name).revision
        if request.revision in (None, newest.revision):
            return catalog.plan_of_workflow(name)
        old = Entry.of(await self._revision(tenant, newest, request.revision or 0))
        findings = validate(catalog.updated([old], catalog.version), [old.key], {})
        if findings:
            raise SpecInvalid.many(f"workflow {name!r} revision {request.revision} no longer fits", findings)
        return catalog.pin(old)

    async def _revision(self, tenant: str, newest: Revision, revision: int) -> Revision:
        """A revision that has a manifest: one that is a deletion is none."""
        found: Revision | None = newest
        if revision != newest.revision:
            found = await self._store.get(tenant, newest.kind, newest.name, revision)
        if found is None or found.deleted:
            raise NotFound(
                f"{newest.kind.lower()} {newest.name!r} has no revision {revision}; the newest is {newest.revision}"
            )
        return found

    async def _catalog(self, tenant: str) -> Catalog:
        known = self._catalogs.get(tenant, _EMPTY)
        changes = await self._store.changes(tenant, known.version)
        return self._remember(tenant, known.with_revisions(changes))

    async def _catalog_within(self, edit: Edit, tenant: str) -> Catalog:
        known = self._catalogs.get(tenant, _EMPTY)
        return known.with_revisions(await edit.changes(known.version))

    def _remember(self, tenant: str, catalog: Catalog) -> Catalog:
        """Keep `catalog` unless a newer one has been kept meanwhile; tenants unseen for longest are let go."""
        kept = self._catalogs.pop(tenant, _EMPTY)
        self._catalogs[tenant] = catalog if catalog.version >= kept.version else kept
        if len(self._catalogs) > MAX_CACHED_TENANTS:
            del self._catalogs[next(iter(self._catalogs))]
        return catalog


_EMPTY: Final = Catalog()


def _read(text: str, source: str) -> _Given:
    """The manifests of `text`, or everything that is wrong with them."""
    manifests: dict[Key, Manifest] = {}
    labels: dict[Key, str] = {}
    findings: list[Finding] = []
    for index, document in enumerate(read_documents(text, source), start=1):
        try:
            manifest = parse_document(document, index, source)
        except SpecInvalid as error:
            findings += error.problems or [Finding(path=error.path or source, message=error.message)]
            continue
        key: Key = (manifest.kind, manifest.metadata.name)
        label = label_of(source, index)
        if key in manifests:
            message = f"{manifest.kind} {key[1]!r} is in {labels[key]} already"
            findings.append(Finding(path=f"{label} metadata.name", message=message))
        manifests[key], labels[key] = manifest, label
    _refuse(findings)
    if not manifests:
        raise SpecInvalid("there is no manifest in it", path=source)
    return _Given(manifests, labels)


def _refuse(findings: Sequence[Finding]) -> None:
    if not findings:
        return
    shown = list(findings[:MAX_FINDINGS])
    if len(findings) > len(shown):
        rest = f"… and {len(findings) - len(shown)} more findings"
        shown.append(Finding(path=findings[len(shown)].path, message=rest))
    raise SpecInvalid.many("nothing was applied", shown)


def _plan_apply(current: Catalog, given: _Given, author: str, now: datetime) -> _Outcome:
    """What applying `given` to `current` comes to."""
    version = current.version + 1
    entries: list[Entry] = []
    changes: dict[Key, Change] = {}
    for key, manifest in given.manifests.items():
        old = current.last(*key)
        digest = manifest.digest()
        if old is not None and old.digest == digest and not old.deleted:
            changes[key] = "unchanged"
            continue
        changes[key] = "created" if old is None or old.deleted else "updated"
        revision = Revision(
            kind=key[0],
            name=key[1],
            revision=1 if old is None else old.revision + 1,
            manifest=manifest.to_json(),
            digest=digest,
            author=author,
            created_at=now,
            version=version,
        )
        entries.append(Entry(revision, manifest))
    after = current.updated(entries, version) if entries else current
    touched = after.dependents(entry.key for entry in entries)
    _refuse(validate(after, [*given.manifests, *sorted(touched - given.manifests.keys())], given.labels))
    results = tuple(_result(after, key, change) for key, change in changes.items())
    return _Outcome(after, tuple(entry.revision for entry in entries), results)


def _result(catalog: Catalog, key: Key, change: Change) -> AppliedSpec:
    touched = sorted(catalog.dependents([key])) if change == "updated" else []
    return AppliedSpec(
        kind=key[0],
        name=key[1],
        revision=catalog.entries[key].revision.revision,
        change=change,
        touches=tuple(Touched(kind=kind, name=name) for kind, name in touched),
    )


def _read_cursor(cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return "", ""
    kind, slash, name = cursor.partition("/")
    if not slash:
        raise InvalidInput(f"cursor {quote(cursor)} is none of ours; give the next_cursor of a page", path="cursor")
    return kind, name


def _view(found: Revision) -> SpecView:
    return SpecView(
        kind=found.kind,
        name=found.name,
        revision=found.revision,
        manifest=found.manifest,
        digest=found.digest,
        author=found.author,
        created_at=found.created_at,
    )


def _summary(entry: Entry) -> SpecSummary:
    found = entry.revision
    return SpecSummary(
        kind=found.kind,
        name=found.name,
        revision=found.revision,
        description=entry.manifest.spec.description or "",
        author=found.author,
        created_at=found.created_at,
    )


def _revision_view(new: Revision, old: Revision | None) -> RevisionView:
    return RevisionView(
        revision=new.revision,
        digest=new.digest,
        author=new.author,
        created_at=new.created_at,
        diff=_diff(old, new),
        deleted=new.deleted,
    )


def _trigger_change(found: Revision) -> TriggerChange:
    return TriggerChange(
        name=found.name,
        revision=found.revision,
        spec=_spec_of(found),
        author=found.author,
        at=found.created_at,
        version=found.version,
    )


def _provider_change(found: Revision) -> ProviderChange:
    kind: Literal["Provider", "Model"] = "Provider" if found.kind == "Provider" else "Model"
    return ProviderChange(
        kind=kind, name=found.name, revision=found.revision, spec=_spec_of(found), version=found.version
    )


def _spec_of(found: Revision) -> JsonObject | None:
    """What its manifest says; nothing if it is a deletion."""
    spec = None if found.deleted else found.manifest["spec"]
    assert spec is None or isinstance(spec, dict)
    return spec


def _diff(old: Revision | None, new: Revision) -> str:
    """A unified diff of the manifests as YAML; empty for a first revision."""
    if old is None:
        return ""
    lines = difflib.unified_diff(
        write_document(old.manifest).splitlines(keepends=True),
        write_document(new.manifest).splitlines(keepends=True),
        f"revision {old.revision}",
        f"revision {new.revision}",
    )
    return "".join(lines)
