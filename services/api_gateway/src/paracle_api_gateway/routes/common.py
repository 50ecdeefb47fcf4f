"""What routes share: the way to the services, names in paths, and answers that are messages."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Path, Request, Response

from paracle_chassis.bus import Bus
from paracle_domain.messages import Message

JSON = "application/json"
NAME_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,62}$"
# Numbers are looked for in columns of these widths: a larger one is no number of anything.
MAX_NUMBER: Final = 2**31 - 1
MAX_POSITION: Final = 2**63 - 1

NamePath = Annotated[str, Path(pattern=NAME_PATTERN, description="Name of the manifest.", examples=["triage"])]
RunPath = Annotated[
    str,
    Path(
        pattern=r"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$",
        description="Id of the run.",
        examples=["run_01JDZ7T6C4W2V9M3N5K8Q0XHRB"],
    ),
]


def get_bus(request: Request) -> Bus:
    """The way to the other services."""
    bus: Bus = request.app.state.bus
    return bus


TheBus = Annotated[Bus, Depends(get_bus)]


def answer[M: Message](message: M, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`message` as the body, encoded once."""
    return Response(message.encode(), status, headers, JSON)
