"""Worker pools as people see them: what waits for each, who serves it, and whether it takes anything new."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from paracle_domain.ids import WorkerId
from paracle_domain.messages import Command, Message, Plain, Request, Value
from paracle_domain.workflow.spec import PoolName


class PoolState(StrEnum):
    """Whether tasks of a pool are taken on, or why not.

    `elsewhere`: a program of somebody's own takes them, of which nothing more is known. `unserved`: no process serves
    it; what is handed to it waits until one does. `draining`: it was drained, or its processes end, and something is
    still in hand, or on its way; `drained`: nothing is any more, in any process, and nothing will be until it is
    resumed. What waits in its queue, or is set aside, is in nobody's hand. `over_memory`: all who serve it have more
    memory in use than their ceiling.
    """

    OPEN = "open"
    ELSEWHERE = "elsewhere"
    OVER_MEMORY = "over_memory"
    DRAINING = "draining"
    DRAINED = "drained"
    UNSERVED = "unserved"


class Drain(Value):
    """An order to take nothing new, which holds until it is taken back, also for processes that start later.

    Whose it was only the operator's tenant is told.
    """

    since: datetime
    principal: str = ""
    reason: str = ""


class PoolReplica(Value):
    """A process of the agent runtime that serves the pool. Memory is that of the whole process, in MiB.

    Where it runs, and with how much memory, only the operator's tenant is told.
    """

    worker: WorkerId
    host: str = ""
    pid: int = 0
    state: PoolState
    in_hand: int = Field(description="tasks that it works on, or that wait for something in it")
    for_people: int = Field(default=0, description="of those, counted while it drains: those that wait for people")
    concurrency: int
    memory_mb: int | None = None
    memory_ceiling_mb: int | None = None
    seen_at: datetime


class PoolView(Message, type_name="pool.view"):
    """A worker pool.

    `waiting` counts what was handed to it and nobody works on. A task that has waited for long was handed out more than
    once, to be sure, and counts as often. `aside` are turns of sessions that wait for earlier ones: they are handed to
    the pool once those have ended. The operator's tenant sees the tasks of all tenants, others see their own.
    """

    pool: PoolName
    state: PoolState
    waiting: int
    aside: int = 0
    in_hand: int
    for_people: int = Field(default=0, description="of those, counted while it drains: those that wait for people")
    concurrency: int = Field(description="most tasks that all its processes together work on at once")
    replicas: tuple[PoolReplica, ...] = ()
    drain: Drain | None = None


class PoolList(Message, type_name="pool.list"):
    """All pools that are served, drained, or waited for, by name."""

    pools: tuple[PoolView, ...]


class ListPools(Request[PoolList], service="agent_runtime", method="list_pools", answer=PoolList, query=True):
    """The worker pools, and how they stand."""


class GetPool(Request[PoolView], service="agent_runtime", method="get_pool", answer=PoolView, query=True):
    """One of them. One that nobody has heard of is `unserved`."""

    pool: PoolName


class DrainPool(Command, service="agent_runtime", verb="drain_pool"):
    """Take no new tasks of a pool, in no process; answered with its `PoolView`.

    What is in hand is finished. Only the operator's tenant may do this, since it holds for all tenants.
    """

    pool: PoolName
    reason: Plain = Field(default="", max_length=1_000)


class ResumePool(Command, service="agent_runtime", verb="resume_pool"):
    """Take tasks of a pool again that was drained; answered with its `PoolView`."""

    pool: PoolName
