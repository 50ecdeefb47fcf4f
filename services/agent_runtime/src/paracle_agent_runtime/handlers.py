"""What the agent runtime hears and answers."""

from __future__ import annotations

from paracle_agent_runtime.effects import EffectDesk
from paracle_agent_runtime.histories import Histories
from paracle_agent_runtime.obeying import Obeying
from paracle_agent_runtime.pool_desk import PoolDesk
from paracle_agent_runtime.pools import Pools
from paracle_agent_runtime.purging import Purging
from paracle_agent_runtime.service import Runtime
from paracle_agent_runtime.session_desk import SessionDesk
from paracle_chassis import topology
from paracle_chassis.routes import Routes
from paracle_domain import subjects
from paracle_domain.histories import ListTasksBegun
from paracle_domain.task.effects import GetEffect, ListEffects
from paracle_domain.task.messages import GetTaskEvents
from paracle_domain.task.pools import GetPool, ListPools
from paracle_domain.task.sessions import DeleteSession, GetSession, ListSessions


def routes(
    runtime: Runtime,
    pools: Pools,
    histories: Histories,
    purging: Purging,
    desk: EffectDesk,
    pool_desk: PoolDesk,
    sessions: SessionDesk,
) -> Routes:
    """The routing table. Every replica hears of cancelled tasks, since any may be working on them."""
    table = Routes("agent_runtime")
    for pool in pools:
        consumer = topology.pool_consumer(pool.name)
        table.mailbox(
            stream=consumer.stream,
            durable=consumer.durable,
            filter=consumer.filter,
            handler=runtime.take,
            ack_wait_s=consumer.ack_wait_s,
            max_ack_pending=consumer.max_ack_pending,
            max_deliver=40,  # a long task that is sent again goes round the replicas for a while
            room=pool.room,
        )
    table.mailbox(
        stream=subjects.COMMANDS,
        durable="agent_runtime",
        filter=f"{subjects.PREFIX}.*.cmd.agent_runtime.*",
        handler=Obeying(runtime, desk, pool_desk).obey,
        ack_wait_s=5.0,
    )
    table.mailbox(
        stream=subjects.EVENTS,
        durable="agent_runtime",
        filter=f"{subjects.PREFIX}.*.evt.purge.*.runs_purged",
        handler=purging.follow,
        ack_wait_s=5.0,
    )
    table.rpc(GetTaskEvents, histories.get_task_events)
    table.rpc(ListTasksBegun, histories.list_tasks_begun)
    table.rpc(ListEffects, desk.list_effects)
    table.rpc(GetEffect, desk.get_effect)
    table.rpc(ListPools, pool_desk.list_pools)
    table.rpc(GetPool, pool_desk.get_pool)
    table.rpc(ListSessions, sessions.list_sessions)
    table.rpc(GetSession, sessions.get_session)
    table.rpc(DeleteSession, sessions.delete_session)
    table.listen(f"{subjects.PREFIX}.*.evt.task.*.task_cancelled", runtime.overhear)
    table.listen(f"{subjects.PREFIX}.*.evt.approval.*.*", runtime.hear_of_approval)
    table.listen(f"{subjects.PREFIX}.*.evt.budget.*.*", runtime.hear_of_budget)
    table.listen(f"{subjects.PREFIX}.*.evt.pool.*.*", runtime.hear_of_pool)
    return table
