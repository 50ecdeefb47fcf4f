"""Messages as they go over the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from paracle_chassis.bus import Outgoing
from paracle_chassis.inlet import read_headers
from paracle_chassis.wires import Wire, to_wire
from paracle_domain.envelope import TRACEPARENT, Context, Envelope
from paracle_domain.errors import PayloadTooLarge
from paracle_domain.messages import Encoded

_MOST = 1024 * 1024


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
