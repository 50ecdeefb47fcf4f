"""Tools that processes of users answer over NATS, in whatever language: what they are sent, and what they may say."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Final

from pydantic import JsonValue

from paracle_agent_runtime.ports import Answer, Clock, Workers
from paracle_agent_runtime.tools.outcome import OutcomeUnknownError
from paracle_agent_runtime.tools.permissions import Grants
from paracle_chassis.codec import ERROR_HEADER, decode_error
from paracle_domain.envelope import Context
from paracle_domain.errors import (
    DeadlineExceeded,
    EffectInDoubt,
    InternalError,
    OutputInvalid,
    ParacleError,
    PayloadTooLarge,
    ToolFailed,
    quote,
)
from paracle_domain.messages import JsonObject
from paracle_domain.records import record
from paracle_domain.strict_json import parse_json
from paracle_domain.task.messages import Task
from paracle_domain.tool.calls import ToolCall
from paracle_domain.tool.spec import NatsBackend

UNCERTAIN: Final = (InternalError, DeadlineExceeded, EffectInDoubt, OutputInvalid, PayloadTooLarge)
"""Errors after which a worker may have done what it was asked. Any other one says that nothing was done."""


@record
class Caller:
    """The task that calls a tool, and on whose behalf."""

    task: Task
    context: Context


class WorkerTools:
    """Asks workers."""

    def __init__(self, workers: Workers, clock: Clock) -> None:
        self._workers = workers
        self._clock = clock

    async def call(
        self,
        backend: NatsBackend,
        arguments: JsonObject,
        grants: Grants,
        caller: Caller,
        *,
        key: str | None,
        timeout_s: float,
    ) -> JsonValue:
        """What a worker answers.

        Raises
        ------
        Forbidden
            If the tool may not ask for it.
        ParacleError
            What the worker refused it with, having done nothing; `ToolUnavailable` if there is no worker.
        OutcomeUnknownError
            If the worker broke, fell silent or answered what is no answer: it may have done something.
        """
        grants.worker(backend.tool)
        call = ToolCall(
            tool=backend.tool,
            tenant=caller.context.tenant,
            key=key,
            task_id=caller.task.task_id,
            run_id=caller.task.run_id,
            deadline_at=self._clock() + timedelta(seconds=timeout_s),
            principal=caller.context.principal,
        )
        body = json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
        return _value(await self._workers.ask(call, body), call, grants)


def _value(answer: Answer, call: ToolCall, grants: Grants) -> JsonValue:
    if ERROR_HEADER in answer.headers:
        raise _refusal(answer, call)
    if not answer.body:
        return None
    try:
        text = answer.body.decode()
        return parse_json(grants.redact(text))
    except ValueError as error:
        said = quote(answer.body[:200].decode("utf-8", "replace"))
        raise OutcomeUnknownError(ToolFailed(f"the worker of {call.tool!r} answered no JSON: {said}")) from error


def _refusal(answer: Answer, call: ToolCall) -> Exception:
    try:
        error: ParacleError | None = decode_error(answer.body, answer.headers)
    except (ValueError, TypeError, AttributeError):
        error = None  # JSON, and no problem
    if error is None:
        error = InternalError(f"the worker of {call.tool!r} answered an error that is no problem")
    if isinstance(error, UNCERTAIN):
        vague = isinstance(error, InternalError | DeadlineExceeded)
        return OutcomeUnknownError(ToolFailed(error.message) if vague else error)
    return error
