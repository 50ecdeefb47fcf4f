from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, ValidationError

from paracle_domain.errors import ErrorInfo, InvalidInput, RateLimited, from_info, from_problem, from_validation
from paracle_domain.wording import hosts_of


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (None, None),
        (2.5, 2.5),
        (-1.0, 0.0),
        (float("nan"), None),
        (float("inf"), 86_400.0),
        (1e30, 86_400.0),
    ],
)
def test_whatever_a_server_asks_to_wait_can_be_waited_for(asked: float | None, kept: float | None) -> None:
    error = RateLimited("slow down", retry_after_s=asked)
    told = [
        error,
        from_problem(error.to_problem()),
        from_info(ErrorInfo(code="rate_limited", message="", retry_after_s=asked)),
    ]
    assert {each.retry_after_s for each in told} == {kept}
    assert ErrorInfo.model_validate_json(error.to_info().model_dump_json()) == error.to_info()
    assert datetime.now(UTC) + timedelta(seconds=kept or 0) >= datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "message", "shown"),
    [
        (None, "it failed", "it failed"),
        ("model", "model 'x' names no provider", "model 'x' names no provider"),
        ("path.run_id", "run_id: is no id", "run_id: is no id"),
        ("url", "url: 'x' is not an address", "url: 'x' is not an address"),
        ("model", "models are asked one by one", "model: models are asked one by one"),
        ("spec.model", "model 'x' names no provider", "spec: model 'x' names no provider"),
        ("a.yaml#2 kind", "kind 'X' is unknown", "a.yaml#2: kind 'X' is unknown"),
        ("a.yaml#2 spec.steps[0]", "step 'd' is empty", "a.yaml#2 spec.steps[0]: step 'd' is empty"),
    ],
)
def test_a_place_is_named_once(path: str | None, message: str, shown: str) -> None:
    assert str(InvalidInput(message, path=path)) == shown


def test_a_field_that_there_is_not_is_told_without_its_value() -> None:
    class Known(BaseModel, extra="forbid"):
        name: str = ""

    with pytest.raises(ValidationError) as wrong:
        Known.model_validate({"nmae": "secret"})
    error = from_validation(wrong.value, "thing", root="spec")
    assert (error.message, error.path) == ("thing: there is no such field", "spec.nmae")


@pytest.mark.parametrize(
    ("urls", "shown"),
    [
        ("nats://127.0.0.1:4222", "127.0.0.1:4222"),
        ("nats://me:secret@a:1, tls://b", "a:1, b"),
        ("me:secret@a:1", "a:1"),
    ],
)
def test_addresses_are_shown_without_who_comes(urls: str, shown: str) -> None:
    assert hosts_of(urls) == shown
