"""Manifests that must be refused, and what the refusal has to name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bad:
    """A text; the error's code, the path that it points at, and words of its message."""

    name: str
    text: str
    code: str
    path: str
    words: str


def _agent(name: str, spec: str) -> str:
    return f"apiVersion: paracle/v1\nkind: Agent\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def _workflow(name: str, steps: str) -> str:
    return f"apiVersion: paracle/v1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec: {{steps: [{steps}]}}\n"


def _trigger(name: str, spec: str) -> str:
    workflow = _workflow("innocent-flow", "{id: a, agent: innocent}")
    return (
        f"{GOOD}---\n{workflow}---\napiVersion: paracle/v1\nkind: Trigger\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )


GOOD = _agent("innocent", '{instructions: "Nothing is wrong with this one."}')

BAD = (
    Bad(
        "unknown agent",
        _workflow("bad-agent", "{id: a, agent: innocent}, {id: b, agent: nobody}"),
        "spec_invalid",
        "spec.steps[1].agent",
        "nobody",
    ),
    Bad(
        "cyclic inheritance",
        "---\n".join(
            [_agent("egg", "{extends: hen}"), _agent("hen", "{extends: rooster}"), _agent("rooster", "{extends: egg}")]
        ),
        "spec_invalid",
        "spec.extends",
        "egg",
    ),
    Bad(
        "cyclic workflow",
        _workflow(
            "bad-circle",
            "{id: a, agent: innocent, needs: [c]}, {id: b, agent: innocent, needs: [a]}, "
            "{id: c, agent: innocent, needs: [b]}",
        ),
        "spec_invalid",
        "spec.steps",
        "a",
    ),
    Bad(
        "needs a step that does not exist",
        _workflow("bad-need", "{id: a, agent: innocent}, {id: b, agent: innocent, needs: [a, zzz]}"),
        "spec_invalid",
        "spec.steps[1].needs[1]",
        "zzz",
    ),
    Bad(
        "names a step that does not exist",
        _workflow("bad-name", '{id: a, agent: innocent, input: {deep: [{text: "{{ steps.zzz.output }}"}]}}'),
        "spec_invalid",
        "spec.steps[0].input.deep[0].text",
        "zzz",
    ),
    Bad(
        "an expression that loops for ever",
        _workflow(
            "bad-loop",
            "{id: a, agent: innocent, input: {text: '{% for i in range(90000) %}{% for k in range(90000) %}x"
            "{% endfor %}{% endfor %}'}}",
        ),
        "spec_invalid",
        "spec.steps[0].input.text",
        "ran out of fuel",
    ),
    Bad(
        "wrong type deep in a manifest",
        _workflow("bad-type", "{id: a, agent: innocent, retry: {max_attempts: [three]}}"),
        "spec_invalid",
        "spec.steps[0].retry.max_attempts",
        "integer",
    ),
    Bad(
        "no cron expression",
        _trigger("bad-cron", '{workflow: innocent-flow, schedule: {cron: "0 25 * * *"}}'),
        "spec_invalid",
        "spec.schedule.cron",
        "hour",
    ),
    Bad(
        "no time zone",
        _trigger("bad-zone", '{workflow: innocent-flow, schedule: {cron: "@daily", timezone: Europe/Berln}}'),
        "spec_invalid",
        "spec.schedule.timezone",
        "Europe/Berln",
    ),
    Bad(
        "no filter",
        _trigger("bad-filter", '{workflow: innocent-flow, subject: {topic: a, filter: "message.total >"}}'),
        "spec_invalid",
        "spec.subject.filter",
        "syntax",
    ),
    Bad(
        "a trigger of nothing",
        _trigger("bad-workflow", '{workflow: nobody-flow, schedule: {cron: "@daily"}}'),
        "spec_invalid",
        "spec.workflow",
        "nobody-flow",
    ),
)
