"""What the schemas of a job say of values: its input, a model's arguments and answer."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue

from paracle_agent_runtime.schemas import Schemas, parse_answer
from paracle_agent_runtime.tools.toolbox import ToolEnd
from paracle_domain.errors import ErrorInfo, Finding, OutputInvalid, SpecInvalid
from paracle_domain.inference.response import Completion
from paracle_domain.messages import JsonObject
from paracle_domain.task.directives import ProbeEffect
from paracle_domain.task.inputs import Outcome
from paracle_domain.task.probes import Answer, read_answer
from paracle_domain.task.state import Job


class Checks:
    """Values held against the schemas of `job`, which are those of its plan."""

    def __init__(self, schemas: Schemas, job: Job) -> None:
        self._schemas = schemas
        self._job = job

    def input(self) -> tuple[Finding, ...]:
        """How the task's input breaks the schema of its target."""
        task, target = self._job.task, self._job.target
        return self._problems(target.name, f"{task.target_kind} input", target.spec.input, task.input, "input")

    def refused(self, completion: Completion) -> dict[int, str]:
        """What is wrong with the arguments of the reply's tool calls, by index."""
        found = {}
        for index, wish in enumerate(completion.message.tool_calls):
            if wish.invalid is not None:
                continue
            for name, place, schema in self._callee(wish.name):
                problems = self._problems(name, place, schema, wish.arguments, "arguments")
                if problems:
                    found[index] = "; ".join(f"{problem.path}: {problem.message}" for problem in problems)
        return found

    def _callee(self, called: str) -> Iterator[tuple[str, str, JsonObject]]:
        tool, helper = self._job.tools.get(called), self._job.helpers.get(called)
        if tool is not None:
            yield tool.name, "input", tool.spec.input
        elif helper is not None:
            yield helper.agent.name, "question", helper.input_schema

    def answer(self, text: str) -> tuple[JsonValue, tuple[Finding, ...]]:
        """A final answer as JSON, and how it breaks the agent's output schema."""
        value, problems = parse_answer(text)
        agent = self._job.agent
        if not problems and agent is not None and agent.spec.output is not None:
            problems = self._problems(agent.name, "agent output", agent.spec.output, value, "output")
        return value, problems

    def probed(self, directive: ProbeEffect, end: ToolEnd) -> tuple[Answer, ErrorInfo | None]:
        """What a probe that ended so found, and what is wrong with the output that it says a call gave."""
        tool = self._job.tools[directive.tool]
        assert tool.spec.probe is not None
        if end.error is not None:
            return Answer(Outcome.UNKNOWN, reason=f"{tool.spec.probe.tool}: {end.error.message}"), None
        answer = read_answer(tool.spec.probe, directive.arguments, end.output)
        if answer.outcome is not Outcome.DONE:
            return answer, None
        problems = self._problems(tool.name, "output", tool.spec.output, answer.output, "output")
        what = f"what tool {tool.name!r} gave, says its probe, is not what its schema allows"
        return answer, OutputInvalid.many(what, problems).to_info() if problems else None

    def _problems(self, name: str, place: str, schema: JsonObject, value: JsonValue, root: str) -> tuple[Finding, ...]:
        """How `value` breaks `schema`; nothing fits a schema that is none."""
        try:
            return self._schemas.problems((self._job.task.plan, name, place), schema, value, root=root)
        except SpecInvalid as error:
            return (Finding(path=root, message=error.message),)
