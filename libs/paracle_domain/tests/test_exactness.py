"""What has a field that there is not is refused, with its path and what was probably meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paracle_domain.dead_letters import RedriveDeadLetters
from paracle_domain.errors import InvalidInput
from paracle_domain.exactness import require_known
from paracle_domain.run.commands import CancelRuns


def test_what_has_known_fields_alone_is_taken() -> None:
    body = b'{"which": {"code": "conflict"}, "limit": 7}'
    require_known(body, RedriveDeadLetters.decode(body))
    labels = b'{"filter": {"labels": {"any": "name"}}}'
    require_known(labels, CancelRuns.decode(labels))


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
