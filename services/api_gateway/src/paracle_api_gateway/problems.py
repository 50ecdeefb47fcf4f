"""Every error as an RFC 9457 problem: our tree, what FastAPI finds wrong, unknown routes, and bugs."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from paracle_domain.errors import (
    Finding,
    Forbidden,
    InternalError,
    InvalidInput,
    NotFound,
    ParacleError,
    findings_of,
    quote,
)

MEDIA_TYPE: Final = "application/problem+json"
log = logging.getLogger(__name__)


class MethodNotAllowed(InvalidInput):
    """A path that exists, asked with a method that it does not have."""

    http_status = 405


class NotAcceptable(InvalidInput):
    """An answer was asked for in a form in which it does not exist."""

    http_status = 406


class UnsupportedMediaType(InvalidInput):
    """A body that says to be something else than what is taken here."""

    http_status = 415


class MisdirectedRequest(Forbidden):
    """A request by a name that this server does not go by."""

    http_status = 421


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it. `code` is stable; `detail` says what to do."""

    type: str = Field(examples=["urn:paracle:error:not_found"])
    title: str = Field(examples=["not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no workflow 'triage'; `paracle get workflows` lists those that there are"])
    code: str = Field(examples=["not_found"])
    retryable: bool = Field(default=False, description="Whether the same request may succeed later.")
    instance: str | None = Field(default=None, description="Id of the request, as in the logs.")
    path: str | None = Field(
        default=None, description="Path of the offending field.", examples=["spec.steps[2].needs[0]"]
    )
    problems: list[Finding] = Field(default=[], description="Every finding, if there are several.")
    retry_after_s: float | None = Field(default=None, description="Seconds to wait before trying again.")
    details: dict[str, str] = Field(default={}, description="What it is about, for programs.")


_MEANING: Final = {
    400: "The body is not UTF-8, or not JSON.",
    402: "A budget is used up.",
    403: "Not allowed.",
    404: "There is no such thing.",
    406: "The answer does not exist in that form.",
    409: "It is there already with other contents, or its state does not allow this.",
    413: "The body is larger than the limit.",
    415: "The body has a content type that is not taken here.",
    421: "The server does not go by the name in `Host`.",
    422: "A value is not acceptable; `path` and `problems` say which and why.",
    429: "Too much is asked; `retry_after_s` says when there is room again.",
    500: "A bug; the log has the details under the request's id.",
    502: "Whoever answers model calls failed; `detail` says how.",
    503: "A part of Paracle is not there at the moment; try again.",
    504: "No answer in time; try again.",
}
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ANY: Final = frozenset({403, 421, 422, 500, 503, 504})
"""What any operation may answer, whoever calls it, and whatever for."""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an operation may answer with (besides those that any may), for OpenAPI."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": _MEANING[status], "content": {MEDIA_TYPE: schema}}
        for status in sorted({*statuses, *_ANY})
    }


def problem_response(error: ParacleError, request_id: str | None, headers: Mapping[str, str] | None = None) -> Response:
    """`error` as an HTTP answer."""
    body = error.to_problem() | {"status": error.http_status}
    if request_id:
        body["instance"] = f"urn:paracle:request:{request_id}"
    found = dict(headers or {})
    if error.retry_after_s is not None:
        found["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(text, error.http_status, found, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let every error of `app` leave as a problem."""
    app.add_exception_handler(ParacleError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


async def _bug(request: Request, error: Exception) -> Response:
    """The answer to a bug: nothing of it leaves but the id under which it is logged."""
    request_id = request_id_of(request)
    log.error("unexpected error", exc_info=error)
    hidden = InternalError(f"something went wrong in the API; its log has the details under request id {request_id}")
    return problem_response(hidden, request_id)


def request_id_of(request: Request) -> str | None:
    """The id that the edge gave `request`."""
    return request.scope.get("paracle.request_id")


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, ParacleError)
    if error.http_status >= 500:
        log.warning("request failed", extra={"request_id": request_id_of(request), "error": error.code})
    return problem_response(error, request_id_of(request))


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    findings = findings_of(error.errors())
    wrong = InvalidInput.many((findings[0].path or "").partition(".")[2] or "request", findings)
    return problem_response(wrong, request_id_of(request))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem_response(_named(request, error), request_id_of(request), headers)


def _named(request: Request, error: HTTPException) -> ParacleError:
    where = f"{request.method} {request.url.path}"
    match error.status_code:
        case 404:
            return NotFound(f"there is nothing at {quote(request.url.path)}; /docs lists what there is")
        case 405:
            return MethodNotAllowed(f"{where}: this path takes {_allowed(request)}")
        case _:
            return InvalidInput(f"{where}: {error.detail}")


def _allowed(request: Request) -> str:
    """The methods that any route of the path takes; Starlette names only those of the first."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(takes, _METHODS))
