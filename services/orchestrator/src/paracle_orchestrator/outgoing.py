"""From directives to messages: how what a run wants done leaves this service."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from paracle_chassis.bus import Outgoing
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.messages import Message
from paracle_domain.run.directives import (
    CancelChild,
    DispatchTask,
    PublishEvent,
    StartChild,
    StopTask,
    TellParent,
)

SOURCE: Final = "paracle/orchestrator"

type Mailed = DispatchTask | StopTask | StartChild | CancelChild | TellParent | PublishEvent
"""Directives that are messages to others. A `ShowApproval` is for this service's own list."""


def message_of(tenant: str, directive: Mailed, context: Context, now: datetime) -> Outgoing:
    """`directive` as a message, under the id that makes its repetitions the same message."""
    match directive:
        case DispatchTask(task=task, pool=pool):
            subject = subjects.task(tenant, pool)
            return _wrap(subject, task, context, directive.message_id, now, subject if directive.light else None)
        case StopTask(command=command):
            return _wrap(
                subjects.cmd(tenant, command.service, command.verb), command, context, directive.message_id, now
            )
        case StartChild(message=start):
            return _wrap(subjects.result(tenant, start.run_id), start, context, directive.message_id, now)
        case CancelChild(message=cancel):
            return _wrap(subjects.result(tenant, cancel.start.run_id), cancel, context, directive.message_id, now)
        case TellParent(message=ended):
            return _wrap(subjects.result(tenant, ended.run_id), ended, context, directive.message_id, now)
        case PublishEvent(record=record):
            subject = subjects.evt(tenant, record.entity, record.id, record.type)
            return Outgoing(subject, record, Envelope(directive.message_id, record.type, SOURCE, context, record.at))


def _wrap(
    subject: str, message: Message, context: Context, message_id: str, now: datetime, joins: str | None = None
) -> Outgoing:
    return Outgoing(subject, message, Envelope(message_id, message.type_name, SOURCE, context, now), joins)
