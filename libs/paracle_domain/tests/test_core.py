"""Ids, subjects, envelopes, errors, messages and plans: the values that everything is written in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from run_driver import plan
from ulid import ULID

from paracle_domain import subjects
from paracle_domain.catalog import complete_catalog
from paracle_domain.envelope import Context, Envelope, read_roles
from paracle_domain.errors import (
    BY_CODE,
    Finding,
    InternalError,
    MalformedMessage,
    NotFound,
    ParacleError,
    RateLimited,
    SpecInvalid,
    field_path,
    from_info,
    from_problem,
    from_validation,
    quote,
)
from paracle_domain.ids import KINDS, derive_id, id_from_key, is_id, new_id, parse_id, ulid_time_ms
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import Decision, EarlierEvent, EventRecord, encode_page, fold
from paracle_domain.messages import CATALOG, Command, Encoded, Message, Request
from paracle_domain.plan import Plan, digest_of
from paracle_domain.registry import changed_subject
from paracle_domain.run.commands import (
    CancelRun,
    ForkRun,
    GetRun,
    ListApprovals,
    ListRuns,
    RunStatus,
    RunView,
    SignalRun,
    StartRun,
    StepStatus,
)
from paracle_domain.run.events import RunCompleted
from paracle_domain.subjects import Subject
from paracle_domain.task.messages import TaskResult
from paracle_domain.trigger.commands import FireTrigger, PauseTrigger

kinds = st.sampled_from(sorted(KINDS))
tokens = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


class TestIds:
    @given(kinds)
    def test_new_ids_are_well_formed_ulids_with_a_prefix(self, kind: Any) -> None:
        made = new_id(kind)
        assert is_id(made)
        assert is_id(made, kind)
        assert str(ULID.from_str(made.rpartition("_")[2])) == made.rpartition("_")[2]

    @given(kinds, st.lists(st.text(), max_size=3))
    def test_derived_ids_repeat_themselves_and_keep_the_time(self, kind: Any, parts: list[str]) -> None:
        root = new_id("run")
        made = derive_id(kind, root, *parts)
        assert made == derive_id(kind, root, *parts)
        assert is_id(made, kind)
        assert ulid_time_ms(made) == ulid_time_ms(root)
        assert made != derive_id(kind, root, *parts, "x")

    def test_parts_do_not_run_together(self) -> None:
        root = new_id("run")
        assert derive_id("task", root, "ab", "c") != derive_id("task", root, "a", "bc")

    @given(st.text(), st.integers(0, 2**47))
    def test_a_key_names_one_thing(self, key: str, time_ms: int) -> None:
        made = id_from_key("run", key, time_ms)
        assert made == id_from_key("run", key, time_ms)
        assert is_id(made, "run")
        assert ulid_time_ms(made) == time_ms

    @pytest.mark.parametrize(
        "text", ["", "run_", "run_01", "nope_01J00000000000000000000000", "run_01j00000000000000000000000"]
    )
    def test_what_is_no_id(self, text: str) -> None:
        assert not is_id(text)


class TestSubjects:
    @given(tokens, tokens, tokens, tokens)
    def test_what_is_built_can_be_taken_apart(self, tenant: str, one: str, two: str, three: str) -> None:
        for text in (
            subjects.cmd(tenant, one, two),
            subjects.rpc(tenant, one, two),
            subjects.task(tenant, one),
            subjects.result(tenant, one),
            subjects.results(tenant),
            subjects.evt(tenant, one, two, three),
            subjects.out(tenant, one),
            subjects.dlq(tenant, one),
            changed_subject(tenant),
        ):
            parsed = Subject.parse(text)
            assert str(parsed) == text
            assert parsed.tenant == subjects.tenant_of(text) == tenant
            assert subjects.is_subject(text)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("foo", "no subject"),
            ("paracle.v2.t.cmd.a.b", "no subject"),
            ("paracle.v1.t.nope.a", "known are"),
            ("paracle.v1.t.cmd.a", "takes 2 tokens"),
            ("paracle.v1.t.task.*", "takes 1 tokens"),
            (f"paracle.v1.{'t' * 65}.task.a", "takes 1 tokens"),
        ],
    )
    def test_what_is_no_subject(self, text: str, why: str) -> None:
        assert not subjects.is_subject(text)
        with pytest.raises(MalformedMessage, match=why):
            Subject.parse(text)

    def test_events_are_kept_under_their_kind_and_others_as_they_are(self) -> None:
        assert subjects.kept_as(subjects.evt("acme", "run", "run_1", "started")) == "paracle.v1.acme.evt.run._.started"
        assert subjects.kept_as(subjects.task("acme", "agents")) == "paracle.v1.acme.task.agents"

    def test_tokens(self) -> None:
        assert subjects.is_token("acme-1")
        assert not subjects.is_token("acme.1")

    @given(
        st.sampled_from(["$JS.API.STREAM.PURGE.", "$SYS.", "$O.", "paracle.v1.acme.cmd.", "paracle.internal."]),
        st.text(),
    )
    def test_no_answer_goes_to_where_it_would_be_an_order(self, where: str, rest: str) -> None:
        assert not subjects.takes_answers(where + rest)
        found = Envelope.read({"paracle-reply-to": where + rest}, tenant="acme", default_id="x", default_type="y")
        assert found.reply_to is None

    def test_no_answer_goes_to_what_is_too_long_for_a_line(self) -> None:
        longest = "x" * subjects.MOST_INBOX
        assert subjects.takes_answers(longest)
        assert not subjects.takes_answers(longest + "x")

    def test_answers_go_to_inboxes(self) -> None:
        assert not subjects.takes_answers("")
        for inbox in ("_INBOX.x.1", "_INBOX_acme.x", "_R_.x", "mine", "paracles"):
            assert subjects.takes_answers(inbox)
            headers = {"Paracle-Reply-To": inbox}
            assert Envelope.read(headers, tenant="acme", default_id="x", default_type="y").reply_to == inbox


kept = st.characters(codec="utf-8", exclude_characters="\x00")


def _block(headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


class TestEnvelope:
    @given(
        tenant=tokens,
        principal=st.text(kept, min_size=1),
        correlation=st.none() | st.text(kept),
        reply=st.none() | st.text(kept, min_size=1).filter(subjects.takes_answers),
        roles=st.lists(tokens, unique=True).map(tuple),
    )
    def test_headers_come_back(
        self, tenant: str, principal: str, correlation: str | None, reply: str | None, roles: tuple[str, ...]
    ) -> None:
        context = Context(tenant, principal, correlation, "msg_x", "00-abc", roles)
        sent = Envelope("msg_1", "task", "paracle/orchestrator", context, datetime(2026, 1, 1, tzinfo=UTC), reply)
        assert Envelope.read(sent.headers(), tenant=tenant, default_id="x", default_type="y") == sent

    @pytest.mark.parametrize("reply", [None, "_INBOX.a"])
    @pytest.mark.parametrize("roles", [(), ("finance", "lead")])
    def test_a_block_of_headers_that_a_service_wrote_is_read_at_once(
        self, roles: tuple[str, ...], reply: str | None
    ) -> None:
        context = Context("acme", "Ada L.", "run_1", "msg_x", "00-abc", roles)
        sent = Envelope("msg_1", "task", "paracle/orchestrator", context, datetime(2026, 1, 1, tzinfo=UTC), reply)
        assert Envelope.scan(_block(sent.headers()), tenant="acme") == sent

    @pytest.mark.parametrize("more", [{"ce-source": " here"}, {"ce-source": "a\x00b"}, {"other": "1"}])
    def test_any_other_block_is_read_name_by_name(self, more: dict[str, str]) -> None:
        sent = Envelope.wrap("task", "here", Context("acme"))
        assert Envelope.scan(_block(sent.headers() | more), tenant="acme") is None

    def test_a_bare_message_is_a_full_citizen(self) -> None:
        found = Envelope.read(None, tenant="acme", default_id="COMMANDS.7", default_type="start_run")
        assert (found.id, found.type, found.source) == ("COMMANDS.7", "start_run", "client")
        assert found.context == Context("acme")

    def test_a_deduplication_id_is_an_id(self) -> None:
        found = Envelope.read({"Nats-Msg-Id": "k"}, tenant="acme", default_id="x", default_type="y")
        assert found.id == "k"

    @pytest.mark.parametrize(
        ("text", "roles"),
        [("finance", ("finance",)), (" finance ,, lead,finance", ("finance", "lead")), ("", ()), (" , ", ())],
    )
    def test_roles_are_read_as_people_write_them(self, text: str, roles: tuple[str, ...]) -> None:
        found = Envelope.read({"paracle-roles": text}, tenant="acme", default_id="x", default_type="y")
        assert found.context.roles == roles
        assert read_roles(text) == roles

    def test_what_a_database_cannot_keep_is_replaced(self) -> None:
        found = Envelope.read({"Nats-Msg-Id": "a\x00b"}, tenant="acme", default_id="x", default_type="y")
        assert found.id == "a\ufffdb"

    def test_a_time_that_is_none_is_left_out(self) -> None:
        found = Envelope.read({"ce-time": "yesterday"}, tenant="acme", default_id="x", default_type="y")
        assert found.time is None

    def test_wrapping_stamps_time_and_id(self) -> None:
        made = Envelope.wrap("task", "here", Context("acme"))
        assert is_id(made.id, "msg")
        assert made.headers()["ce-time"].endswith("Z")
        assert "ce-time" in Envelope("a", "b", "c", Context("acme")).headers()

    def test_a_context_is_handed_on(self) -> None:
        first = Context("acme", "ada", correlation_id="run_1", roles=("finance",))
        assert first.caused_by("msg_1") == Context("acme", "ada", "run_1", "msg_1", roles=("finance",))
        assert first.caused_by("msg_1", "run_2").correlation_id == "run_2"


class TestErrors:
    @given(st.sampled_from(sorted(BY_CODE)), st.text(), st.none() | st.text(min_size=1), st.none() | st.floats(0, 8e4))
    def test_errors_survive_the_wire(self, code: str, text: str, path: str | None, retry: float | None) -> None:
        sent = BY_CODE[code](text, path=path, retry_after_s=retry, problems=[Finding(path="a", message="b")])
        problem = json.loads(json.dumps(sent.to_problem()))
        came = from_problem(problem)
        assert type(came) is type(sent)
        assert (came.message, came.path, came.retry_after_s, came.problems) == (text, path, retry, sent.problems)
        stored = from_info(sent.to_info())
        assert (type(stored), stored.message) == (type(sent), text)

    def test_a_plain_error_is_a_plain_problem(self) -> None:
        assert sorted(NotFound("no such run").to_problem()) == [
            "code",
            "detail",
            "retryable",
            "status",
            "title",
            "type",
        ]

    def test_the_drawn_tree_is_the_tree(self) -> None:
        from paracle_domain import errors

        drawn = errors.__doc__ or ""
        for code, kind in BY_CODE.items():
            if kind is ParacleError:
                continue
            (line,) = [line for line in drawn.splitlines() if f" {kind.__name__} " in line]
            words = line.split()
            assert code in words
            assert str(kind.http_status) in words
            assert ("yes" in words) is kind.retryable

    def test_an_unknown_code_is_internal(self) -> None:
        assert isinstance(from_problem({"code": "made_up"}), InternalError)
        assert isinstance(from_problem({}), InternalError)

    def test_a_message_names_its_place(self) -> None:
        assert str(NotFound("no such run", path="run_id")) == "run_id: no such run"
        assert str(NotFound("no such run")) == "no such run"
        assert RateLimited.retryable

    def test_several_findings_are_one_error(self) -> None:
        error = SpecInvalid.many("it", [Finding(path="a", message="x"), Finding(path="b", message="y")])
        assert (error.path, error.message) == ("a", "it: x (and 1 more)")
        assert SpecInvalid.many("it", [Finding(path="a", message="x")]).message == "it: x"

    def test_paths_and_quotes(self) -> None:
        assert field_path(("steps", 2, "needs", 0)) == "steps[2].needs[0]"
        assert field_path((0,), "spec") == "spec[0]"
        assert len(quote("x" * 1_000)) < 200
        assert (quote("1"), quote(Decimal("-1.50"))) == ("'1'", "-1.50")

    def test_findings_of_pydantic_name_field_and_value(self) -> None:
        class Sample(BaseModel):
            n: int
            m: int

        with pytest.raises(ValidationError) as caught:
            Sample.model_validate({"n": "many"})
        error = from_validation(caught.value, "sample", root="spec")
        assert [finding.path for finding in error.problems] == ["spec.n", "spec.m"]
        assert "'many'" in error.problems[0].message
        assert "got" not in error.problems[1].message

    def test_what_is_no_id_is_told_how_one_looks(self) -> None:
        with pytest.raises(MalformedMessage, match=r"is no id, such as run_\w+ \(got 'x'\)"):
            GetRun.decode(b'{"run_id": "x"}')

    def test_a_time_without_a_zone_is_told_how_to_name_one(self) -> None:
        with pytest.raises(MalformedMessage, match=r"end it with Z for UTC.*\(got '2026-11-26T09:30'\)"):
            ListRuns.decode(b'{"created_after": "2026-11-26T09:30"}')

    def test_findings_of_our_own_are_said_as_they_are(self) -> None:
        with pytest.raises(MalformedMessage) as caught:
            ListRuns.decode(b'{"workflow": "\\u0000"}')
        assert [found.message[:12] for found in caught.value.problems] == ["it holds the"]


class TestMessages:
    def test_requests_and_commands_know_where_they_go(self) -> None:
        assert (GetRun.service, GetRun.method, GetRun.answer) == ("orchestrator", "get_run", RunView)
        assert (CancelRun.service, CancelRun.verb, CancelRun.type_name) == (
            "orchestrator",
            "cancel_run",
            "orchestrator.cancel_run",
        )
        assert CATALOG["orchestrator.start_run"] is StartRun

    def test_all_that_only_asks_may_be_asked_again(self) -> None:
        """A replica that hangs leaves questions unanswered; whoever adds one says whether it changes something."""
        requests = [kind for kind in complete_catalog().values() if issubclass(kind, Request)]
        asking = ("get_", "list_", "explain_", "resolve_", "find_", "diff_", "query_")
        assert [kind.__name__ for kind in requests if kind.query is not kind.method.startswith(asking)] == []

    def test_one_name_one_message(self) -> None:
        with pytest.raises(TypeError, match="two messages are called"):

            class Impostor(Message, type_name="task"):
                pass

    def test_bases_have_no_name(self) -> None:
        class Base(Message):
            pass

        class Question(Request[Any]):
            pass

        class Order(Command):
            pass

        assert Base.type_name == Question.type_name == Order.type_name == ""

    def test_unknown_fields_are_ignored_and_nulls_inside_values_kept(self) -> None:
        came = StartRun.decode(b'{"workflow":"w","input":{"a":null},"from_the_future":1}')
        assert isinstance(came, StartRun)
        assert came.input == {"a": None}
        assert json.loads(came.encode()) == {"workflow": "w", "input": {"a": None}, "labels": {}, "priority": 0}

    @pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b'{"workflow": 3}', b'{"workflow"'])
    def test_what_is_no_message_says_so(self, body: bytes) -> None:
        with pytest.raises(MalformedMessage, match="start_run"):
            StartRun.decode(body)

    def test_no_message_reads_what_was_none_as_something_else(self) -> None:
        """`None` is not sent, so a field with another default must take it for that default, or keep it."""
        kept = {(name, field) for name, field in _nullable(complete_catalog().values()) if field != "input"}
        assert kept == {("Usage", "cost_usd")}, "let the field take None for its default (Given), or serialize it"
        start = StartRun(workflow="w", input=None)
        assert start.input == {}
        assert StartRun.decode(start.encode()) == StartRun.decode(b'{"workflow":"w","input":null}') == start
        pinned = plan({"id": "a", "input": None})
        assert pinned.workflow.spec.steps[0].input == {}
        assert Plan.decode(pinned.encode()) == pinned
        assert RunCompleted.decode(RunCompleted(usage=Usage(cost_usd=None)).encode()) == RunCompleted(
            usage=Usage(cost_usd=None)
        )

    def test_encoded_messages_are_published_as_they_are(self) -> None:
        assert Encoded(b"{}").encode() == b"{}"


def _nullable(kinds: Iterable[type[BaseModel]]) -> set[tuple[str, str]]:
    """Fields of `kinds`, and of all that they hold, that can be `None` without being so by default."""
    found: set[tuple[str, str]] = set()
    seen: set[type[BaseModel]] = set()

    def look(kind: Any) -> None:
        for part in get_args(getattr(kind, "__value__", kind)):
            look(part)
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)) or kind in seen:
            return
        seen.add(kind)
        for name, field in kind.model_fields.items():
            look(field.annotation)
            if field.get_default(call_default_factory=True) is not None and _takes_none(field.annotation):
                found.add((kind.__name__, name))

    for kind in kinds:
        look(kind)
    return found


def _takes_none(annotation: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_python(None)
    except ValidationError:
        return False
    return True


class TestRecords:
    @given(cause=st.text(), seq=st.integers(1, 10**6))
    def test_an_assembled_record_is_a_record(self, cause: str, seq: int) -> None:
        at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
        alone = encode_page("run", "run_1", seq, [("run.started", b"{}")], at=at, cause=cause, correlation_id="run_1")
        first = EventRecord(
            entity="run", id="run_1", seq=seq, type="run.started", at=at, cause=cause, correlation_id="run_1"
        )
        assert EventRecord.model_validate_json(alone) == first

    @given(cause=st.text(), first=st.integers(1, 10**6), more=st.integers(0, 3))
    def test_events_decided_together_are_one_record(self, cause: str, first: int, more: int) -> None:
        at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
        events = [(f"step.{number}", b'{"n":%d}' % number) for number in range(more + 1)]
        body = encode_page("run", "run_1", first, events, at=at, cause=cause, correlation_id="run_1")
        record = EventRecord.model_validate_json(body)
        assert (record.seq, record.type, record.data) == (first + more, f"step.{more}", {"n": more})
        assert record.earlier == tuple(
            EarlierEvent(seq=first + number, type=f"step.{number}", data={"n": number}) for number in range(more)
        )
        assert [(one.seq, one.type, one.data, one.earlier) for one in record.each()] == [
            (first + number, f"step.{number}", {"n": number}, ()) for number in range(more + 1)
        ]
        assert {(one.id, one.at, one.cause, one.correlation_id) for one in record.each()} == {
            ("run_1", at, cause, "run_1")
        }
        assert EventRecord.together(record.each()) == record

    def test_what_has_no_id_of_its_own_is_told_apart_by_tenant_and_entity(self) -> None:
        def message_id(tenant: str, entity: str, id: str) -> str:
            record = EventRecord(entity=entity, id=id, seq=3, type=f"{entity}.x", at=datetime(2026, 1, 1, tzinfo=UTC))
            return record.message_id(tenant)

        run_id = new_id("run")
        assert message_id("a", "run", run_id) == f"{run_id}.3"
        named = [(tenant, entity, "mail") for tenant in ("a", "b") for entity in ("agent", "tool")]
        assert len({message_id(*who) for who in named}) == len(named)

    def test_folding(self) -> None:
        assert fold(lambda total, number: total + number, 0, [1, 2, 3]) == 6
        assert Decision(6) == Decision(6, (), ())


class TestPlans:
    def test_the_digest_is_of_the_contents(self) -> None:
        assert plan({"id": "a"}).digest == plan({"id": "a"}).digest
        assert plan({"id": "a"}).digest != plan({"id": "b"}).digest

    def test_key_order_does_not_matter(self) -> None:
        assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


@pytest.mark.parametrize("kind", [RunStatus, StepStatus])
def test_terminal_states(kind: Any) -> None:
    open_states = {"queued", "running", "paused", "cancelling", "pending", "waiting"}
    assert {status.value for status in kind if not status.terminal} == open_states & {status.value for status in kind}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize("kind", [StartRun, SignalRun, ForkRun, FireTrigger, TaskResult])
def test_numbers_that_json_cannot_say_again_are_refused(kind: type[Message], number: str) -> None:
    """They would be null in the history, so a run that is replayed would differ from the one that lived."""
    field = {StartRun: "input", SignalRun: "payload", ForkRun: "input", FireTrigger: "message"}.get(kind, "output")
    with pytest.raises(MalformedMessage, match=kind.type_name) as caught:
        kind.decode(f'{{"{field}": [{number}]}}'.encode())
    wrong = {problem.path: problem.message for problem in caught.value.problems}
    assert "too large for a double" in wrong[field]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_times_that_utc_has_no_year_for_are_refused(time: str) -> None:
    with pytest.raises(MalformedMessage, match="UTC has no year for"):
        ListRuns.decode(f'{{"created_after": "{time}"}}'.encode())


def test_times_are_in_utc() -> None:
    found = ListRuns.decode(b'{"created_after": "2026-01-01T02:00:00+02:00"}')
    assert found == ListRuns(created_after=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("kind", "field"), [(ListRuns, "workflow"), (ListApprovals, "approver"), (PauseTrigger, "reason")]
)
def test_text_that_no_database_can_hold_is_refused(kind: type[Message], field: str) -> None:
    with pytest.raises(MalformedMessage, match=r"U\+0000"):
        kind.decode(f'{{"name": "a", "{field}": "a\\u0000"}}'.encode())


def test_messages_that_are_held_for_long_share_the_note_of_what_was_given() -> None:
    sent = [
        TaskResult(task_id=new_id("task"), run_id=new_id("run"), step="a", attempt=1, status="failed") for _ in "ab"
    ]
    bodies, copies = [one.encode() for one in sent], [one.model_copy() for one in sent]
    slim = [one.slim() for one in sent]
    assert slim == sent == copies
    assert [one.encode() for one in slim] == bodies
    assert slim[0].model_fields_set is slim[1].model_fields_set
    changed = slim[0].model_copy(update={"attempt": 2})
    assert (slim[0].attempt, changed.attempt) == (1, 2)
    assert changed.model_fields_set is not slim[0].model_fields_set


def test_ids_are_parsed() -> None:
    run_id = new_id("run")
    assert parse_id(run_id, "run") == run_id
    with pytest.raises(ValueError, match="is no id of kind apr"):
        parse_id(run_id, "apr")


class TestPlainRecords:
    def test_a_record_is_a_value_that_can_be_a_key(self):
        first = Context("acme", "ada", roles=("finance",))
        assert {first: 1}[Context("acme", "ada", roles=("finance",))] == 1
        assert replace(first, tenant="other") != first

    def test_a_record_takes_no_field_that_it_does_not_have(self):
        with pytest.raises(AttributeError):
            Context("acme").colour = "blue"  # type: ignore[attr-defined]
