"""Plans: resolved by the registry when a run starts, pinned, and then the same for ever."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import jsonschema_rs

from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.errors import (
    DeadlineExceeded,
    Finding,
    InputInvalid,
    NotFound,
    Unavailable,
    field_path,
    quote,
)
from paracle_domain.plan import Plan
from paracle_domain.records import record
from paracle_domain.registry import ResolvePlan
from paracle_domain.run.commands import StartRun
from paracle_domain.run.machine import RunMachine
from paracle_orchestrator.ports import News, PlanStore

_CACHED: Final = 1_000
# Far less than the time for which a plan that nobody pins is kept after it was last said to be used.
_ASSURED_S: Final = 3_600.0
_RESOLVE_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Pinned:
    """A plan made ready: its machine, and the check of its runs' input."""

    plan: Plan
    machine: RunMachine
    schema: jsonschema_rs.Validator

    @classmethod
    def of(cls, plan: Plan) -> Pinned:
        return cls(plan, RunMachine(plan), jsonschema_rs.validator_for(plan.workflow.spec.input, offline=True))

    def check_input(self, value: object) -> None:
        """Raise `InputInvalid`, with a finding for each field, if `value` breaks the workflow's input schema."""
        if self.schema.is_valid(value):
            return
        findings = [
            Finding(path=field_path(error.instance_path, "input"), message=error.message)
            for error in self.schema.iter_errors(value)
        ]
        raise InputInvalid.many(f"input of {self._whose}", findings)

    @property
    def _whose(self) -> str:
        """The workflow, or the agent that is run alone, and of which the registry made one without a revision."""
        workflow = self.plan.workflow
        agent = workflow.spec.steps[0].agent
        return f"workflow {workflow.name!r}" if workflow.revision or agent is None else f"agent {agent!r}"


@record
class _Target:
    tenant: str
    workflow: str | None
    agent: str | None
    revision: int | None


class Plans:
    """Plans by digest, and by what they were resolved from."""

    def __init__(self, store: PlanStore, bus: Bus, news: News | None = None) -> None:
        self._store = store
        self._bus = bus
        self._news = news
        self._pinned: OrderedDict[tuple[str, str], Pinned] = OrderedDict()
        self._newest: OrderedDict[_Target, tuple[str, object | None]] = OrderedDict()
        self._assured: OrderedDict[tuple[str, str], float] = OrderedDict()

    def batch(self) -> PlanBatch:
        """A resolver for commands that were taken in together: what several of them start is asked for once."""
        return PlanBatch(self)

    async def resolve(self, command: StartRun, context: Context) -> Pinned:
        """The plan of what `command` starts, as the registry has it now, kept in the store.

        The registry is asked, since it alone knows the newest revision, unless it is known that nothing has changed
        since it was; it answers without the plan if that is the one known here.

        Raises
        ------
        NotFound, SpecInvalid
            As the registry says.
        Unavailable
            If it says nothing in time: no reason to refuse a start.
        """
        target = target_of(command, context)
        age = self._news.age if self._news is not None else None  # as it is before the question
        digest, told = self._newest.get(target, (None, None))
        known = None if digest is None else await self._find(context.tenant, digest)
        if known is not None and age is not None and age == told:
            await self._assure(context.tenant, known.plan)
            return known
        request = ResolvePlan(
            workflow=command.workflow,
            agent=command.agent,
            revision=command.revision,
            known_digest=None if known is None else digest,  # the answer to a known one comes without the plan
        )
        try:
            answer = await self._bus.call(request, context, timeout_s=_RESOLVE_TIMEOUT_S)
        except DeadlineExceeded as error:
            raise Unavailable(f"the registry does not answer: {error.message}") from error
        if answer.plan is None:
            pinned = await self.to_pin(context.tenant, answer.digest)
        else:
            await self._assure(context.tenant, answer.plan)
            pinned = await self._keep(context.tenant, answer.plan)
        _remember(self._newest, target, (answer.digest, age))
        return pinned

    async def to_pin(self, tenant: str, digest: str) -> Pinned:
        """As `get`, for a run that is about to pin the plan and is not there yet: the plan will not be dropped."""
        pinned = await self.get(tenant, digest)
        await self._assure(tenant, pinned.plan)
        return pinned

    async def _assure(self, tenant: str, plan: Plan) -> None:
        """Have `plan` and its children in the store, and known to be used: said now and then, since nobody asks."""
        now = time.monotonic()
        said = self._assured.get((tenant, plan.digest))
        if said is not None and now - said < _ASSURED_S:
            return
        for part in plan.family():
            await self._store.put(tenant, part)
        _remember(self._assured, (tenant, plan.digest), now)

    async def get(self, tenant: str, digest: str) -> Pinned:
        """The pinned plan with `digest`.

        Raises
        ------
        NotFound
            If no run of `tenant` has pinned it.
        """
        found = await self._find(tenant, digest)
        if found is None:
            raise NotFound(f"no run has pinned a plan with digest {quote(digest)}", path="digest")
        return found

    async def _find(self, tenant: str, digest: str) -> Pinned | None:
        found = self._pinned.get((tenant, digest))
        if found is not None:
            self._pinned.move_to_end((tenant, digest))
            return found
        plan = await self._store.get(tenant, digest)
        return None if plan is None else await self._keep(tenant, plan)

    async def _keep(self, tenant: str, plan: Plan) -> Pinned:
        """The plan made ready, in a thread: that of 10,000 steps takes a second, and nobody else is to wait for it."""
        pinned = await asyncio.to_thread(Pinned.of, plan)
        _remember(self._pinned, (tenant, plan.digest), pinned)
        return pinned


class PlanBatch:
    """See `Plans.batch`. It must not outlive its batch: what is asked later may have to be answered otherwise."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._asked: dict[_Target, asyncio.Task[Pinned]] = {}

    async def resolve(self, command: StartRun, context: Context) -> Pinned:
        """See `Plans.resolve`."""
        target = target_of(command, context)
        asked = self._asked.get(target)
        if asked is None:
            asked = self._asked[target] = asyncio.ensure_future(self._plans.resolve(command, context))
        return await asyncio.shield(asked)


def target_of(command: StartRun, context: Context) -> _Target:
    """What `command` starts, as the registry is asked for it."""
    return _Target(context.tenant, command.workflow, command.agent, command.revision)


def _remember[K, V](cache: OrderedDict[K, V], key: K, value: V) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > _CACHED:
        cache.popitem(last=False)
