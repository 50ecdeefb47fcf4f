"""Answers what people ask about worker pools, and takes their orders to drain and to resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from paracle_agent_runtime.ports import Backlog, Clock, PoolBook, TaskQueue, Worker
from paracle_agent_runtime.records import record_message
from paracle_chassis.bus import Bus
from paracle_chassis.delivery import Delivery
from paracle_domain.envelope import Context
from paracle_domain.errors import Forbidden
from paracle_domain.machine import EventRecord
from paracle_domain.messages import JsonObject
from paracle_domain.subjects import DEFAULT_POOL
from paracle_domain.task.pools import (
    Drain,
    DrainPool,
    GetPool,
    ListPools,
    PoolList,
    PoolReplica,
    PoolState,
    PoolView,
    ResumePool,
)

_CLOSED: Final = frozenset({PoolState.DRAINING, PoolState.DRAINED})


class PoolDesk:
    """The use cases.

    Parameters
    ----------
    operator
        The tenant that sees the tasks of all, and may drain: pools are not one tenant's.
    """

    def __init__(self, book: PoolBook, queue: TaskQueue, bus: Bus, clock: Clock, operator: str) -> None:
        self._book = book
        self._queue = queue
        self._bus = bus
        self._clock = clock
        self._operator = operator

    async def list_pools(self, _request: ListPools, call: Context) -> PoolList:
        """Those that are served, drained or waited for, and the default one."""
        found = await self._all(call.tenant, DEFAULT_POOL)
        return PoolList(pools=tuple(found[name] for name in sorted(found)))

    async def get_pool(self, request: GetPool, call: Context) -> PoolView:
        """One of them."""
        return await self._view(request.pool, call.tenant)

    async def obey(self, delivery: Delivery) -> None:
        """Drain or resume. Told once more, it is answered again."""
        await delivery.answer(self._obeyed(delivery))

    async def _obeyed(self, delivery: Delivery) -> PoolView:
        """Do what the command says; the pool that it is about, as it stands then."""
        context = delivery.envelope.context.caused_by(delivery.envelope.id)
        if context.tenant != self._operator:
            raise Forbidden(f"pools are of all tenants: only the operator's, {self._operator}, may drain one")
        if not delivery.subject.endswith(f".{ResumePool.verb}"):
            order = delivery.decode(DrainPool)
            await self._drain(order, context, again=delivery.again)
            return await self._view(order.pool, context.tenant)
        command = delivery.decode(ResumePool)
        await self._resume(command, context, again=delivery.again)
        return _opened(await self._view(command.pool, context.tenant))

    async def _drain(self, command: DrainPool, context: Context, *, again: bool) -> None:
        drain = Drain(since=self._clock(), principal=context.principal, reason=command.reason)
        number = await self._book.drain(command.pool, drain)
        if number is None and again:
            number = await self._book.number(command.pool)
            drain = (await self._book.drains()).get(command.pool, drain)
        if number is not None:
            told: JsonObject = {"reason": drain.reason, "principal": drain.principal}
            await self._tell(command.pool, number, "pool.drained", told, context)

    async def _resume(self, command: ResumePool, context: Context, *, again: bool) -> None:
        number = await self._book.resume(command.pool)
        if number is None and again:
            number = await self._book.number(command.pool)
        if number is not None:
            await self._tell(command.pool, number, "pool.resumed", {"principal": context.principal}, context)

    async def _tell(self, pool: str, number: int, event: str, data: JsonObject, context: Context) -> None:
        """Every replica hears of it, and so does the audit log: also of what was done before a crash, and not told."""
        record = EventRecord(entity="pool", id=pool, seq=number, type=event, at=self._clock(), data=data)
        await self._bus.publish([record_message(record, context)])

    async def _view(self, pool: str, tenant: str) -> PoolView:
        return (await self._all(tenant, pool))[pool]

    async def _all(self, tenant: str, wanted: str) -> Mapping[str, PoolView]:
        """All that there are, and the one that is `wanted`."""
        own = None if tenant == self._operator else tenant
        sizes = await self._queue.sizes(own)
        backlogs = await self._queue.backlogs()
        drains = await self._book.drains()
        aside = await self._book.aside(own)
        workers = await self._book.workers()
        served = {name for each in workers for name in each.report.pools}
        elsewhere = {name for name, backlog in backlogs.items() if backlog.elsewhere}
        return {
            name: _view(
                name, sizes.get(name, 0), aside.get(name, 0), backlogs.get(name), workers, drains.get(name), own
            )
            for name in {wanted, *sizes, *elsewhere, *drains, *served, *aside}
        }


def _opened(view: PoolView) -> PoolView:
    """A pool that was resumed: what its processes said is older than the order, of which they hear just now."""
    if view.state is not PoolState.DRAINING or view.drain is not None:
        return view
    opened = {"state": PoolState.OPEN}
    replicas = tuple(one.model_copy(update=opened) if one.state in _CLOSED else one for one in view.replicas)
    return view.model_copy(update={**opened, "replicas": replicas})


def _view(
    pool: str,
    size: int,
    aside: int,
    backlog: Backlog | None,
    workers: Sequence[Worker],
    drain: Drain | None,
    tenant: str | None,
) -> PoolView:
    """The pool as a tenant sees it, or with all tenants' tasks. Only of all of them does NATS say what waits."""
    replicas = tuple(_replica(each, pool, tenant) for each in workers if pool in each.report.pools)
    in_hand = sum(each.in_hand for each in replicas)
    waiting = backlog.waiting if tenant is None and backlog is not None else max(0, size - in_hand)
    return PoolView(
        pool=pool,
        state=_state(replicas, drain, elsewhere=backlog is not None and backlog.elsewhere),
        waiting=waiting,
        aside=aside,
        in_hand=in_hand,
        for_people=sum(each.for_people for each in replicas),
        concurrency=sum(each.concurrency for each in replicas),
        replicas=replicas,
        drain=drain if drain is None or tenant is None else drain.model_copy(update={"principal": ""}),
    )


def _replica(worker: Worker, pool: str, tenant: str | None) -> PoolReplica:
    report = worker.report
    one = report.pools[pool]
    found = PoolReplica(
        worker=worker.id,
        state=one.state,
        in_hand=_of(one.in_hand, tenant),
        for_people=_of(one.for_people, tenant),
        concurrency=one.concurrency,
        seen_at=worker.seen_at,
    )
    if tenant is not None:
        return found
    memory = {"memory_mb": report.memory_mb, "memory_ceiling_mb": report.memory_ceiling_mb}
    return found.model_copy(update={"host": report.host, "pid": report.pid, **memory})


def _of(counts: Mapping[str, int], tenant: str | None) -> int:
    return sum(counts.values()) if tenant is None else counts.get(tenant, 0)


def _state(replicas: Sequence[PoolReplica], drain: Drain | None, *, elsewhere: bool) -> PoolState:
    """A pool is drained once every process says so: one that has not heard of it yet may still take a task.

    What a process said before the order is about an earlier one.
    """
    states = {each.state for each in replicas}
    if drain is not None:
        done = all(each.state is PoolState.DRAINED and each.seen_at >= drain.since for each in replicas)
        return PoolState.DRAINED if done else PoolState.DRAINING
    if PoolState.OPEN in states:
        return PoolState.OPEN
    if PoolState.OVER_MEMORY in states:
        return PoolState.OVER_MEMORY
    if elsewhere:
        return PoolState.ELSEWHERE
    return PoolState.DRAINING if states else PoolState.UNSERVED
