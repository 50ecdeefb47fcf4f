"""The OpenAPI document, and the command that writes it down: `python -m paracle_api_gateway.openapi --write`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from paracle_api_gateway.problems import Problem
from paracle_api_gateway.routes import dead_letters
from paracle_api_gateway.routes.approvals import DecisionRequest
from paracle_api_gateway.routes.budgets import BudgetRequest, RaiseRequest
from paracle_api_gateway.routes.effects import ResolutionRequest
from paracle_api_gateway.routes.many_runs import CancelManyRequest, ResumeManyRequest
from paracle_api_gateway.routes.models import EmbeddingRequest
from paracle_api_gateway.routes.pools import DrainRequest
from paracle_api_gateway.routes.run_orders import CancelRequest, ForkRequest, ReasonRequest, SignalRequest
from paracle_api_gateway.routes.runs import InvokeRequest, RunRequest
from paracle_api_gateway.routes.triggers import FireRequest, PauseRequest

_REF: Final = "#/components/schemas/{model}"
_TAGS: Final = (
    ("manifests", "Putting manifests of every kind in, and taking them out."),
    ("agents", "Agents, and running a single one."),
    ("tools", "Tools."),
    ("workflows", "Workflows, and starting runs of them."),
    ("triggers", "What starts runs by itself: schedules and messages."),
    ("providers", "Who answers model calls, and with which limits and prices."),
    ("models", "Models: names for them, the routes to who answers, and embeddings."),
    ("runs", "Executions of workflows: durable, numbered event by event, accounted for."),
    ("sessions", "Conversations with agents, turn by turn."),
    ("approvals", "What people are asked before runs go on, and what they decide."),
    ("effects", "What tools have done to the world, and what is in doubt."),
    ("pools", "Where tasks wait for workers: who serves them, and stopping one without losing any."),
    ("budgets", "What model calls may use, in money and tokens: for whom, until when, and what happens then."),
    ("deployments", "One model at one provider each: what it may be asked, and whether it is left in peace."),
    ("cache", "Answers of models that are kept for agents which allow it."),
    ("usage", "What model calls used, by any of model, agent, user, project, run and time."),
    ("dead letters", "Messages that could not be handled: why, and what is to become of them."),
    ("health", "For whoever supervises the process."),
)
_BODIES: Final = (
    RunRequest,
    InvokeRequest,
    CancelRequest,
    ReasonRequest,
    SignalRequest,
    ForkRequest,
    DecisionRequest,
    ResolutionRequest,
    PauseRequest,
    FireRequest,
    DrainRequest,
    BudgetRequest,
    RaiseRequest,
    EmbeddingRequest,
    *dead_letters.BODIES,
    CancelManyRequest,
    ResumeManyRequest,
)
SNAPSHOT: Final = Path(__file__).parents[2] / "openapi.json"


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`, with the bodies that handlers read themselves and the problems."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=[{"name": name, "description": told} for name, told in _TAGS],
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            separate_input_output_schemas=False,
        )
        own = [(model, "validation") for model in (Problem, *_BODIES)]
        _, schemas = models_json_schema(own, ref_template=_REF)  # type: ignore[arg-type]  # a list of literals
        known = found.setdefault("components", {}).setdefault("schemas", {})
        known.update(schemas["$defs"])
        app.openapi_schema = found
    return app.openapi_schema


def text_of(app: FastAPI) -> str:
    """The document as it is committed."""
    return json.dumps(document(app), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Print the document, or with `--write` put it where it is committed."""
    from paracle_api_gateway.app import create_routes  # noqa: PLC0415  # the app imports this module

    text = text_of(create_routes())
    if arguments == ["--write"]:
        SNAPSHOT.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {SNAPSHOT.name}\n")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
