"""Putting manifests in."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import JSON_TYPES, YAML_TYPES, read_body, text_of
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import TheBus, answer
from paracle_domain.registry import Applied, ApplyManifests, DeleteManifests

_EXAMPLE: Final = """apiVersion: paracle/v1
kind: Agent
metadata: {name: greeter}
spec:
  instructions: Greet {{ input.name }} in one sentence.
"""
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/yaml": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}
_APPLY_TIMEOUT_S: Final = 30.0

Source = Annotated[
    str, Query(max_length=500, description="What errors call the text: a file's name.", examples=["triage.yaml"])
]
DryRun = Annotated[bool, Query(description="Only say what would be done.")]


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["manifests"])
    routes.post(
        "/v1/manifests",
        operation_id="apply_manifests",
        summary="Apply manifests",
        response_model=Applied,
        responses=documented(400, 409, 413, 415, 422),
        openapi_extra=_BODY,
    )(apply)
    routes.post(
        "/v1/manifests/delete",
        operation_id="delete_manifests",
        summary="Delete manifests",
        response_model=Applied,
        responses=documented(400, 404, 409, 413, 415, 422),
        openapi_extra=_BODY,
    )(delete)
    return routes


async def apply(
    request: Request, call: Caller, bus: TheBus, *, source: Source = "manifest", dry_run: DryRun = False
) -> Response:
    """Put all manifests of the body (YAML, many documents) in, or none of them.

    What changed gets a new revision. A manifest that cannot run is refused with the path of every offending field.
    """
    text = text_of(await read_body(request, YAML_TYPES | JSON_TYPES))
    question = ApplyManifests(text=text, source=source, dry_run=dry_run)
    return answer(await bus.call(question, call, timeout_s=_APPLY_TIMEOUT_S))


async def delete(
    request: Request, call: Caller, bus: TheBus, *, source: Source = "manifest", dry_run: DryRun = False
) -> Response:
    """Take out all that the body (YAML, many documents) names by kind and `metadata.name`, or nothing of it.

    What others still use is refused with the paths at which they do, unless those are in the body, too.
    """
    text = text_of(await read_body(request, YAML_TYPES | JSON_TYPES))
    question = DeleteManifests(text=text, source=source, dry_run=dry_run)
    return answer(await bus.call(question, call, timeout_s=_APPLY_TIMEOUT_S))
