"""What failures mean, and when they are tried again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from paracle_domain.errors import ContextExceeded, ParacleError
from paracle_provider_gateway.faults import Origin, retry_after
from paracle_provider_gateway.retries import RetryPolicy

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "soon"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None):
    assert retry_after(headers, NOON) == seconds


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("context_length_exceeded", "This model's maximum context length is 8192 tokens."),
        ("invalid_request_error", "prompt is too long: 210001 tokens > 200000 maximum"),
        ("exceed_context_size_error", "the request exceeds the available context size, try increasing it"),
        ("INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum number of tokens allowed"),
    ],
)
def test_a_prompt_that_is_too_long_is_an_error_of_its_own(code: str, message: str):
    body = {"error": {"code": code, "message": message}}
    origin = Origin("p", "K")
    assert isinstance(origin.from_status(400, body, {}), ContextExceeded)
    assert isinstance(origin.from_event(body), ContextExceeded)
    assert not isinstance(
        origin.from_status(400, {"error": {"message": "max_tokens is too large"}}, {}), ContextExceeded
    )


@given(st.integers(400, 599), st.text(), st.text())
def test_no_status_shows_a_key_and_every_one_is_an_error(status: int, code: str, message: str):
    key = "hush-hush-secret"
    body = {"error": {"code": code, "message": f"{message}{key}{message}"}}
    error = Origin("openai", "OPENAI_API_KEY", (SecretStr(key),)).from_status(status, body, {})
    assert isinstance(error, ParacleError)
    assert key not in str(error)
    assert error.message.startswith("openai: ")


@pytest.mark.parametrize("body", [None, "plain words", [1], {"error": "words"}, {"message": "bare"}, {"error": None}])
def test_error_bodies_of_any_shape_are_understood(body: object):
    assert "HTTP 500" in Origin("p", "K").from_status(500, body, {}).message


@given(st.integers(1, 20), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 100))
def test_waits_grow_within_bounds_and_never_undercut_the_provider(nth: int, draw: float, asked: float | None):
    policy = RetryPolicy()
    wait = policy.pause(nth, asked, draw)
    assert (asked or 0) <= wait <= (asked or 0) + min(policy.cap_s, policy.base_s * 2 ** (nth - 1))
