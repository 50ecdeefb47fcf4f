"""Messages that could not be handled: looking at them, sending them out again, giving them up."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import TheBus, answer, body_of
from paracle_domain.dead_letters import (
    DeadLetterFilter,
    DeadLetterPage,
    DeadLettersSettled,
    DeadLetterView,
    DropDeadLetter,
    DropDeadLetters,
    GetDeadLetter,
    ListDeadLetters,
    RedriveDeadLetter,
    RedriveDeadLetters,
)
from paracle_domain.errors import InvalidInput
from paracle_domain.ids import RunId
from paracle_domain.messages import Moment, Plain

LetterPath = Annotated[
    str,
    Path(
        pattern=r"^dead_[0-7][0-9A-HJKMNP-TV-Z]{25}$",
        description="Id of the dead letter.",
        examples=["dead_01JDZ7T6C4W2V9M3N5K8Q0XHRB"],
    ),
]
_MANY_TIMEOUT_S: Final = 60.0
_IDLE_S: Final = 15.0


class SelectRequest(BaseModel):
    """Which dead letters: those that all given fields fit; `all` if there is no field."""

    model_config = ConfigDict(extra="forbid")

    service: Plain | None = Field(default=None, max_length=64, examples=["orchestrator"])
    code: Plain | None = Field(default=None, max_length=64, examples=["malformed_message"])
    run_id: RunId | None = None
    since: Moment | None = None
    until: Moment | None = None
    all: bool = Field(default=False, description="Whether no field is on purpose: every dead letter.")
    limit: int = Field(default=100, ge=1, le=500, description="Most of them at once; `more` says whether to go on.")
    after: str | None = Field(default=None, description="`after` of the answer before, with its `until`.")

    @property
    def which(self) -> DeadLetterFilter:
        """Which are meant; nobody means all of them by leaving something out."""
        found = DeadLetterFilter.model_validate(self, from_attributes=True)
        if found == DeadLetterFilter() and not self.all:
            raise InvalidInput("give a field to choose by, or all: true", path="all")
        return found


class DropRequest(BaseModel):
    """Why a dead letter is given up."""

    model_config = ConfigDict(extra="forbid")

    reason: Plain = Field(min_length=1, max_length=1_000, examples=["from a client that is gone"])


class DropManyRequest(SelectRequest, DropRequest):
    """Which dead letters are given up, and why."""


BODIES: Final = (SelectRequest, DropRequest, DropManyRequest)


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["dead letters"])
    routes.get(
        "/v1/dead-letters",
        operation_id="list_dead_letters",
        summary="List dead letters",
        response_model=DeadLetterPage,
        responses=documented(422),
    )(list_dead_letters)
    routes.get(
        "/v1/dead-letters/{letter_id}",
        operation_id="get_dead_letter",
        summary="Get one dead letter",
        response_model=DeadLetterView,
        responses=documented(404, 422),
    )(get_dead_letter)
    for path, handler, body in (
        ("/v1/dead-letters/redrive", redrive_dead_letters, SelectRequest),
        ("/v1/dead-letters/drop", drop_dead_letters, DropManyRequest),
        ("/v1/dead-letters/{letter_id}/redrive", redrive_dead_letter, None),
        ("/v1/dead-letters/{letter_id}/drop", drop_dead_letter, DropRequest),
    ):
        routes.post(
            path,
            operation_id=handler.__name__,
            summary=handler.__name__.replace("_", " ").capitalize(),
            response_model=DeadLettersSettled,
            responses=documented(400, 404, 413, 415, 422),
            openapi_extra=body_of(body) if body is not None else None,
        )(handler)
    return routes


async def list_dead_letters(
    call: Caller,
    bus: TheBus,
    service: Annotated[Plain | None, Query(max_length=64, description="Only those that this service gave up.")] = None,
    code: Annotated[Plain | None, Query(max_length=64, description="Only those with this error code.")] = None,
    run_id: Annotated[RunId | None, Query(description="Only those of this run.")] = None,
    since: Annotated[Moment | None, Query(description="Only those that were given up then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Only those that were given up before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Messages that could not be handled, newest first."""
    which = DeadLetterFilter(service=service, code=code, run_id=run_id, since=since, until=until)
    return answer(await bus.call(ListDeadLetters(which=which, limit=limit, cursor=cursor), call))


async def get_dead_letter(letter_id: LetterPath, call: Caller, bus: TheBus) -> Response:
    """The message with its headers and its body, and why it could not be handled."""
    return answer(await bus.call(GetDeadLetter(id=letter_id), call))


async def redrive_dead_letter(letter_id: LetterPath, call: Caller, bus: TheBus) -> Response:
    """Publish the message again, where it was published first and with the id that it had."""
    return answer(await bus.call(RedriveDeadLetter(id=letter_id), call, timeout_s=_MANY_TIMEOUT_S))


async def drop_dead_letter(letter_id: LetterPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Give the message up. Who did, and why, stays in the audit log."""
    asked = await read_json(request, DropRequest)
    return answer(await bus.call(DropDeadLetter(id=letter_id, reason=asked.reason), call))


async def redrive_dead_letters(request: Request, call: Caller, bus: TheBus) -> Response:
    """Redrive those that fit, oldest first. With `more`, ask again with `until` and `after` of the answer."""
    asked = await read_json(request, SelectRequest)
    question = RedriveDeadLetters(which=asked.which, limit=asked.limit, after=asked.after)
    return answer(await bus.call(question, call, timeout_s=_MANY_TIMEOUT_S, idle_s=_IDLE_S))


async def drop_dead_letters(request: Request, call: Caller, bus: TheBus) -> Response:
    """Drop those that fit, oldest first. With `more`, ask again with `until` and `after` of the answer."""
    asked = await read_json(request, DropManyRequest)
    question = DropDeadLetters(which=asked.which, reason=asked.reason, limit=asked.limit, after=asked.after)
    return answer(await bus.call(question, call, timeout_s=_MANY_TIMEOUT_S, idle_s=_IDLE_S))
