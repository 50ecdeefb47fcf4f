"""Taking manifests out: what that comes to, and what stands in its way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from paracle_domain.errors import Finding, SpecInvalid, quote
from paracle_domain.manifest import DOCUMENTS, label_of
from paracle_domain.plan import digest_of
from paracle_domain.registry import AppliedSpec, DeleteManifests
from paracle_registry.catalog import Catalog, Key
from paracle_registry.ports import Revision
from paracle_registry.validation import validate
from paracle_registry.yaml_text import read_documents

_MEANT: Final = re.compile(r"; (?:known: |did you mean ).*")


@dataclass(frozen=True, slots=True)
class Deletion:
    """The catalog after it, the revisions that lead there, and what to answer."""

    catalog: Catalog
    revisions: tuple[Revision, ...]
    results: tuple[AppliedSpec, ...]


def keys_of(request: DeleteManifests) -> dict[Key, str]:
    """What `request` names, and how errors call each.

    Raises
    ------
    SpecInvalid
        If its text has a document without kind or name, or it names nothing.
    """
    keys: dict[Key, str] = {(spec.kind, spec.name): f"{spec.kind}/{spec.name}" for spec in request.specs}
    if request.text is not None:
        for index, document in enumerate(read_documents(request.text, request.source), start=1):
            label = label_of(request.source, index)
            keys[_key(document, label)] = label
    if not keys:
        raise SpecInvalid("it names no manifest", path=request.source)
    return keys


def _key(document: object, label: str) -> Key:
    match document:
        case {"kind": str(kind), "metadata": {"name": str(name)}} if kind in DOCUMENTS:
            return kind, name  # type: ignore[return-value]  # membership in DOCUMENTS was just checked
        case _:
            message = f"kind ({', '.join(DOCUMENTS)}) and metadata.name say what to delete (got {quote(document)})"
            raise SpecInvalid(message, path=label)


def _bare(message: str) -> str:
    """`message` without the names that might have been meant: nobody has mistyped one."""
    return _MEANT.sub("", message)


def plan_delete(current: Catalog, keys: Mapping[Key, str], author: str, now: datetime) -> Deletion:
    """What taking `keys` out of `current` comes to.

    Raises
    ------
    NotFound
        If there is no such manifest.
    SpecInvalid
        If others use it; each finding has the path at which they do.
    """
    going = [current.need(*key).revision for key in keys]
    version = current.version + 1
    revisions = tuple(
        Revision(
            kind=last.kind,
            name=last.name,
            revision=last.revision + 1,
            manifest={},
            digest=digest_of({}),
            author=author,
            created_at=now,
            version=version,
            deleted=True,
        )
        for last in going
    )
    after = current.with_revisions(revisions)
    findings = validate(after, sorted(current.dependents(keys) - keys.keys()), {})
    if findings:
        used = [Finding(path=item.path, message=f"{_bare(item.message)}: it is to be deleted") for item in findings]
        raise SpecInvalid.many("nothing was deleted: it is in use", used)
    results = tuple(
        AppliedSpec(kind=item.kind, name=item.name, revision=item.revision, change="deleted") for item in revisions
    )
    return Deletion(after, revisions, results)
