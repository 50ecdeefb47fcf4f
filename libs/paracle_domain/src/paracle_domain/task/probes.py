"""Probes: what a tool that looks is asked about a call in doubt, and how its answer is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from paracle_domain.errors import ExpressionFailed, quote
from paracle_domain.expressions import evaluate, has_code
from paracle_domain.messages import JsonObject
from paracle_domain.task.inputs import Outcome
from paracle_domain.tool.spec import Effect, Probe, ToolSpec

NAMES: Final = frozenset({"arguments", "output"})
"""What expressions of a probe see."""
KEY: Final = "idempotency_key"
"""The argument that the doubted call's key is given in, where a probe's `input` names it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe found: whether the effect happened, and if so what the tool would have answered.

    `reason` says why it could not tell.
    """

    outcome: Outcome
    output: JsonValue = None
    reason: str | None = None


def probe_arguments(spec: ToolSpec, arguments: JsonObject, key: str) -> JsonObject:
    """The arguments of the probe `spec` about the call of `key` with `arguments`: those that its `input` names.

    One that names none gets all.
    """
    named = _properties(spec)
    return {name: value for name, value in {**arguments, KEY: key}.items() if name in named} if named else arguments


def read_answer(probe: Probe, arguments: JsonObject, output: JsonValue) -> Answer:
    """What `output`, which the tool of `probe` gave, says. What cannot be read says nothing."""
    if probe.outcome is None:
        return _plain(output)
    scope = {"arguments": arguments, "output": output}
    try:
        expression = probe.outcome if has_code(probe.outcome) else f"{{{{ {probe.outcome} }}}}"
        outcome = _outcome(evaluate(expression, scope), "its `outcome`")
        if outcome.outcome is not Outcome.DONE:
            return outcome
        return Answer(Outcome.DONE, output if probe.output is None else evaluate(probe.output, scope))
    except ExpressionFailed as error:
        return Answer(Outcome.UNKNOWN, reason=f"what the probe answered could not be read: {error.message}")


def _plain(output: JsonValue) -> Answer:
    """An answer in the form that probes have of themselves: `{"outcome": "done", "output": …}`."""
    if not isinstance(output, dict) or "outcome" not in output:
        shape = '{"outcome": "done" | "not_done" | "unknown", "output": …}'
        return Answer(Outcome.UNKNOWN, reason=f"the probe answered {quote(output)}, which is no {shape}")
    found = _outcome(output["outcome"], "`outcome`")
    return Answer(Outcome.DONE, output.get("output")) if found.outcome is Outcome.DONE else found


def _outcome(said: JsonValue, what: str) -> Answer:
    known = next((outcome for outcome in Outcome if outcome == said), Outcome.UNKNOWN)
    return Answer(known, reason=f"{what} is {quote(said)}" if known is Outcome.UNKNOWN else None)


def misfits(probed: ToolSpec, probe: ToolSpec) -> Iterator[str]:
    """Why the tool `probe` cannot be the probe of `probed`."""
    if probe.effect is not Effect.NONE:
        yield f"a probe only looks: its effect must be none, not {probe.effect}"
    if probe.approval is not None:
        yield "a probe is called without asking anybody, so it can have no approval"
    needed = sorted(_required(probe) - _required(probed) - {KEY})
    if needed and _properties(probed):
        yield f"it needs {quote(needed[0])}, which the call in doubt need not have"


def _properties(spec: ToolSpec) -> frozenset[str]:
    """The names of the arguments that its schema tells of."""
    properties = spec.input.get("properties")
    return frozenset(properties) if isinstance(properties, dict) else frozenset()


def _required(spec: ToolSpec) -> frozenset[str]:
    required = spec.input.get("required")
    return frozenset(map(str, required)) if isinstance(required, list) else frozenset()
