"""Messages as they go over the wire."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_chassis import frames
from paracle_chassis.bus import Outgoing
from paracle_chassis.inlet import Incoming, read_headers
from paracle_chassis.wires import Wire, to_wire
from paracle_domain.envelope import PRINCIPAL, TRACEPARENT, Context, Envelope
from paracle_domain.errors import PayloadTooLarge
from paracle_domain.messages import Encoded

_MOST = 1024 * 1024
_FULL = Envelope(
    "msg_1",
    "note",
    "here",
    Context("acme", "Ada: L.", "run_1", "msg_0", "00-now", ("lead", "finance")),
    datetime(2026, 1, 1, tzinfo=UTC),
    "_INBOX.a",
).headers()


def wired(context: Context, traceparent: str | None = None) -> Wire:
    message = Outgoing("a.b", Encoded(b"{}"), Envelope("msg_1", "note", "here", context), "a.together")
    nobody: Any = None  # what is small is not put away
    return asyncio.run(to_wire(message, nobody, _MOST, traceparent))


def test_the_block_says_all_headers_and_who_sends_them():
    wire = wired(Context("acme", "ada", "run_1", "msg_0", "00-before"), "00-now")
    assert read_headers(wire.head) == wire.headers
    assert wire.headers[TRACEPARENT] == "00-now"
    assert (wire.subject, wire.body, wire.joins) == ("a.b", b"{}", "a.together")


def test_without_a_span_the_message_stays_in_that_of_its_story():
    assert wired(Context("acme", traceparent="00-before")).headers[TRACEPARENT] == "00-before"


def test_headers_that_no_stream_takes_are_refused():
    with pytest.raises(PayloadTooLarge, match="say it in the body instead"):
        wired(Context("acme", "a" * 70_000))


def read(head: bytes) -> Envelope:
    return Envelope.read(read_headers(head), tenant="acme", default_id="x", default_type="y")


@given(left_out=st.sets(st.sampled_from(list(_FULL)[7:])), value=st.text("aé7: .", min_size=1).map(str.strip))
def test_what_a_service_wrote_is_read_at_a_glance(left_out: set[str], value: str) -> None:
    said = {name: text for name, text in _FULL.items() if name not in left_out} | {PRINCIPAL: value or "ada"}
    head = frames.head_of(said)
    assert Envelope.scan(head, tenant="acme") == read(head)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*_FULL, "Ce-Id", "other"]),
            st.sampled_from([": ", ":", " : ", ":  ", ""]),
            st.sampled_from(
                ["a", "b c", "", " a", "a ", "a\r", "a\rb", "a\x00", "\u2003a", "a: b", "$JS.a", *_FULL.values()]
            ),
            st.sampled_from(["\r\n", "\r\n", "\n", "\r", "\r\n\r\n"]),
        )
    ),
    st.sampled_from(["NATS/1.0\r\n", "NATS/1.0 503\r\n", ""]),
)
def test_what_others_wrote_is_not_mistaken_for_it(lines: list[tuple[str, ...]], first: str) -> None:
    head = (first + "".join(map("".join, lines)) + "\r\n").encode()
    assert Envelope.scan(head, tenant="acme") in (None, read(head))


@pytest.mark.parametrize("value", [" ada", "ada ", "\u2003ada", "a\x00a", "ada\r", "a\na", "", "ada\r\nother: 1"])
@pytest.mark.parametrize("name", _FULL)
def test_what_has_to_be_mended_is_read_name_by_name(name: str, value: str) -> None:
    head = frames.head_of(_FULL).replace(f"{name}: {_FULL[name]}".encode(), f"{name}: {value}".encode())
    assert Envelope.scan(head, tenant="acme") is None


@pytest.mark.parametrize(
    "message", [Incoming("a", "", b"", b"NATS/1.0\r\nwho: ada\r\n\r\n"), Incoming("a", "", b"", headers={"who": "ada"})]
)
def test_a_message_has_the_headers_that_it_came_with(message: Incoming) -> None:
    assert message.has("who")
    assert not message.has("ada")
    assert not message.has("when")
