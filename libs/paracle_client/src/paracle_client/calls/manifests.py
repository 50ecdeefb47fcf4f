"""Manifests: putting them in, looking at them, taking them out."""

from __future__ import annotations

from typing import Final, Literal

from paracle_client.calls.call import Call, part_of
from paracle_domain.registry import Applied, Explanation, RevisionList, SpecList, SpecView

type Plural = Literal["agents", "tools", "workflows", "triggers", "providers", "models"]

PLURALS: Final[tuple[Plural, ...]] = ("agents", "tools", "workflows", "triggers", "providers", "models")
_LIVE: Final = frozenset[Plural]({"triggers", "providers", "models"})


def apply(text: str, source: str = "manifest", *, dry_run: bool = False) -> Call[Applied]:
    """Put all manifests of `text` (YAML) in, or none; `source` is what errors call it."""
    params = {"source": source, "dry_run": "true" if dry_run else None}
    return Call("POST", "/v1/manifests", Applied, params, {"content-type": "application/yaml"}, text=text)


def delete(plural: Plural, name: str, *, dry_run: bool = False) -> Call[Applied]:
    """Take one manifest out, unless others use it; its revisions are kept."""
    return Call("DELETE", f"{_manifests(plural)}/{part_of(name)}", Applied, {"dry_run": "true" if dry_run else None})


def delete_manifests(text: str, source: str = "manifest", *, dry_run: bool = False) -> Call[Applied]:
    """Take out all that `text` (YAML) names by kind and name, or nothing of it."""
    params = {"source": source, "dry_run": "true" if dry_run else None}
    return Call("POST", "/v1/manifests/delete", Applied, params, {"content-type": "application/yaml"}, text=text)


def _manifests(plural: Plural) -> str:
    """Where manifests of a kind are; at `/v1/triggers` stands what triggers do, and so for others that are live."""
    return f"/v1/manifests/{plural}" if plural in _LIVE else f"/v1/{plural}"


def list_specs(plural: Plural, *, limit: int = 500, cursor: str | None = None) -> Call[SpecList]:
    """Newest revisions of all manifests of a kind (`agents`, `tools`, …), by name."""
    return Call("GET", _manifests(plural), SpecList, {"limit": limit, "cursor": cursor})


def get_spec(plural: Plural, name: str, *, revision: int | None = None) -> Call[SpecView]:
    """One manifest as it was written: its newest revision, or the one given."""
    return Call("GET", f"{_manifests(plural)}/{part_of(name)}", SpecView, {"revision": revision})


def revisions(plural: Plural, name: str) -> Call[RevisionList]:
    """How a manifest came to be what it is, newest first."""
    return Call("GET", f"{_manifests(plural)}/{part_of(name)}/revisions", RevisionList)


def explain(agent: str) -> Call[Explanation]:
    """An agent with its inheritance resolved, and which ancestor set each field."""
    return Call("GET", f"/v1/agents/{part_of(agent)}/explain", Explanation)
