"""What the orchestrator answers and obeys."""

from __future__ import annotations

from typing import Final

from paracle_chassis.routes import Routes
from paracle_domain import subjects
from paracle_domain.histories import ListRunsBegun
from paracle_domain.run.commands import (
    AskForCall,
    GetApproval,
    GetPlan,
    GetRun,
    GetRunEvents,
    GetStep,
    ListApprovals,
    ListRuns,
    WithdrawCall,
)
from paracle_domain.run.diff import DiffRuns
from paracle_domain.task.sessions import ListTurnsBefore
from paracle_domain.task.wanted import ListWantedTasks
from paracle_domain.trigger.commands import GetTrigger, ListTriggers
from paracle_orchestrator.call_approvals import CallApprovals
from paracle_orchestrator.obeying import Obeying
from paracle_orchestrator.service import Orchestrator
from paracle_orchestrator.settings import OrchestratorSettings
from paracle_orchestrator.stuck import StuckRuns
from paracle_orchestrator.triggers import Watch

TAKEOVER_S: Final = 5.0
"""How long what a replica had in hand waits for the next one when it is killed, or hangs."""


def routes(
    orchestrator: Orchestrator, calls: CallApprovals, watch: Watch, stuck: StuckRuns, settings: OrchestratorSettings
) -> Routes:
    """The routing table."""
    table = Routes("orchestrator")
    table.mailbox(
        stream=subjects.COMMANDS,
        durable="orchestrator",
        filter=subjects.cmd(subjects.ANY, "orchestrator", subjects.ANY),
        handler=Obeying(orchestrator, watch.triggers).obey,
        batch=settings.batch,
        ack_wait_s=TAKEOVER_S,
    )
    table.mailbox(
        stream=subjects.RESULTS,
        durable="orchestrator",
        filter=subjects.result(subjects.ANY, subjects.ANY),
        handler=orchestrator.take_in,
        batch=settings.batch,
        at_once=2,  # one is decided while the other is committed
        ack_wait_s=TAKEOVER_S,
    )
    table.mailbox(
        stream=subjects.INTAKE,
        durable="orchestrator",
        filter=subjects.intake(subjects.ANY, ">"),
        handler=watch.intake.take_in,
        batch=settings.batch,
        ack_wait_s=TAKEOVER_S,
    )
    table.mailbox(
        stream=subjects.EVENTS,
        durable="orchestrator",
        filter=subjects.evt(subjects.ANY, "trigger", subjects.ANY, "revised"),
        handler=watch.follower.take_in,
        ack_wait_s=TAKEOVER_S,
    )
    table.mailbox(
        stream=subjects.DEADLETTERS,
        durable="orchestrator",
        filter=subjects.dlq(subjects.ANY, subjects.ANY),
        handler=stuck.mark,
        ack_wait_s=TAKEOVER_S,
    )
    table.rpc(GetRun, orchestrator.get_run)
    table.rpc(GetStep, orchestrator.get_step)
    table.rpc(ListRuns, orchestrator.list_runs)
    table.rpc(GetRunEvents, orchestrator.get_run_events)
    table.rpc(ListRunsBegun, orchestrator.list_runs_begun)
    table.rpc(ListTurnsBefore, orchestrator.list_turns_before)
    table.rpc(ListWantedTasks, orchestrator.list_wanted_tasks)
    table.rpc(GetPlan, orchestrator.get_plan)
    table.rpc(DiffRuns, orchestrator.diff_runs)
    table.rpc(GetApproval, orchestrator.get_approval)
    table.rpc(AskForCall, calls.ask)
    table.rpc(WithdrawCall, calls.withdraw)
    table.rpc(ListApprovals, orchestrator.list_approvals)
    table.rpc(GetTrigger, watch.triggers.get_trigger)
    table.rpc(ListTriggers, watch.triggers.list_triggers)
    return table
