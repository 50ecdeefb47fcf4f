"""Looking at manifests: the same questions for each kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import MAX_NUMBER, NamePath, TheBus, answer
from paracle_domain.registry import (
    Applied,
    DeleteManifests,
    ExplainAgent,
    Explanation,
    GetSpec,
    Kind,
    ListRevisions,
    ListSpecs,
    RevisionList,
    SpecKey,
    SpecList,
    SpecView,
)

_KINDS: Final[tuple[Kind, ...]] = ("Agent", "Tool", "Workflow", "Trigger", "Provider", "Model")
_LIVE: Final = frozenset[Kind]({"Trigger", "Provider", "Model"})
"""What these do is worth more looks than their manifests, and has the shorter path."""
type Handler = Callable[..., Awaitable[Response]]


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter()
    for kind in _KINDS:
        _of_kind(routes, kind)
    routes.get(
        "/v1/agents/{name}/explain",
        operation_id="explain_agent",
        summary="Explain an agent",
        tags=["agents"],
        response_model=Explanation,
        responses=documented(404, 422),
    )(explain)
    return routes


def _of_kind(routes: APIRouter, kind: Kind) -> None:
    one = kind.lower()
    base, manifest = (f"/v1/manifests/{one}s", "_manifest") if kind in _LIVE else (f"/v1/{one}s", "")
    routes.get(
        base,
        operation_id=f"list_{one}{manifest}s",
        summary=f"List manifests of {one}s" if manifest else f"List {one}s",
        description=f"The newest revision of every {one}, by name.",
        tags=[f"{one}s"],
        response_model=SpecList,
        responses=documented(422),
    )(_lister(kind))
    routes.get(
        base + "/{name}",
        operation_id=f"get_{one}{manifest}",
        summary=f"Get the manifest of one {one}" if manifest else f"Get one {one}",
        description="The manifest as it was written: its newest revision, or the one given.",
        tags=[f"{one}s"],
        response_model=SpecView,
        responses=documented(404, 422),
    )(_getter(kind))
    routes.get(
        base + "/{name}/revisions",
        operation_id=f"list_{one}_revisions",
        summary=f"List the revisions of one {one}",
        description="Every revision with its author, time and difference from the one before, newest first.",
        tags=[f"{one}s"],
        response_model=RevisionList,
        responses=documented(404, 422),
    )(_historian(kind))
    routes.delete(
        base + "/{name}",
        operation_id=f"delete_{one}",
        summary=f"Delete one {one}",
        description="Take it out, unless others use it. Its revisions are kept, and so are runs that began.",
        tags=[f"{one}s"],
        response_model=Applied,
        responses=documented(404, 422),
    )(_deleter(kind))


def _lister(kind: Kind) -> Handler:
    async def list_specs(
        call: Caller,
        bus: TheBus,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 500,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    ) -> Response:
        return answer(await bus.call(ListSpecs(kind=kind, limit=limit, cursor=cursor), call))

    return list_specs


def _getter(kind: Kind) -> Handler:
    async def get_spec(
        name: NamePath,
        call: Caller,
        bus: TheBus,
        revision: Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="The newest if absent.")] = None,
    ) -> Response:
        return answer(await bus.call(GetSpec(kind=kind, name=name, revision=revision), call))

    return get_spec


def _historian(kind: Kind) -> Handler:
    async def list_revisions(
        name: NamePath,
        call: Caller,
        bus: TheBus,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[
            int | None, Query(ge=1, le=MAX_NUMBER, description="Only revisions older than this one.")
        ] = None,
    ) -> Response:
        return answer(await bus.call(ListRevisions(kind=kind, name=name, limit=limit, before=before), call))

    return list_revisions


def _deleter(kind: Kind) -> Handler:
    async def delete_spec(
        name: NamePath,
        call: Caller,
        bus: TheBus,
        *,
        dry_run: Annotated[bool, Query(description="Only say what would be done.")] = False,
    ) -> Response:
        question = DeleteManifests(specs=(SpecKey(kind=kind, name=name),), dry_run=dry_run)
        return answer(await bus.call(question, call))

    return delete_spec


async def explain(name: NamePath, call: Caller, bus: TheBus) -> Response:
    """The agent with its inheritance resolved, and which ancestor, at which revision, set each field."""
    return answer(await bus.call(ExplainAgent(name=name), call))
