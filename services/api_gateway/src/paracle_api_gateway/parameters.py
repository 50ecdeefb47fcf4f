"""Parameters of queries: one that there is not is refused. Who misspells a filter must not be given everything.

So is one that is given twice and counts once, also a header: who contradicts himself must not be given what he said
last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args, get_origin

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params

from paracle_domain.errors import InvalidInput, quote
from paracle_domain.names import suggest

_ELSEWHERE: Final = (params.Path, params.Header, params.Cookie)
_LIST: Final = "accept"
"""The one header of ours that is a list, which HTTP lets be sent in several lines."""


async def require_known(request: Request) -> None:
    """Refuse a parameter that the route does not take, or not so often.

    Raises
    ------
    InvalidInput
        Naming it, and what was probably meant.
    """
    taken = get_flat_params(request.scope["route"].dependant)  # those of the path, too
    for field in taken:
        if isinstance(field.field_info, params.Header) and field.alias != _LIST:
            given = request.headers.getlist(field.alias)
            if len(given) > 1:
                raise _repeated(field.alias, given, "header")
    if not request.query_params:
        return
    known = {field.alias: field.field_info for field in taken if not isinstance(field.field_info, _ELSEWHERE)}
    for name in request.query_params:
        if name not in known:
            raise InvalidInput(f"there is no parameter {quote(name)}{suggest(name, known)}", path=f"query.{name}")
        given = request.query_params.getlist(name)
        if len(given) > 1 and not _takes_several(known[name].annotation):
            raise _repeated(name, given, "query")


def _takes_several(annotation: Any) -> bool:
    """Whether a parameter is a list, or may be one."""
    return get_origin(annotation) in {list, tuple} or any(map(_takes_several, get_args(annotation)))


def _repeated(name: str, given: Sequence[str], where: str) -> InvalidInput:
    return InvalidInput(f"{quote(name)} is given {len(given)} times; it counts once", path=f"{where}.{name}")
