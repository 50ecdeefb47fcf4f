"""What changed after a version, in pages: how other services follow the registry. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from paracle_domain.registry import Kind
from paracle_registry.catalog import Catalog
from paracle_registry.ports import Revision


@dataclass(frozen=True, slots=True)
class Page:
    """Newest revisions, deletions among them, older ones first. `more`: there are others after `version`."""

    revisions: tuple[Revision, ...]
    version: int
    more: bool = False


def changes_after(catalog: Catalog, after: int, kinds: Collection[Kind], limit: int) -> Page:
    """What of `kinds` changed after the version `after`: about `limit`, since those of one version come together."""
    if catalog.version <= after:  # asked often, and mostly nothing changed
        return Page((), after)
    everything = [*(entry.revision for entry in catalog.entries.values()), *catalog.deleted.values()]
    changed = [item for item in everything if item.kind in kinds and item.version > after]
    changed.sort(key=lambda item: (item.version, item.kind, item.name))
    page = changed[:limit]
    while len(page) < len(changed) and changed[len(page)].version == page[-1].version:
        page.append(changed[len(page)])
    more = len(page) < len(changed)
    return Page(tuple(page), page[-1].version if more else catalog.version, more)
