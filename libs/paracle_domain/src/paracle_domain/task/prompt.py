"""What a model is told: instructions, input, tool results, and what is wrong with its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from minijinja import Environment, TemplateError
from pydantic import JsonValue

from paracle_domain.errors import ErrorInfo, ExpressionFailed, Finding
from paracle_domain.inference.caching import CachePolicy
from paracle_domain.inference.chat import ChatMessage, OutputFormat, Sampling, ToolDefinition, ToolResultPart
from paracle_domain.inference.request import CallLabels, Complete
from paracle_domain.plan import PlannedAgent
from paracle_domain.task import compaction
from paracle_domain.task.delegation import MAX_DEPTH

if TYPE_CHECKING:
    from paracle_domain.task.messages import Task
    from paracle_domain.task.state import TaskState

TOOL_TEXT_LIMIT: Final = 100_000
_FUEL: Final = 200_000
_CALL_TIMEOUT_MAX_S: Final = 3_600.0
_ATTEMPTS_MAX: Final = 1_000  # more than the gateway makes for one question


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return Environment(fuel=_FUEL, undefined_behavior="strict", auto_escape_callback=lambda _: False)


def instructions(agent: PlannedAgent, value: JsonValue) -> str:
    """The agent's instructions, rendered over `input`.

    Raises
    ------
    ExpressionFailed
        If the template does not parse, names something absent, or runs out of fuel.
    """
    text = agent.spec.instructions
    if "{" not in text:  # nothing to render: the same text, which loses its last line break as any other does
        return text.removesuffix("\n").removesuffix("\r")
    try:
        return _templates().render_str(text, name="instructions", input=value)
    except TemplateError as error:
        what = f"instructions of agent {agent.name!r} cannot be rendered: {_why(error)}"
        raise ExpressionFailed(what, path="spec.instructions") from None  # its text would quote values of the input


def _why(error: TemplateError) -> str:
    if error.kind == "OutOfFuel":
        return f"they ran out of fuel: that takes more than {_FUEL:,} instructions"
    hint = " (write `| default(…)` if it may be absent)" if error.kind == "UndefinedError" else ""
    return f"{error.detail or error.message} in line {error.line}{hint}"


def input_text(value: JsonValue) -> str:
    """The input as the model reads it: a text as it is (also as the only field `text`), anything else as JSON."""
    if isinstance(value, dict) and set(value) == {"text"} and isinstance(value["text"], str):
        return value["text"]
    return as_text(value)


def as_text(value: JsonValue) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def tool_result(ref: str, output: JsonValue, error: ErrorInfo | None) -> ToolResultPart:
    """How a tool call ended, for the model; what is too long is cut, and says so."""
    text = f"{error.code}: {error.message}" if error else as_text(output)
    if len(text) > TOOL_TEXT_LIMIT:
        text = f"{text[:TOOL_TEXT_LIMIT]}\n[cut here: {TOOL_TEXT_LIMIT:,} of {len(text):,} characters are shown]"
    return ToolResultPart(call_id=ref, content=text, is_error=error is not None)


def repair_request(problems: Sequence[Finding]) -> str:
    """What the model is told when its answer was not accepted."""
    listed = "\n".join(f"- {problem.path or 'the answer'}: {problem.message}" for problem in problems)
    return f"Your answer was not accepted:\n{listed}\nGive the whole answer again, corrected, and nothing else."


def _tools(state: TaskState) -> Iterator[ToolDefinition]:
    for name, tool in state.job.tools.items():
        yield ToolDefinition(name=name, description=tool.spec.description, input_schema=tool.spec.input)


def _helpers(state: TaskState) -> Iterator[ToolDefinition]:
    """Delegates, unless it is too deep down to ask one."""
    if len(state.job.task.lineage) < MAX_DEPTH:
        for name, helper in state.job.helpers.items():
            yield ToolDefinition(name=name, description=helper.description, input_schema=helper.input_schema)


def model_request(state: TaskState) -> Complete:
    """The question that is due: for a turn, or for a summary of what was said before it.

    Raises
    ------
    ExpressionFailed
        If the instructions cannot be rendered.
    TypeError
        If the task is that of a tool.
    """
    agent, task = state.job.agent, state.job.task
    if agent is None:
        message = f"task {task.task_id} calls a tool and asks no model"
        raise TypeError(message)
    upto = compaction.due(state)
    if upto is not None:
        return _summary_request(state, agent, upto)
    told = instructions(agent, task.input)
    spec = agent.spec
    return Complete(
        call_id=state.model_call_id,
        model=spec.model.name,
        messages=(*((ChatMessage.system(told),) if told else ()), *state.told),
        tools=(*_tools(state), *_helpers(state)),
        output=None if spec.output is None else OutputFormat(json_schema=spec.output),
        sampling=Sampling(
            temperature=spec.model.temperature,
            max_output_tokens=spec.model.max_output_tokens,
            thinking=spec.model.thinking,
            prompt_cache=spec.model.prompt_cache,
            params=spec.model.params,
        ),
        stream_to=task.task_id,
        waits_to=task.root,
        attempts_before=state.unheard * _ATTEMPTS_MAX,
        priority=spec.model.priority,
        timeout_s=min(spec.limits.wall_time_s, _CALL_TIMEOUT_MAX_S),
        labels=_labels(task, agent),
        cache=_cache(task, agent),
        guards=spec.guards,
    )


def _cache(task: Task, agent: PlannedAgent) -> CachePolicy | None:
    """What a step is tried again for may be the answer: from its second attempt on, models are asked anew."""
    policy = agent.spec.model.cache
    return None if policy is None else CachePolicy(ttl_s=policy.ttl_s, fresh=task.attempt > 1)


def _labels(task: Task, agent: PlannedAgent) -> CallLabels:
    return CallLabels(
        run_id=task.run_id,
        task_id=task.task_id,
        agent=agent.name,
        step=task.step,
        principal=task.principal,
        project=task.project,
        parent_task_id=task.parent and task.parent.task_id,
    )


def _summary_request(state: TaskState, agent: PlannedAgent, upto: int) -> Complete:
    """Asked like the agent's own model, unless another one sums up; nobody watches a summary while it is written."""
    spec = agent.spec
    own = Sampling(temperature=spec.model.temperature, thinking=spec.model.thinking, params=spec.model.params)
    return Complete(
        call_id=state.model_call_id,
        model=spec.compaction.model or spec.model.name,
        messages=compaction.question(state, upto),
        sampling=own if spec.compaction.model is None else Sampling(),
        priority=spec.model.priority,
        timeout_s=min(spec.limits.wall_time_s, _CALL_TIMEOUT_MAX_S),
        labels=_labels(state.job.task, agent),
        cache=_cache(state.job.task, agent),
        guards=tuple(guard for guard in spec.guards if not guard.of_answers),
    )
