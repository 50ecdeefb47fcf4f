"""Workflows that run other workflows: as deep as is allowed, and never in a circle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from paracle_domain.errors import Finding
from paracle_domain.manifest import WorkflowDocument
from paracle_domain.workflow.spec import WorkflowSpec
from paracle_registry.catalog import Catalog

MAX_DEPTH: Final = 10


def check_children(catalog: Catalog, name: str, spec: WorkflowSpec, label: str) -> Iterator[Finding]:
    """What is wrong with the workflows that workflow `name`, which is `spec`, runs as children."""
    for path, work in spec.works():
        if work.workflow is None:
            continue
        way = _way(catalog, work.workflow, name)
        if way:
            circle = " → ".join([name, *way])
            message = f"workflows run one another in a circle: {circle}"
        elif _is_deep(catalog, work.workflow):
            message = f"below workflow {work.workflow!r} children run children more than {MAX_DEPTH} levels deep"
        else:
            continue
        yield Finding(path=f"{label} spec.{path}.workflow", message=message)


def _children(catalog: Catalog, name: str) -> dict[str, None]:
    entry = catalog.get("Workflow", name)
    if entry is None or not isinstance(entry.manifest, WorkflowDocument):
        return {}
    return {work.workflow: None for _, work in entry.manifest.spec.works() if work.workflow is not None}


def _way(catalog: Catalog, start: str, goal: str) -> list[str]:
    """The names on a way from `start` down to `goal`, both included; none if there is no such way."""
    above: dict[str, str | None] = {start: None}
    ahead = [start]
    while ahead and goal not in above:
        name = ahead.pop()
        for child in _children(catalog, name):
            if child not in above:
                above[child] = name
                ahead.append(child)
    way: list[str] = []
    at: str | None = goal if goal in above else None
    while at is not None:
        way.append(at)
        at = above[at]
    return way[::-1]


def _is_deep(catalog: Catalog, name: str) -> bool:
    level = {name: None}
    for _ in range(MAX_DEPTH):
        level = {child: None for parent in level for child in _children(catalog, parent)}
        if not level:
            return False
    return True
