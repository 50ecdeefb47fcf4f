"""What the agent runtime hears and answers."""

from __future__ import annotations

from paracle_agent_runtime.effects import EffectDesk
from paracle_agent_runtime.histories import Histories
from paracle_agent_runtime.obeying import Obeying
from paracle_agent_runtime.purging import Purging
from paracle_agent_runtime.service import Runtime
from paracle_agent_runtime.session_desk import SessionDesk
from paracle_chassis.routes import Routes
from paracle_domain import subjects
from paracle_domain.histories import ListTasksBegun
from paracle_domain.task.effects import GetEffect, ListEffects
from paracle_domain.task.messages import GetTaskEvents
from paracle_domain.task.sessions import DeleteSession, GetSession, ListSessions


def routes(runtime: Runtime, histories: Histories, purging: Purging, desk: EffectDesk, sessions: SessionDesk) -> Routes:
    """The routing table. Every replica hears of cancelled tasks, since any may be working on them."""
    table = Routes("agent_runtime")
    table.mailbox(
        stream=subjects.TASKS,
        durable="agent_runtime",
        filter=f"{subjects.PREFIX}.*.task.agents",
        handler=runtime.take,
        ack_wait_s=8.0,  # more than a lease: what comes again can then be taken over at once
        max_ack_pending=20_000,
        max_deliver=40,  # a long task that is sent again goes round the replicas until its owner gets it
    )
    table.mailbox(
        stream=subjects.COMMANDS,
        durable="agent_runtime",
        filter=f"{subjects.PREFIX}.*.cmd.agent_runtime.*",
        handler=Obeying(runtime, desk).obey,
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
    table.rpc(ListSessions, sessions.list_sessions)
    table.rpc(GetSession, sessions.get_session)
    table.rpc(DeleteSession, sessions.delete_session)
    table.listen(f"{subjects.PREFIX}.*.evt.task.*.task_cancelled", runtime.overhear)
    table.listen(f"{subjects.PREFIX}.*.evt.approval.*.*", runtime.hear_of_approval)
    return table
