"""What is wrong with a trigger, as far as it can be seen from itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from paracle_domain.errors import ExpressionFailed, Finding, InvalidInput
from paracle_domain.expression_syntax import paths, read_template
from paracle_domain.expressions import Template, check_names, has_code, read, read_condition, texts
from paracle_domain.names import suggest
from paracle_domain.trigger.schedule import EPOCH, Calendar, read_cron, read_zone
from paracle_domain.trigger.scope import SCHEDULE_FIELDS, SUBJECT_FIELDS
from paracle_domain.trigger.spec import ScheduleSpec, SubjectSpec, TriggerSpec

LABEL: Final = "trigger"
"""The label that every run of a trigger has; its value is the trigger's name."""
_ROOT: Final = frozenset({"trigger"})


def validate_trigger(spec: TriggerSpec) -> list[Finding]:
    """All that is wrong with the times, the topic and the expressions of `spec`, each with its path."""
    findings = list(_check_template(spec, spec.input, "spec.input"))
    if LABEL in spec.labels:
        findings.append(Finding(path=f"spec.labels.{LABEL}", message="this label is the trigger's name by itself"))
    if spec.schedule is not None:
        findings += _check_schedule(spec.schedule)
    if spec.subject is not None:
        findings += _check_subject(spec, spec.subject)
    return findings


def _check_schedule(schedule: ScheduleSpec) -> Iterator[Finding]:
    sound = True
    for field, text, check in (("cron", schedule.cron, read_cron), ("timezone", schedule.timezone, read_zone)):
        try:
            check(text)
        except InvalidInput as error:
            sound = False
            yield Finding(path=f"spec.schedule.{field}", message=error.message)
    if sound and not Calendar.of(schedule).upcoming(EPOCH, 1):
        field, when = ("start_at", "from then on") if schedule.end_at is None else ("end_at", "until then")
        yield Finding(path=f"spec.schedule.{field}", message=f"there is no time of this schedule {when}")


def _check_subject(spec: TriggerSpec, subject: SubjectSpec) -> Iterator[Finding]:
    if subject.filter is not None:
        try:
            _check_names(spec, read_condition(subject.filter))
        except ExpressionFailed as error:
            yield Finding(path="spec.subject.filter", message=error.message)
    if subject.dedupe is not None:
        if not has_code(subject.dedupe):
            message = "the same for every message: write an expression, as in `{{ message.id }}`"
            yield Finding(path="spec.subject.dedupe", message=message)
        yield from _check_template(spec, subject.dedupe, "spec.subject.dedupe")


def _check_template(spec: TriggerSpec, template: JsonValue, at: str) -> Iterator[Finding]:
    for place, text in texts(template, at):
        try:
            _check_names(spec, read(text))
        except ExpressionFailed as error:
            yield Finding(path=place, message=error.message)


def _check_names(spec: TriggerSpec, template: Template) -> None:
    """Refuse names that the scope of this trigger will not hold."""
    fields = SCHEDULE_FIELDS if spec.subject is None else SUBJECT_FIELDS
    check_names(template, _ROOT if spec.subject is None else _ROOT | {"message"})
    for code in read_template(template.source):
        for path in paths(code, _ROOT):
            if len(path.parts) > 1 and path.parts[1] not in fields:
                name = str(path.parts[1])
                raise ExpressionFailed(f"`{path}`: a trigger has no {name!r} here{suggest(name, fields)}")
