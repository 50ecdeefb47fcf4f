"""Calls of worker tools on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paracle_domain.tool.calls import DEADLINE, KEY, ToolCall
from paracle_domain.tool.pinning import schema_digest
from paracle_domain.tool.spec import NatsBackend, Permissions

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
TEXTS = st.none() | st.text("abc_-019", min_size=1, max_size=9)


@given(TEXTS, TEXTS, TEXTS, st.none() | st.datetimes(timezones=st.just(UTC)), TEXTS)
def test_a_call_comes_out_as_it_went_in(
    key: str | None, task: str | None, run: str | None, at: datetime | None, who: str | None
) -> None:
    call = ToolCall("add", "acme", key, task, run, at, who)
    upper = {name.upper(): value for name, value in call.headers().items()}
    assert ToolCall.read(call.subject, upper) == call
    assert call.subject == "paracle.v1.acme.rpc.tools.add"


def test_a_deadline_is_told_in_utc() -> None:
    call = ToolCall("add", "acme", deadline_at=NOW.astimezone(timezone(timedelta(hours=2))))
    assert call.headers() == {DEADLINE: "2026-11-26T12:00:00Z"}


@pytest.mark.parametrize(
    ("text", "late"), [("2026-11-26T11:59:59", True), ("2026-11-26T12:00:01+00:00", False), ("soon", False)]
)
def test_only_a_deadline_that_is_a_time_can_be_missed(text: str, late: bool) -> None:
    call = ToolCall.read("paracle.v1.acme.rpc.tools.add", {DEADLINE: text})
    assert call.late(NOW) is late


def test_a_bare_message_is_a_call() -> None:
    assert ToolCall.read("paracle.v1.acme.rpc.tools.add", None) == ToolCall("add", "acme")
    assert KEY not in ToolCall("add", "acme").headers()


@pytest.mark.parametrize("tool", ["", "a.b", "*", ">", "a b", "x" * 65, "é", "a\n"])
def test_what_is_no_token_is_no_tool(tool: str) -> None:
    with pytest.raises(ValidationError):
        NatsBackend(tool=tool)
    with pytest.raises(ValidationError):
        Permissions(workers=(tool,))


def test_a_digest_tells_schemas_apart_and_not_their_order() -> None:
    assert schema_digest({"a": 1, "b": 2}, None) == schema_digest({"b": 2, "a": 1}, None)
    assert len({schema_digest({}, None), schema_digest({}, {}), schema_digest({"a": 1}, None)}) == 3


def test_a_token_is_a_tool() -> None:
    assert NatsBackend(tool="add-2").tool == "add-2"
    assert Permissions(workers=("Add", "b_c")).workers == ("Add", "b_c")
