"""What has a field that there is not is refused, with its path and what was probably meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paracle_domain.dead_letters import RedriveDeadLetters
from paracle_domain.errors import InvalidInput
from paracle_domain.exactness import require_known
from paracle_domain.messages import Message
from paracle_domain.run.commands import CancelRuns


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (RedriveDeadLetters, {"which": {"code": "conflict"}, "limit": 7}),
        (CancelRuns, {"filter": {"labels": {"any": "name"}}}),
    ],
)
def test_only_what_is_beside_the_known_fields_is_refused(kind: type[Message], given: dict[str, Any]) -> None:
    """What users name themselves is no field."""

    def refused(body: dict[str, Any]) -> str | None:
        encoded = json.dumps(body).encode()
        try:
            require_known(encoded, kind.decode(encoded))
        except InvalidInput as error:
            return error.path
        return None

    assert [refused(given), refused({**given, "another": 1})] == [None, "another"]


@pytest.mark.parametrize(
    ("given", "path", "means"),
    [
        ({"which": {"cdoe": "conflict"}}, "which.cdoe", "did you mean 'code'?"),
        ({"limt": 7}, "limt", "did you mean 'limit'?"),
        ({"labels": {"code": "conflict"}}, "labels", "known: after, limit, which"),
    ],
)
def test_what_has_another_is_refused(given: dict[str, Any], path: str, means: str) -> None:
    body = json.dumps(given).encode()
    with pytest.raises(InvalidInput) as caught:
        require_known(body, RedriveDeadLetters.decode(body))
    assert caught.value.path == path
    assert means in caught.value.message
