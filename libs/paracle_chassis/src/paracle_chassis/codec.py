"""Answers over RPC: a body, or an error as an RFC 9457 problem."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from paracle_domain import envelope
from paracle_domain.errors import InternalError, ParacleError, from_problem
from paracle_domain.messages import JsonObject, Message

ERROR_HEADER: Final = envelope.ERROR
PROGRESS_HEADER: Final = envelope.PROGRESS
WORKING: Final = envelope.WORKING


def encode_error(error: ParacleError) -> tuple[bytes, dict[str, str]]:
    """Body and headers of `error`."""
    return json.dumps(error.to_problem()).encode(), {ERROR_HEADER: error.code}


def decode_error(body: bytes, headers: Mapping[str, str] | None) -> ParacleError | None:
    """The error that an answer is; `None` if it is none."""
    if not headers or ERROR_HEADER not in headers:
        return None
    try:
        problem = json.loads(body)
    except ValueError:
        return InternalError(f"an answer with an unreadable error ({headers[ERROR_HEADER]!r})")
    return from_problem(problem)


def encode_answer(answer: Message | JsonObject | ParacleError, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a command's answer; `more` are members added to a successful one."""
    if isinstance(answer, ParacleError):
        return encode_error(answer)
    data = answer.model_dump(mode="json", exclude_none=True) if isinstance(answer, Message) else dict(answer)
    return json.dumps({**data, **more}).encode(), {}


def internal(service: str) -> InternalError:
    """What a caller is told of an unexpected exception: where its details are, not what they are."""
    return InternalError(f"{service} failed unexpectedly; its log has the details")


def read_answer(body: bytes, headers: Mapping[str, str] | None) -> JsonObject:
    """A command's answer; raises the error that it is, if it is one."""
    if (error := decode_error(body, headers)) is not None:
        raise error
    found: JsonObject = json.loads(body)
    return found
