"""One way to call a tool: arguments checked, permissions fixed, time bounded, result checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from pydantic import JsonValue

from paracle_agent_runtime.schemas import Schemas
from paracle_agent_runtime.tools.builtin import BUILTINS
from paracle_agent_runtime.tools.builtin.acting import Call
from paracle_agent_runtime.tools.builtin.execution import Execution
from paracle_agent_runtime.tools.builtin.spending import Spending, UsageSource
from paracle_agent_runtime.tools.builtin.web import Web
from paracle_agent_runtime.tools.http import HttpTools
from paracle_agent_runtime.tools.mcp.backend import McpTools
from paracle_agent_runtime.tools.outcome import OutcomeUnknownError
from paracle_agent_runtime.tools.permissions import Grants, redact
from paracle_agent_runtime.tools.sandbox.commands import Commands
from paracle_agent_runtime.tools.workers import Caller, WorkerTools
from paracle_domain.errors import (
    ErrorInfo,
    Forbidden,
    InputInvalid,
    OutputInvalid,
    ParacleError,
    SpecInvalid,
    ToolFailed,
    ToolUnavailable,
)
from paracle_domain.messages import JsonObject
from paracle_domain.plan import PlannedTool
from paracle_domain.records import record
from paracle_domain.task.inputs import Outcome
from paracle_domain.tool.spec import BuiltinBackend, HttpBackend, McpBackend, NatsBackend


@record
class ToolEnd:
    """How a call ended: with `output`, or with `error` and what is known of its effect."""

    duration_s: float
    output: JsonValue = None
    error: ErrorInfo | None = None
    outcome: Outcome = Outcome.DONE


class Toolbox:
    """Calls the tools of plans.

    Parameters
    ----------
    files_root
        The folder that bounds what file tools may read, whatever their manifests grant.
    environment
        Where secrets are (`PARACLE_SECRET_<NAME>`).
    log_bug
        Told of an exception that no tool should raise, with the tool's name.
    """

    def __init__(
        self,
        *,
        schemas: Schemas,
        http: HttpTools,
        workers: WorkerTools,
        mcp: McpTools,
        commands: Commands,
        usage: UsageSource,
        files_root: Path,
        environment: Mapping[str, str],
        log_bug: Callable[[str, Exception], None],
    ) -> None:
        self._schemas = schemas
        self._http = http
        self._workers = workers
        self._mcp = mcp
        self._files_root = files_root
        self._environment = environment
        self._log_bug = log_bug
        self._acting = {
            **Web(http).functions,
            **Execution(commands, environment).functions,
            **Spending(usage).functions,
        }

    async def call(
        self, tool: PlannedTool, arguments: JsonObject, caller: Caller, *, key: str | None = None
    ) -> ToolEnd:
        """Call `tool` of the caller's plan; every failure is in the answer."""
        started = time.monotonic()
        sent, plan = False, caller.task.plan
        try:
            self._check_arguments(plan, tool, arguments)
            sent = True
            output = await self._within(tool, arguments, caller, key)
        except OutcomeUnknownError as error:
            return ToolEnd(time.monotonic() - started, error=self._told(error.error), outcome=Outcome.UNKNOWN)
        except ParacleError as error:
            return ToolEnd(time.monotonic() - started, error=self._told(error), outcome=Outcome.NOT_DONE)
        except Exception as error:  # noqa: BLE001  # a tool's bug is that tool's failure, not the end of the runtime
            self._log_bug(tool.name, error)
            failed = ToolFailed(f"tool {tool.name!r} broke: {type(error).__name__}; see the agent runtime's log")
            outcome = Outcome.UNKNOWN if sent else Outcome.NOT_DONE
            return ToolEnd(time.monotonic() - started, error=failed.to_info(), outcome=outcome)
        return ToolEnd(time.monotonic() - started, output, self._wrong_output(plan, tool, output))

    def _told(self, error: ParacleError) -> ErrorInfo:
        """`error` as events keep it. Whatever it quotes, it quotes no secret."""
        info = error.to_info()
        return info.model_copy(update={"message": redact(info.message, self._environment)})

    def _check_arguments(self, plan: str, tool: PlannedTool, arguments: JsonObject) -> None:
        problems = self._schemas.problems((plan, tool.name, "input"), tool.spec.input, arguments, root="arguments")
        if problems:
            raise InputInvalid.many(f"tool {tool.name!r}", problems)

    def _wrong_output(self, plan: str, tool: PlannedTool, output: JsonValue) -> ErrorInfo | None:
        """What the output breaks in the tool's schema. The tool has done its work all the same."""
        try:
            problems = self._schemas.problems((plan, tool.name, "output"), tool.spec.output, output, root="output")
        except SpecInvalid as error:
            return error.to_info()
        if not problems:
            return None
        return OutputInvalid.many(f"tool {tool.name!r} gave what its schema does not allow", problems).to_info()

    async def _within(self, tool: PlannedTool, arguments: JsonObject, caller: Caller, key: str | None) -> JsonValue:
        spec = tool.spec
        if isinstance(spec.backend, BuiltinBackend) and spec.backend.function == "noop":
            return {**arguments, **spec.backend.options}
        grants = Grants(tool.name, spec.permissions, self._files_root, self._environment)
        try:
            async with asyncio.timeout(spec.timeout_s):
                return await self._invoke(tool, arguments, grants, caller, key)
        except TimeoutError as error:
            late = ToolUnavailable(f"tool {tool.name!r} did not answer within timeout_s = {spec.timeout_s:g} s")
            raise OutcomeUnknownError(late) from error

    def _invoke(
        self, tool: PlannedTool, arguments: JsonObject, grants: Grants, caller: Caller, key: str | None
    ) -> Awaitable[JsonValue]:
        """The call itself. It is awaited by who asked for it: thousands wait at once, and each frame is 300 bytes."""
        match tool.spec.backend:
            case HttpBackend() as backend:
                return self._http.call(backend, arguments, grants, key=key, timeout_s=tool.spec.timeout_s)
            case NatsBackend() as backend:
                return self._workers.call(backend, arguments, grants, caller, key=key, timeout_s=tool.spec.timeout_s)
            case McpBackend() as backend:
                return self._mcp.call(backend, arguments, grants, key, timeout_s=tool.spec.timeout_s)
            case BuiltinBackend(function=name, options=options):
                if name in BUILTINS:
                    return BUILTINS[name]({**arguments, **options}, grants)
                if name in self._acting:
                    return self._acting[name](Call(arguments, options, grants, key, tool.spec.timeout_s, caller))
                known = ", ".join(sorted({*BUILTINS, *self._acting}))
                raise Forbidden(f"tool {tool.name!r}: there is no builtin {name!r}; there are {known}")
