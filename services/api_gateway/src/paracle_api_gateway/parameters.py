"""Parameters of queries: one that there is not is refused. Who misspells a filter must not be given everything."""

from __future__ import annotations

from typing import Final

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params

from paracle_domain.errors import InvalidInput, quote
from paracle_domain.names import suggest

_ELSEWHERE: Final = (params.Path, params.Header, params.Cookie)


async def require_known(request: Request) -> None:
    """Refuse a parameter that the route does not take.

    Raises
    ------
    InvalidInput
        Naming it, and what was probably meant.
    """
    if not request.query_params:
        return
    taken = get_flat_params(request.scope["route"].dependant)  # those of the path and of headers, too
    known = sorted(field.alias for field in taken if not isinstance(field.field_info, _ELSEWHERE))
    for name in request.query_params:
        if name not in known:
            raise InvalidInput(f"there is no parameter {quote(name)}{suggest(name, known)}", path=f"query.{name}")
