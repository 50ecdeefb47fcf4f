"""What routes share: the way to the services, names in paths, and answers that are messages."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Depends, Header, Path, Request, Response
from pydantic import BaseModel

from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.ids import id_from_key, is_id, new_id
from paracle_domain.messages import HIGHEST, Command, Message
from paracle_domain.run.commands import RunAccepted

JSON = "application/json"
RUN_PATTERN: Final = r"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"
NAME_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,62}$"
# Numbers are looked for in columns of these widths: a larger one is no number of anything.
MAX_NUMBER: Final = HIGHEST
MAX_POSITION: Final = 2**63 - 1
_BODY_REF: Final = "#/components/schemas/"

NamePath = Annotated[str, Path(pattern=NAME_PATTERN, description="Name of the manifest.", examples=["triage"])]
RunPath = Annotated[
    str,
    Path(
        pattern=RUN_PATTERN,
        description="Id of the run.",
        examples=["run_01JDZ7T6C4W2V9M3N5K8Q0XHRB"],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key does it once, however often it is sent; with another request it is a conflict.",
        examples=["order-4711"],
    ),
]
LOCATED: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "description": "Accepted.",
        "headers": {"Location": {"description": "Where the run is.", "schema": {"type": "string"}}},
    }
}


def get_bus(request: Request) -> Bus:
    """The way to the other services."""
    bus: Bus = request.app.state.bus
    return bus


TheBus = Annotated[Bus, Depends(get_bus)]


def answer[M: Message](message: M, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`message` as the body, encoded once."""
    return Response(message.encode(), status, headers, JSON)


def body_of(kind: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Document a body that the handler reads itself, to hold it to limits and name positions."""
    content = {"application/json": {"schema": {"$ref": _BODY_REF + kind.__name__}}}
    return {"requestBody": {"required": required, "content": content}}


def run_id_of(call: Context, key: str | None) -> str:
    """The run's id is fixed here, so that sending the command again can never start a second run.

    A key that has the form of a run's id is that id: callers may choose it, as those who publish on NATS may.
    """
    if key is None:
        return new_id("run")
    return key if is_id(key, "run") else id_from_key("run", f"{call.tenant}/{key}")


async def order_run(
    request: Request, call: Context, bus: Bus, command: Command, *, id: str | None = None, located: bool = False
) -> Response:
    """Give `command` to a run: accepted, and for one that begins with it, where it is."""
    accepted = RunAccepted.model_validate(await order(request, call, bus, command, id=id))
    return answer(accepted, 202, {"Location": f"/v1/runs/{accepted.run_id}"} if located else None)


async def order(request: Request, call: Context, bus: Bus, command: Command, *, id: str | None = None) -> Any:
    """Give `command`; what its service answers once it is on disk."""
    patience = request.app.state.settings.api_command_timeout_s
    return await bus.command(command, call, id=id, timeout_s=patience)
