"""Frames of our own making, against a real server and client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ConnectionReconnectingError, MaxPayloadError

from paracle_chassis import frames


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z-]{1,20}", fullmatch=True), st.text(), max_size=5), st.binary(max_size=50)
)
def test_a_frame_says_its_own_length_and_no_value_adds_a_header(headers: dict[str, str], body: bytes) -> None:
    first, _, rest = frames.hpub("a.b", "r", frames.head_of(headers), body).partition(b"\r\n")
    head_size, size = map(int, first.split()[-2:])
    assert len(rest) == size + 2
    assert rest[head_size:] == body + b"\r\n"
    lines = rest[:head_size].split(b"\r\n")
    assert len(lines) == len(headers) + 3
    assert b"\n" not in rest[:head_size].replace(b"\r\n", b"")


@pytest.mark.connected
async def test_frames_arrive_as_messages(nats_client: Client) -> None:
    got = await nats_client.subscribe("frames.*")
    await frames.send(
        nats_client,
        [
            frames.hpub("frames.a", "", frames.head_of({"ce-id": "1", "who": "Ada\r\nevil: yes"}), b"one"),
            frames.hpub("frames.b", "answer.here", frames.head_of({"ce-id": "é"}), b""),
        ],
    )
    first, second = await got.next_msg(5), await got.next_msg(5)
    assert (first.subject, first.data, first.headers) == ("frames.a", b"one", {"ce-id": "1", "who": "Ada evil: yes"})
    assert (second.subject, second.reply, second.data) == ("frames.b", "answer.here", b"")


@pytest.mark.connected
async def test_what_cannot_be_sent_is_said(nats_client: Client) -> None:
    with pytest.raises(MaxPayloadError):
        await frames.send(
            nats_client, [frames.hpub("frames.a", "", frames.head_of({}), bytes(nats_client.max_payload + 1))]
        )
    await nats_client.close()
    with pytest.raises(ConnectionReconnectingError):
        await frames.send(nats_client, [b""])
