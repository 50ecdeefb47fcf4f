"""Trigger manifests: what they say, what is wrong with them, and what their expressions see."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from paracle_domain import subjects
from paracle_domain.errors import ExpressionFailed, MalformedMessage, SpecInvalid
from paracle_domain.expressions import evaluate
from paracle_domain.manifest import TriggerDocument, load_manifest, parse_document
from paracle_domain.trigger.scope import dedupe_key, message_scope, schedule_scope, takes, topic_matches
from paracle_domain.trigger.spec import SubjectSpec, TriggerSpec
from paracle_domain.trigger.validation import validate_trigger

NIGHTLY = {"cron": "0 2 * * 1-5", "timezone": "Europe/Berlin"}
ORDERS = {"topic": "orders.*"}


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "paracle/v1",
        "kind": "Trigger",
        "metadata": {"name": "t"},
        "spec": {"workflow": "report", **spec},
    }


def parse(**spec: Any) -> TriggerDocument:
    found = parse_document(document(**spec), 1, "t.yaml")
    assert isinstance(found, TriggerDocument)
    return found


def test_a_trigger_is_read_and_comes_back_as_it_was_written() -> None:
    written = {**NIGHTLY, "start_at": "2026-01-01T00:00:00+01:00", "overlap": "queue"}
    found = parse(schedule=written, input={"day": "{{ trigger.scheduled_at }}"})
    assert found.spec.schedule is not None
    assert found.spec.schedule.catch_up_s == 3600
    assert found.to_json()["spec"]["schedule"] == written  # type: ignore[index,call-overload]
    assert load_manifest("Trigger", found.to_json()) == found


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({}, "t.yaml#1 spec", "give exactly one of schedule and subject"),
        ({"schedule": NIGHTLY, "subject": ORDERS}, "t.yaml#1 spec", "give exactly one of schedule and subject"),
        ({"schedule": {**NIGHTLY, "overlap": "maybe"}}, "t.yaml#1 spec.schedule.overlap", "Input should be 'skip'"),
        ({"schedule": {**NIGHTLY, "catch_up_s": -1}}, "t.yaml#1 spec.schedule.catch_up_s", "greater than or equal"),
        ({"schedule": {**NIGHTLY, "start_at": "2026-01-01"}}, "t.yaml#1 spec.schedule.start_at", "datetime"),
        ({"schedule": {**NIGHTLY, "zone": "UTC"}}, "t.yaml#1 spec.schedule.zone", "there is no field 'zone'"),
        ({"subject": {"topic": "orders..new"}}, "t.yaml#1 spec.subject.topic", "should be a topic"),
        ({"subject": {"topic": "orders.>.new"}}, "t.yaml#1 spec.subject.topic", "should be a topic"),
        ({"subject": {"topic": "or*"}}, "t.yaml#1 spec.subject.topic", "should be a topic"),
    ],
)
def test_what_is_no_trigger_is_refused_with_its_path(spec: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(SpecInvalid) as refused:
        parse(**spec)
    found = [(item.path, item.message) for item in refused.value.problems] or [
        (refused.value.path or "", refused.value.message)
    ]
    assert [place for place, _ in found] == [path]
    assert message in found[0][1]


def findings(**spec: Any) -> dict[str, str]:
    given = TriggerSpec.model_validate({"workflow": "report", **spec})
    return {item.path: item.message for item in validate_trigger(given)}


@pytest.mark.parametrize(
    "spec",
    [
        {"schedule": NIGHTLY, "input": {"day": "{{ trigger.scheduled_at }} {{ trigger.name }}"}},
        {"schedule": {**NIGHTLY, "start_at": "2026-01-01T00:00:00Z"}, "labels": {"team": "a"}},
        {"subject": {"topic": ">"}, "input": "{{ trigger.message }}"},
        {"subject": {"topic": "a.*.>", "filter": "message.total > 100", "dedupe": "{{ message.id }}"}},
        {"subject": ORDERS, "input": "{{ trigger | tojson }}"},
    ],
)
def test_a_sound_trigger_has_no_findings(spec: dict[str, Any]) -> None:
    assert findings(**spec) == {}


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"schedule": {"cron": "0 25 * * *"}}, "spec.schedule.cron", "bad hour"),
        ({"schedule": {**NIGHTLY, "timezone": "Berlin"}}, "spec.schedule.timezone", "is no time zone"),
        (
            {"schedule": {**NIGHTLY, "start_at": "2026-01-02T00:00:00Z", "end_at": "2026-01-01T00:00:00Z"}},
            "spec.schedule.end_at",
            "there is no time of this schedule until then",
        ),
        (
            {"schedule": {**NIGHTLY, "start_at": "9999-12-31T23:59:59-12:00"}},
            "spec.schedule.start_at",
            "there is no time of this schedule from then on",
        ),
        ({"schedule": NIGHTLY, "input": {"a": ["{{ trigger.when }}"]}}, "spec.input.a[0]", "has no 'when' here"),
        ({"schedule": NIGHTLY, "input": "{{ message.x }}"}, "spec.input", "`message` in"),
        ({"schedule": NIGHTLY, "labels": {"trigger": "x"}}, "spec.labels.trigger", "by itself"),
        ({"subject": {"topic": "a", "filter": "message.total >"}}, "spec.subject.filter", "syntax error"),
        ({"subject": {"topic": "a", "filter": "input.total"}}, "spec.subject.filter", "`input` in"),
        ({"subject": {"topic": "a", "filter": "a {{ message }}"}}, "spec.subject.filter", "not a condition"),
        ({"subject": {"topic": "a", "dedupe": "id"}}, "spec.subject.dedupe", "the same for every message"),
        ({"subject": {"topic": "a", "dedupe": "{{ trigger.scheduled_at }}"}}, "spec.subject.dedupe", "has no"),
        ({"subject": ORDERS, "input": {"x": "{{ nope }}"}}, "spec.input.x", "`nope` in"),
    ],
)
def test_what_is_wrong_is_found_with_its_path(spec: dict[str, Any], path: str, message: str) -> None:
    found = findings(**spec)
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("orders", "orders", True),
        ("orders", "orders.new", False),
        ("orders.*", "orders.new", True),
        ("orders.*", "orders", False),
        ("*.new", "orders.new", True),
        ("*.new", "orders.old", False),
        ("orders.>", "orders.new.eu", True),
        ("orders.>", "orders", False),
        (">", "anything.at.all", True),
    ],
)
def test_topics_match_as_subjects_of_nats_do(pattern: str, topic: str, expected: bool) -> None:
    assert topic_matches(pattern, topic) is expected


def test_a_topic_has_a_subject() -> None:
    parsed = subjects.Subject.parse(subjects.intake("acme", "orders.new"))
    assert (parsed.tenant, parsed.kind, parsed.tail) == ("acme", "in", ("orders", "new"))
    with pytest.raises(MalformedMessage, match="in takes 1 to 16 tokens"):
        subjects.Subject.parse(subjects.intake("acme", ".".join(["a"] * 17)))


def test_a_scheduled_run_sees_its_time_in_both_zones() -> None:
    scope = schedule_scope("nightly", datetime(2026, 7, 1, tzinfo=UTC), ZoneInfo("Europe/Berlin"))
    template = ["{{ trigger.name }}", "{{ trigger.scheduled_at }}", "{{ trigger.scheduled_local }}"]
    assert evaluate(template, scope) == ["nightly", "2026-07-01T00:00:00Z", "2026-07-01T02:00:00+02:00"]  # type: ignore[arg-type]


def scope_of(message: Any) -> Any:
    return message_scope("t", "orders.new", "msg-1", message)


def test_a_message_is_seen_from_both_sides() -> None:
    template = ["{{ message.n }}", "{{ trigger.message.n }}", "{{ trigger.subject }}", "{{ trigger.id }}"]
    assert evaluate(template, scope_of({"n": 1})) == [1, 1, "orders.new", "msg-1"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message", "expected"),
    [
        (None, 5, True),
        ("{{ message.total > 100 }}", {"total": 101}, True),
        ("message.total > 100", {"total": 100}, False),
        ("message.total | default(0) > 100", {}, False),
    ],
)
def test_a_filter_lets_some_messages_in(text: str | None, message: Any, expected: bool) -> None:
    assert takes(SubjectSpec(topic="a", filter=text), scope_of(message)) is expected


@pytest.mark.parametrize("message", [{}, [1], None, "text"])
def test_a_filter_that_cannot_be_told_is_an_error(message: Any) -> None:
    with pytest.raises(ExpressionFailed):
        takes(SubjectSpec(topic="a", filter="{{ message.total > 100 }}"), scope_of(message))


def test_keys_tell_messages_apart_by_value_and_type() -> None:
    spec = SubjectSpec(topic="a", dedupe="{{ message.id }}")
    values: list[Any] = ["1", 1, True, {"a": 1, "b": 2}, "x" * 1_000, "y" * 1_000]
    keys = [dedupe_key(spec, scope_of({"id": value})) for value in values]
    assert len(set(keys)) == len(values)
    assert all(key is not None and len(key) <= 200 for key in keys)
    assert dedupe_key(spec, scope_of({"id": {"b": 2, "a": 1}})) == keys[3]
    assert dedupe_key(SubjectSpec(topic="a"), scope_of({})) is None


@pytest.mark.parametrize("message", [{}, {"id": None}])
def test_a_key_that_is_not_there_is_an_error(message: Any) -> None:
    with pytest.raises(ExpressionFailed):
        dedupe_key(SubjectSpec(topic="a", dedupe="{{ message.id }}"), scope_of(message))
