"""Who calls. Every route that acts takes `Caller`; on whose behalf a request counts is decided here alone.

The API itself authenticates nobody. Whoever can reach it may use every route, as `anonymous` of the tenant that it is
set to, without any role: he decides about no approval that names somebody. Therefore it listens on loopback only,
unless it is told that something in front of it authenticates (`PARACLE_API_ALLOW_UNAUTHENTICATED`). That may say who
calls, in two headers; they are believed only if the API is told to (`PARACLE_API_TRUST_IDENTITY`), and refused
otherwise: whoever sends them would take himself for somebody whom he is not.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.datastructures import Headers

from paracle_domain.envelope import ANONYMOUS, Context, read_roles
from paracle_domain.errors import Forbidden, InvalidInput, quote

PRINCIPAL: Final = "X-Paracle-Principal"
ROLES: Final = "X-Paracle-Roles"
MOST_ROLES: Final = 100
_NAME: Final = re.compile(r"[!-+\--~]{1,200}")


async def caller(request: Request) -> Context:
    """On whose behalf the request is made, and the trace that it belongs to.

    Raises
    ------
    Forbidden
        If the request says who calls, and the API is not to believe that.
    InvalidInput
        If it says so in a way that cannot be meant.
    """
    settings = request.app.state.settings
    principal, roles = _identity(request.headers, trusted=settings.api_trust_identity)
    return Context(
        tenant=settings.tenant,
        principal=principal,
        traceparent=request.scope.get("paracle.traceparent"),
        roles=roles,
    )


Caller = Annotated[Context, Depends(caller)]


def _identity(headers: Headers, *, trusted: bool) -> tuple[str, tuple[str, ...]]:
    principal, roles = _only(headers, PRINCIPAL), _only(headers, ROLES)
    if principal is None and roles is None:
        return ANONYMOUS, ()
    if not trusted:
        raise Forbidden(
            f"this API does not believe {PRINCIPAL} and {ROLES}: set PARACLE_API_TRUST_IDENTITY=true "
            "if only something that authenticates can reach it"
        )
    if principal is None:
        raise InvalidInput(f"{ROLES} says nothing without {PRINCIPAL}", path=PRINCIPAL)
    named = read_roles(roles)
    if len(named) > MOST_ROLES:
        raise InvalidInput(f"more than {MOST_ROLES} roles", path=ROLES)
    return _name(principal, PRINCIPAL), tuple(_name(role, ROLES) for role in named)


def _only(headers: Headers, name: str) -> str | None:
    """The one value of a header. A second one was sent by somebody who hoped that it would count instead."""
    found = headers.getlist(name)
    if len(found) > 1:
        raise InvalidInput(f"{name} is given {len(found)} times; it counts once", path=name)
    return found[0] if found else None


def _name(text: str, header: str) -> str:
    if _NAME.fullmatch(text) is None:
        message = f"{quote(text)} is no name: expected up to 200 visible ASCII characters without comma and space"
        raise InvalidInput(message, path=header)
    return text
