"""Who of those that wait may start. Pure: limits, who waits and what runs in, who is next out.

A limit is a workflow's (`max_runs`, as each run pinned it) or a tenant's. In a line the highest priority goes first,
then the oldest; a run that has to wait holds up only those of its own workflow. Tenants get one slot each in turn.

A child counts for its workflow, but not for its tenant: it is part of the run that started it, which would else wait
for a slot that it holds itself.

No workflow starts itself, at any depth; but runs of several revisions can wait for one another in a circle: old ones of
`a` that have all its slots for children of `b`, and newer ones of `b` that have all of its for children of `a`. Then no
slot would ever be free, so one child begins beyond its workflow's limit (`locked_out`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from paracle_domain.plan import Plan

type Scope = tuple[str, str]
"""A workflow of a tenant."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Most runs of a tenant at once, children not counted; `None`: as many as there are."""

    per_tenant: int | None = None
    of_tenant: Mapping[str, int | None] = field(default_factory=dict)

    def tenant(self, tenant: str) -> int | None:
        return self.of_tenant.get(tenant, self.per_tenant)

    def hold(self, plan: Plan, tenant: str, *, child: bool = False) -> bool:
        """Whether a run of `plan` has to wait for a slot; where nothing is limited, it starts at once."""
        limited = not child and self.tenant(tenant) is not None
        return limited or plan.workflow.spec.max_runs is not None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that waits for a slot."""

    id: str
    tenant: str
    workflow: str
    priority: int
    created_at: datetime
    max_runs: int | None = None
    child: bool = False

    @property
    def scope(self) -> Scope:
        return self.tenant, self.workflow

    @property
    def place(self) -> tuple[int, datetime, str]:
        """Sorts before those that it goes before."""
        return -self.priority, self.created_at, self.id


@dataclass(frozen=True, slots=True)
class Running:
    """How many slots are taken: of workflows, and of tenants."""

    workflows: Mapping[Scope, int] = field(default_factory=dict)
    tenants: Mapping[str, int] = field(default_factory=dict)


def choose(waiting: Sequence[Waiting], running: Running, limits: Limits, most: int) -> list[Waiting]:
    """Those of `waiting` that get a slot now, at most so many."""
    workflows, tenants = Counter(running.workflows), Counter(running.tenants)

    def fits(one: Waiting) -> bool:
        limit = limits.tenant(one.tenant)
        free = one.child or limit is None or tenants[one.tenant] < limit
        return free and (one.max_runs is None or workflows[one.scope] < one.max_runs)

    def next_of(line: Iterator[Waiting]) -> Waiting | None:
        """Slots only get fewer here, so whoever does not fit now need not be looked at again."""
        return next(filter(fits, line), None)

    chosen: list[Waiting] = []
    lines = deque(_by_tenant(waiting))
    while lines and len(chosen) < most:
        line = lines.popleft()
        one = next_of(line)
        if one is None:
            continue
        chosen.append(one)
        workflows[one.scope] += 1
        tenants[one.tenant] += not one.child
        lines.append(line)
    return chosen


def locked_out(waiting: Sequence[Waiting], holders: Mapping[Scope, Sequence[Collection[Scope]]]) -> Waiting | None:
    """Whoever of `waiting`, for whom there was no slot, is to begin nevertheless, since none would ever be free.

    `holders`: of each workflow, for each run that has a slot of it, the workflows for whose slots runs below it wait.
    It cannot end before those have begun. Where nobody below it waits for a slot that is locked, it leaves its own.
    """
    children = sorted((one for one in waiting if one.child), key=lambda one: one.place)
    locked = {one.scope for one in children if holders.get(one.scope)}
    while free := {scope for scope in locked if any(locked.isdisjoint(below) for below in holders[scope])}:
        locked -= free
    return next((one for one in children if one.scope in locked), None)


def _by_tenant(waiting: Sequence[Waiting]) -> list[Iterator[Waiting]]:
    """Each tenant's runs in their order, children first. Whoever has waited longest is dealt to first."""
    lines: dict[str, list[Waiting]] = {}
    for one in waiting:
        lines.setdefault(one.tenant, []).append(one)
    oldest = sorted(lines.values(), key=lambda line: min(one.created_at for one in line))
    return [iter(sorted(line, key=lambda one: (not one.child, one.place))) for line in oldest]
