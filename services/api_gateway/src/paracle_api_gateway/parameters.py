"""Parameters of queries: one that there is not is refused. Who misspells a filter must not be given everything.

So is one that is given twice and counts once: who contradicts himself must not be given what he said last.
"""

from __future__ import annotations

from typing import Final

from fastapi import Request, params
from fastapi._compat import field_annotation_is_sequence
from fastapi.dependencies.utils import get_flat_params

from paracle_domain.errors import InvalidInput, quote
from paracle_domain.names import suggest

_ELSEWHERE: Final = (params.Path, params.Header, params.Cookie)


async def require_known(request: Request) -> None:
    """Refuse a parameter that the route does not take, or not so often.

    Raises
    ------
    InvalidInput
        Naming it, and what was probably meant.
    """
    if not request.query_params:
        return
    taken = get_flat_params(request.scope["route"].dependant)  # those of the path and of headers, too
    known = {field.alias: field.field_info for field in taken if not isinstance(field.field_info, _ELSEWHERE)}
    for name in request.query_params:
        if name not in known:
            raise InvalidInput(f"there is no parameter {quote(name)}{suggest(name, known)}", path=f"query.{name}")
        times = len(request.query_params.getlist(name))
        if times > 1 and not field_annotation_is_sequence(known[name].annotation):
            raise InvalidInput(f"{quote(name)} is given {times} times; it counts once", path=f"query.{name}")
